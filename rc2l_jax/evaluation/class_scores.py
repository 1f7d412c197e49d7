"""From images to class scores at each label's own resolution, as MaskFormer does it.

An image is predicted as if it were alone: padded at the bottom and right to a multiple of the
coarsest stride with zeros after normalisation, mask logits upsampled to that padded size, cropped.
On top of it, the test-time options: several scales, mirrored views, sliding windows.
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
    label_rows,
    mirror,
)
from rc2l_jax.evaluation.windows import InferenceOptions, WindowGrid
from rc2l_jax.models import pixels
from rc2l_jax.models.extent import inside
from rc2l_jax.models.maskformer import MaskFormer, semantic_inference
from rc2l_jax.structs import STRIDE, EvalBatch, EvalView

# Of a view: class logits float32 [F, T, B, N, K+1] and mask logits float32 [F, T, B, N, h, w]. F is
# 1, or 2 with the mirrored view; T counts the windows.
Logits = tuple[jax.Array, jax.Array]


def predict_labels(
    model: MaskFormer, variables: Any, batch: EvalBatch, options: InferenceOptions
) -> jax.Array:
    """Labels every pixel at the resolution of the example's own label.

    Args:
      model: the network.
      variables: its "params" and "batch_stats".
      batch: of one device, [B, ...].
      options: see `InferenceOptions`.

    Returns:
      uint8 [B, Hl, Wl], class ids 0..K-1; what lies outside `label_size` means nothing.
    """
    return predict_pixels(model, variables, batch, options, class_ids)


def predict_pixels(
    model: MaskFormer,
    variables: Any,
    batch: EvalBatch,
    options: InferenceOptions,
    describe: Callable[[jax.Array], Any],
) -> Any:
    """Says something about every pixel at the resolution of the example's own label.

    Args:
      model, variables, batch, options: see `predict_labels`.
      describe: see `describe_in_strips`.

    Returns:
      Its tree of arrays [B, ..., Hl, Wl]; what lies outside `label_size` means nothing.
    """
    logits = tuple(view_logits(model, variables, view, options) for view in batch.views)

    def one(i: jax.Array) -> Any:
        scores = image_scores(logits, batch, i, options)
        return describe_in_strips(scores, batch.label_size[i], batch.label.shape[-2:], describe)

    # One image after the other: only one image's scores are in memory.
    return jax.lax.map(one, jnp.arange(batch.index.shape[0]))


def view_logits(
    model: MaskFormer, variables: Any, view: EvalView, options: InferenceOptions
) -> Logits:
    """Runs the network on every window of a view, each as an image of its own.

    Args:
      model: the network.
      variables: its "params" and "batch_stats".
      view: [B, ...].
      options: see `InferenceOptions`.

    Returns:
      The last decoder layer's logits.
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
        out = model.apply(variables, windows, train=False, extent=_padded(size), every_layer=False)
        return out.class_logits[-1], out.mask_logits[-1]

    # A loop in the program, not in Python: the network is compiled once.
    return jax.lax.map(
        lambda images: jax.lax.map(lambda index: predict(images, index), grid.index), images
    )


def label_scores(
    logits: Sequence[Logits], batch: EvalBatch, i: jax.Array | int, options: InferenceOptions
) -> jax.Array:
    """Averages an image's class scores over scales, mirrored views and windows.

    Args:
      logits: of each view, see `view_logits`.
      batch: of one device, [B, ...].
      i: which of its images.
      options: see `InferenceOptions`.

    Returns:
      float32 [K, Hl, Wl]; what lies outside `label_size` means nothing.
    """
    scores = image_scores(logits, batch, i, options)
    return label_rows(scores, batch.label_size[i], batch.label.shape[-2:], 0)


def image_scores(
    logits: Sequence[Logits], batch: EvalBatch, i: jax.Array | int, options: InferenceOptions
) -> list[ViewScores]:
    """Averages an image's class scores over windows; arguments as for `label_scores`."""
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
      shape: static (H, W) it is padded to.
      grid: of the windows.

    Returns:
      float32 [K, H, W]; what lies outside `size` means nothing.
    """

    def scores_of(classes: jax.Array, masks: jax.Array, part: jax.Array) -> jax.Array:
        # The window alone would end where its padding to the coarsest stride does.
        masks = _repeat_edge(masks, _padded(part) // structs.MASK_STRIDE)
        return semantic_inference(classes[None], masks[None], grid.shape)[0]

    if len(grid.index) == 1:
        return scores_of(logits[0][0], logits[1][0], jnp.minimum(size, jnp.array(grid.shape)))

    def add(total: jax.Array, window: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        classes, masks, index = window
        start, part, used = grid.place(size, index)
        scores = scores_of(classes, masks, part)
        scores = jnp.concatenate([scores, jnp.ones((1, *grid.shape))])  # the last plane counts
        scores = jnp.where(inside(part[None], grid.shape) & used, scores, 0.0)
        at = (0, start[0], start[1])
        scores += jax.lax.dynamic_slice(total, at, scores.shape)
        return jax.lax.dynamic_update_slice(total, scores, at), None

    num_classes = logits[0].shape[-1] - 1
    total, _ = jax.lax.scan(add, jnp.zeros((num_classes + 1, *shape)), (*logits, grid.index))
    return total[:-1] / jnp.maximum(total[-1], 1.0)


def _padded(size: jax.Array) -> jax.Array:
    """The next multiple of the coarsest stride, at least one: examples that fill up have size 0."""
    return -(-jnp.maximum(size, 1) // STRIDE) * STRIDE


def _repeat_edge(x: jax.Array, size: jax.Array) -> jax.Array:
    """Replaces what lies outside the upper left `size` of [N, h, w] by the nearest inside."""
    rows, columns = (jnp.minimum(jnp.arange(x.shape[axis + 1]), size[axis] - 1) for axis in (0, 1))
    return x[:, rows][:, :, columns]
