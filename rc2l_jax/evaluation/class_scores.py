"""From images to class scores at each label's own resolution, as MaskFormer does it.

Each image is predicted as if it were alone in its batch: it is normalised, padded with zeros at the
bottom and right to a multiple of the coarsest stride, its mask logits are upsampled to that padded
size, and the result is cropped. Test-time options come on top of this: several scales, mirrored
views, sliding windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from rc2l_jax import structs
from rc2l_jax.evaluation.label_resolution import (
    ViewScores,
    class_ids,
    describe_in_strips,
    mirror,
)
from rc2l_jax.evaluation.windows import InferenceOptions, WindowGrid
from rc2l_jax.models import pixels
from rc2l_jax.models.extent import inside
from rc2l_jax.models.maskformer import MaskFormer, semantic_inference
from rc2l_jax.structs import STRIDE, EvalBatch, EvalView

# A view's class logits float32 [F, T, B, N, K+1] and mask logits float32 [F, T, B, N, h, w]. F is
# 1, or 2 if the view is also mirrored; T is the number of windows.
Logits = tuple[jax.Array, jax.Array]


def predict_labels(
    model: MaskFormer, variables: Any, batch: EvalBatch, options: InferenceOptions
) -> jax.Array:
    """Predicts the class of every pixel, at the resolution of each example's own label.

    Args:
      model: the network.
      variables: its "params" and "batch_stats".
      batch: one device's batch, [B, ...].
      options: mirrored views and windows, see `InferenceOptions`.

    Returns:
      uint8 [B, Hl, Wl], class ids 0..K-1; values outside `label_size` have no meaning.
    """
    return predict_pixels(model, variables, batch, options, class_ids)


def predict_pixels(
    model: MaskFormer,
    variables: Any,
    batch: EvalBatch,
    options: InferenceOptions,
    describe: Callable[[jax.Array], Any],
) -> Any:
    """Applies `describe` to every pixel's class scores, at each label's own resolution.

    Args:
      model, variables, batch, options: as for `predict_labels`.
      describe: maps class scores of some rows, float32 [K, H, W], to a tree of arrays [..., H, W].

    Returns:
      The tree that `describe` returns, of arrays [B, ..., Hl, Wl]; values outside `label_size` have
      no meaning.
    """
    logits = tuple(view_logits(model, variables, view, options) for view in batch.views)

    def one(i: jax.Array) -> Any:
        scores = image_scores(logits, batch, i, options)
        return describe_in_strips(scores, batch.label_size[i], batch.label.shape[-2:], describe)

    # One image after the other, so that only one image's scores are in memory.
    return jax.lax.map(one, jnp.arange(batch.index.shape[0]))


def view_logits(
    model: MaskFormer, variables: Any, view: EvalView, options: InferenceOptions
) -> Logits:
    """Runs the network on every window of a view, each as an image of its own.

    Args:
      model: the network.
      variables: its "params" and "batch_stats".
      view: the batch at one scale, [B, ...].
      options: mirrored views and windows, see `InferenceOptions`.

    Returns:
      Class and mask logits of the last decoder layer, see `Logits`.
    """
    grid = WindowGrid.over(view.image.shape[1:3], options)
    images = pixels.normalize(view.image)[None]
    if options.flip:
        flipped = jax.vmap(lambda image, width: mirror(image, width, axis=1))
        images = jnp.concatenate([images, flipped(images[0], view.size[:, 1])[None]])

    def cut(image: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (start[0], start[1], 0), (*grid.shape, 3))

    def predict(images: jax.Array, index: jax.Array) -> Logits:
        start, size, _ = grid.place(view.size, index)
        windows = jax.vmap(cut)(images, start)
        # MaskFormer pads with zeros after normalisation, up to the coarsest stride.
        windows = jnp.where(inside(size, grid.shape)[..., None], windows, 0.0)
        out = model.apply(variables, windows, train=False, extent=padded(size), every_layer=False)
        return out.class_logits[-1], out.mask_logits[-1]

    # The loops are part of the program, so that the network is compiled once and not per window.
    return jax.lax.map(
        lambda images: jax.lax.map(lambda index: predict(images, index), grid.index), images
    )


def image_scores(
    logits: Sequence[Logits], batch: EvalBatch, i: jax.Array | int, options: InferenceOptions
) -> list[ViewScores]:
    """Averages an image's class scores over windows; `label_rows` averages over views.

    Args:
      logits: each view's logits, as `view_logits` returns them.
      batch: one device's batch, [B, ...].
      i: the image's place in the batch.
      options: mirrored views and windows, see `InferenceOptions`.

    Returns:
      For each view the scores, at the view's resolution, and the image's size in it.
    """
    all_scores = []
    for (classes, masks), view in zip(logits, batch.views):
        shape = view.image.shape[1:3]
        grid = WindowGrid.over(shape, options)
        scores = [
            _merge_windows((classes[f, :, i], masks[f, :, i]), view.size[i], shape, grid)
            for f in range(classes.shape[0])
        ]
        all_scores.append((jnp.stack(scores), view.size[i]))
    return all_scores


def _merge_windows(
    logits: Logits, size: jax.Array, shape: tuple[int, int], grid: WindowGrid
) -> jax.Array:
    """Averages the scores of one image's windows where they overlap.

    Args:
      logits: float32 [T, N, K+1] and [T, N, h, w].
      size: int32 [2], height and width of the image.
      shape: static (H, W) to which it is padded.
      grid: where the windows lie.

    Returns:
      float32 [K, H, W]; values outside `size` have no meaning.
    """

    def scores_of(classes: jax.Array, masks: jax.Array, part: jax.Array) -> jax.Array:
        # Alone, the window would end with its own padding to the coarsest stride, and upsampling
        # would repeat the edge there.
        masks = _repeat_edge(masks, padded(part) // structs.MASK_STRIDE)
        return semantic_inference(classes[None], masks[None], grid.shape)[0]

    if len(grid.index) == 1:
        return scores_of(logits[0][0], logits[1][0], jnp.minimum(size, jnp.array(grid.shape)))

    def add(total: jax.Array, window: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        classes, masks, index = window
        start, part, used = grid.place(size, index)
        scores = scores_of(classes, masks, part)
        scores = jnp.concatenate([scores, jnp.ones((1, *grid.shape))])  # the last counts windows
        scores = jnp.where(inside(part[None], grid.shape) & used, scores, 0.0)
        at = (0, start[0], start[1])
        scores += jax.lax.dynamic_slice(total, at, scores.shape)
        return jax.lax.dynamic_update_slice(total, scores, at), None

    num_classes = logits[0].shape[-1] - 1
    total, _ = jax.lax.scan(add, jnp.zeros((num_classes + 1, *shape)), (*logits, grid.index))
    return total[:-1] / jnp.maximum(total[-1], 1.0)


def padded(size: jax.Array) -> jax.Array:
    """Rounds sizes up to multiples of the coarsest stride; 0, of examples that fill up, to one."""
    return -(-jnp.maximum(size, 1) // STRIDE) * STRIDE


def _repeat_edge(x: jax.Array, size: jax.Array) -> jax.Array:
    """Replaces values outside the upper left `size` of [N, h, w] by the nearest value inside."""
    rows, columns = (jnp.minimum(jnp.arange(x.shape[axis + 1]), size[axis] - 1) for axis in (0, 1))
    return x[:, rows][:, :, columns]
