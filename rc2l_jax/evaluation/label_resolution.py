"""Class scores at the network's resolution -> what each pixel of the label is.

The K scores of a large image do not fit into memory at its own resolution: they are made and
described some rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# Of a view of one image: float32 [F, K, He, We], and int32 [2], how much of He and We it fills.
ViewScores = tuple[jax.Array, jax.Array]

# Class scores at label resolution are made in strips of so many numbers (64 MiB) at most.
_STRIP = 1 << 24


def describe_in_strips(
    scores: Sequence[ViewScores],
    label_size: jax.Array,
    label_shape: tuple[int, int],
    describe: Callable[[jax.Array], Any],
) -> Any:
    """Applies `describe` to an image's class scores at label resolution, some rows at a time.

    So the K scores of an image of any size are never in memory all at once.

    Args:
      scores: of each view.
      label_size: int32 [2], height and width of the label.
      label_shape: static (Hl, Wl), at least `label_size`.
      describe: float32 [K, H, W], class scores of some rows, to a tree of arrays [..., H, W].

    Returns:
      Its tree of arrays [..., Hl, Wl].
    """
    height, width = label_shape
    rows = min(max(_STRIP // (scores[0][0].shape[1] * width), 1), height)

    def strip(first: jax.Array | int) -> Any:
        return describe(label_rows(scores, label_size, (rows, width), first))

    if rows == height:
        return strip(0)

    def write(i: jax.Array, whole: Any) -> Any:
        first = jnp.minimum(i * rows, height - rows)  # the last strip ends with the label

        def put(x: jax.Array, part: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(x, part, first, x.ndim - 2)

        return jax.tree.map(put, whole, strip(first))

    def empty(part: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.zeros((*part.shape[:-2], *label_shape), part.dtype)

    start = jax.tree.map(empty, jax.eval_shape(strip, 0))
    return jax.lax.fori_loop(0, -(-height // rows), write, start)


def class_ids(scores: jax.Array) -> jax.Array:
    """The class of each pixel: scores [K, H, W] to uint8 [H, W]."""
    return scores.argmax(0).astype(jnp.uint8)


def label_rows(
    all_scores: Sequence[ViewScores],
    label_size: jax.Array,
    shape: tuple[int, int],
    first_row: jax.Array | int,
) -> jax.Array:
    """Averages an image's class scores over scales and mirrored views, at label resolution.

    Args:
      all_scores: of each view.
      label_size: int32 [2], height and width of the label.
      shape: static (H', W'): how many rows, from `first_row` on, and columns to make.
      first_row: see there.

    Returns:
      float32 [K, H', W']; what lies outside `label_size` means nothing.
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
    """Crops to a size known at run time only and resizes to another, with static shapes.

    Bilinear with half-pixel centres, edges repeated, no antialiasing: torch's
    `interpolate(x[..., :size[0], :size[1]], out_size, mode="bilinear", align_corners=False)`.

    Args:
      scores: float32 [K, H, W].
      size: int32 [2], height and width of the part to read.
      out_size: int32 [2], height and width of the part to write.
      out_shape: static (H', W').
      first_row: which row of what is written comes first.

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
    """Each output pixel's two neighbours along one axis, and the second's weight."""
    # A padding example has size 0: read pixel 0 rather than divide by zero.
    last = jnp.maximum(size, 1) - 1
    scale = size.astype(jnp.float32) / jnp.maximum(out_size, 1).astype(jnp.float32)
    source = (place + 0.5) * scale - 0.5
    source = jnp.clip(source, 0.0, last.astype(jnp.float32))
    low = jnp.floor(source).astype(jnp.int32)
    return low, jnp.minimum(low + 1, last), source - low


def mirror(x: jax.Array, width: jax.Array, axis: int) -> jax.Array:
    """Mirrors the first `width` places along an axis; the rest stays."""
    place = jnp.arange(x.shape[axis])
    return jnp.take(x, jnp.where(place < width, width - 1 - place, place), axis=axis)
