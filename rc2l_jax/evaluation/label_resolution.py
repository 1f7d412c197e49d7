"""Resizes class scores from the network's resolution to the label's, and reduces them per pixel.

At its own resolution, the K scores of a large image do not fit into memory. So they are made some
rows at a time, and reduced, for example to class ids, before the next rows are made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# One image's scores in one view, float32 [F, K, He, We], and int32 [2], the height and width of it
# that the image fills. F is 1, or 2 if the view is also mirrored.
ViewScores = tuple[jax.Array, jax.Array]

# Class scores at label resolution are made in strips of at most this many numbers (64 MiB).
_STRIP = 1 << 24


def describe_in_strips(
    scores: Sequence[ViewScores],
    label_size: jax.Array,
    label_shape: tuple[int, int],
    describe: Callable[[jax.Array], Any],
) -> Any:
    """Applies `describe` to an image's class scores at label resolution, some rows at a time.

    Args:
      scores: the image's scores in each view.
      label_size: int32 [2], height and width of the label.
      label_shape: static (Hl, Wl), at least `label_size`.
      describe: maps class scores of some rows, float32 [K, H, W], to a tree of arrays [..., H, W].

    Returns:
      The tree that `describe` returns, for the whole label: arrays [..., Hl, Wl].
    """
    height, width = label_shape
    rows = min(max(_STRIP // (scores[0][0].shape[1] * width), 1), height)

    def strip(first: jax.Array | int) -> Any:
        return describe(label_rows(scores, label_size, (rows, width), first))

    if rows == height:
        return strip(0)

    def write(i: jax.Array, whole: Any) -> Any:
        first = jnp.minimum(i * rows, height - rows)  # the last strip ends where the label does

        def put(x: jax.Array, part: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(x, part, first, x.ndim - 2)

        return jax.tree.map(put, whole, strip(first))

    def empty(part: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.zeros((*part.shape[:-2], *label_shape), part.dtype)

    start = jax.tree.map(empty, jax.eval_shape(strip, 0))
    return jax.lax.fori_loop(0, -(-height // rows), write, start)


def class_ids(scores: jax.Array) -> jax.Array:
    """Returns the class of each pixel: scores [K, H, W] to ids uint8 [H, W]."""
    return scores.argmax(0).astype(jnp.uint8)


def label_rows(
    all_scores: Sequence[ViewScores],
    label_size: jax.Array,
    shape: tuple[int, int],
    first_row: jax.Array | int,
) -> jax.Array:
    """Averages an image's class scores over scales and mirrored views, at label resolution.

    Args:
      all_scores: the image's scores in each view.
      label_size: int32 [2], height and width of the label.
      shape: static (H', W'): how many rows and columns to make.
      first_row: the label's row that is made first.

    Returns:
      float32 [K, H', W']; values outside `label_size` have no meaning.
    """
    views = []
    for scores, size in all_scores:
        for mirrored in range(scores.shape[0]):
            part = resize_valid_part(scores[mirrored], size, label_size, shape, first_row)
            views.append(mirror(part, label_size[1], axis=2) if mirrored else part)
    return sum(views) / len(views)


def resize_valid_part(
    scores: jax.Array,
    size: jax.Array,
    out_size: jax.Array,
    out_shape: tuple[int, int],
    first_row: jax.Array | int = 0,
) -> jax.Array:
    """Crops to `size` and resizes to `out_size`, both known only at run time, with static shapes.

    Bilinear with half-pixel centres, repeated edges and no antialiasing, as torch's
    `interpolate(x[..., :size[0], :size[1]], out_size, mode="bilinear", align_corners=False)`.

    Args:
      scores: float32 [K, H, W].
      size: int32 [2], height and width of the part of `scores` to read.
      out_size: int32 [2], height and width of the resized part.
      out_shape: static (H', W') of the result.
      first_row: the row of the resized part with which the result begins.

    Returns:
      float32 [K, H', W']; outside `out_size` the edge is repeated.
    """
    for axis, first in enumerate((first_row, 0)):
        place = first + jnp.arange(out_shape[axis], dtype=jnp.float32)
        low, high, weight = _source_pixels(size[axis], out_size[axis], place)
        weight = weight[:, None] if axis == 0 else weight
        low_part = jnp.take(scores, low, axis=axis + 1)
        high_part = jnp.take(scores, high, axis=axis + 1)
        scores = low_part * (1.0 - weight) + high_part * weight
    return scores


def _source_pixels(
    size: jax.Array, out_size: jax.Array, place: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns each output pixel's two neighbours along one axis, and the second's weight."""
    # An example that fills up a batch has size 0: it reads pixel 0, and nothing is divided by 0.
    last = jnp.maximum(size, 1) - 1
    scale = size.astype(jnp.float32) / jnp.maximum(out_size, 1).astype(jnp.float32)
    source = (place + 0.5) * scale - 0.5
    source = jnp.clip(source, 0.0, last.astype(jnp.float32))
    low = jnp.floor(source).astype(jnp.int32)
    return low, jnp.minimum(low + 1, last), source - low


def mirror(x: jax.Array, width: jax.Array, axis: int) -> jax.Array:
    """Mirrors the first `width` places along an axis; the places after them stay as they are."""
    place = jnp.arange(x.shape[axis])
    return jnp.take(x, jnp.where(place < width, width - 1 - place, place), axis=axis)
