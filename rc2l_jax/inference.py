"""From images to class scores at each label's own resolution, as MaskFormer does it.

An image is predicted as if it were alone: padded at the bottom and right to a multiple of the
coarsest stride with zeros after normalisation, mask logits upsampled to that padded size, cropped.
On top of it, the test-time options: several scales, mirrored views, sliding windows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rc2l_jax import augment
from rc2l_jax.models.extent import inside
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.structs import STRIDE, EvalBatch, EvalView

# Of a view: class logits float32 [F, T, B, N, K+1] and mask logits float32 [F, T, B, N, h, w]. F is
# 1, or 2 with the mirrored view; T counts the windows.
Logits = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """What is done at test time besides the network.

    Attributes:
      flip: also predict mirrored views, and average.
      window: side of the sliding windows, a multiple of 32; 0 for the whole image at once.
      window_stride: distance of two windows, as a share of their side.
    """

    flip: bool
    window: int
    window_stride: float

    @classmethod
    def from_config(cls, config: ConfigDict) -> InferenceOptions:
        """Reads `config.eval`."""
        return cls(config.eval.flip, config.eval.window, config.eval.window_stride)


@dataclasses.dataclass(frozen=True)
class WindowGrid:
    """Sliding windows over images of several sizes that are padded to one shape.

    Attributes:
      shape: (h, w) of a window.
      step: distance of two windows, in pixels.
      index: int32 [T, 2], rows and columns of the windows that an image of the whole shape has.
    """

    shape: tuple[int, int]
    step: int
    index: np.ndarray

    @classmethod
    def over(cls, shape: tuple[int, int], options: InferenceOptions) -> WindowGrid:
        """Lays windows over images padded to `shape`; one window if there is no sliding."""
        side = options.window or max(shape)
        step = max(round(side * options.window_stride), 1)
        counts = [1 + max(-(-(length - side) // step), 0) for length in shape]
        index = np.array(list(np.ndindex(*counts)), np.int32)
        return cls((min(side, shape[0]), min(side, shape[1])), step, index)

    def place(self, size: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Places one window in images.

        The last window of a row or column ends with the image.

        Args:
          size: int32 [..., 2], height and width of each image.
          index: int32 [2], one of `self.index`.

        Returns:
          int32 [..., 2], the window's upper left corner; int32 [..., 2], height and width of what
          it shows of the image; bool [...], whether the image alone would have this window.
        """
        last = jnp.maximum(size - jnp.array(self.shape), 0)
        used = (index == 0) | ((index - 1) * self.step < last)
        start = jnp.minimum(index * self.step, last)
        return start, jnp.minimum(size, jnp.array(self.shape)), used.all(-1)


def semantic_inference(
    class_logits: jax.Array, mask_logits: jax.Array, size: tuple[int, int]
) -> jax.Array:
    """Scores every class at every pixel (MaskFormer, section 3.4, `semantic_inference`).

    Masks are upsampled as logits, before the sigmoid, as MaskFormer does. Images are done one
    after the other, so that only one image's N upsampled masks are in memory.

    Args:
      class_logits: float32 [B, N, K+1], last class no-object.
      mask_logits: float32 [B, N, h, w].
      size: (H, W) of the network's (padded) input.

    Returns:
      float32 [B, K, H, W]: sum over queries of p(class) times p(mask).
    """

    def one(logits: tuple[jax.Array, jax.Array]) -> jax.Array:
        classes, masks = logits
        masks = jax.image.resize(masks, (masks.shape[0], *size), "bilinear", antialias=False)
        return jnp.einsum(
            "nk,nhw->khw",
            jax.nn.softmax(classes)[:, :-1],
            jax.nn.sigmoid(masks),
            precision=jax.lax.Precision.HIGHEST,
        )

    return jax.lax.map(one, (class_logits, mask_logits))


def resize_valid_part(
    scores: jax.Array, size: jax.Array, out_size: jax.Array, out_shape: tuple[int, int]
) -> jax.Array:
    """Crops to a size known at run time only and resizes to another, with static shapes.

    Bilinear with half-pixel centres, edges repeated, no antialiasing: torch's
    `interpolate(x[..., :size[0], :size[1]], out_size, mode="bilinear", align_corners=False)`.

    Args:
      scores: float32 [K, H, W].
      size: int32 [2], height and width of the part to read.
      out_size: int32 [2], height and width of the part to write.
      out_shape: static (H', W'), at least `out_size`.

    Returns:
      float32 [K, H', W']; outside `out_size` the edge is repeated.
    """
    for axis in (0, 1):
        low, high, weight = _source_pixels(size[axis], out_size[axis], out_shape[axis])
        weight = weight[:, None] if axis == 0 else weight
        low_part = jnp.take(scores, low, axis=axis + 1)
        high_part = jnp.take(scores, high, axis=axis + 1)
        scores = low_part * (1.0 - weight) + high_part * weight
    return scores


def _source_pixels(
    size: jax.Array, out_size: jax.Array, length: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Each output pixel's two neighbours along one axis, and the second's weight: [length]."""
    # A padding example has size 0: read pixel 0 rather than divide by zero.
    last = jnp.maximum(size, 1) - 1
    scale = size.astype(jnp.float32) / jnp.maximum(out_size, 1).astype(jnp.float32)
    source = (jnp.arange(length, dtype=jnp.float32) + 0.5) * scale - 0.5
    source = jnp.clip(source, 0.0, last.astype(jnp.float32))
    low = jnp.floor(source).astype(jnp.int32)
    return low, jnp.minimum(low + 1, last), source - low


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
    logits = tuple(view_logits(model, variables, view, options) for view in batch.views)
    # One image after the other: only one image's K scores at label resolution are in memory.
    return jax.lax.map(
        lambda i: label_scores(logits, batch, i, options).argmax(0).astype(jnp.uint8),
        jnp.arange(batch.index.shape[0]),
    )


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
    images = augment.normalize(view.image)[None]
    if options.flip:
        mirror = jax.vmap(lambda image, width: _mirror(image, width, axis=1))
        images = jnp.concatenate([images, mirror(images[0], view.size[:, 1])[None]])

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
    label_size = batch.label_size[i]
    all_scores = []
    for (classes, masks), view in zip(logits, batch.views):
        shape = view.image.shape[1:3]
        grid = WindowGrid.over(shape, options)
        for mirrored in range(classes.shape[0]):
            window_logits = classes[mirrored, :, i], masks[mirrored, :, i]
            scores = _merge_windows(window_logits, view.size[i], shape, grid)
            scores = resize_valid_part(scores, view.size[i], label_size, batch.label.shape[-2:])
            all_scores.append(_mirror(scores, label_size[1], axis=2) if mirrored else scores)
    return sum(all_scores) / len(all_scores)


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
        masks = _repeat_edge(masks, _padded(part) // augment.MASK_STRIDE)
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


def _mirror(x: jax.Array, width: jax.Array, axis: int) -> jax.Array:
    """Mirrors the first `width` places along an axis; the rest stays."""
    place = jnp.arange(x.shape[axis])
    return jnp.take(x, jnp.where(place < width, width - 1 - place, place), axis=axis)
