"""Keeps the padding of a batch out of every layer, so that it cannot change predictions.

At an image's border a convolution must read zeros. A normalisation must take its statistics from
the image's own pixels only, and an attention must look at these only. Layers are told where the
images are by a mask of cells, squares of `STRIDE` pixels (one pixel of res5), from which the mask
of any finer feature map follows. A mask of None means that the images fill the batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.structs import STRIDE


def inside(size: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Marks the upper left part of each image's plane.

    Args:
      size: int32 [B, 2], height and width of that part.
      shape: static (H, W) of the planes.

    Returns:
      bool [B, H, W].
    """
    rows, columns = (jnp.arange(shape[axis]) < size[:, axis, None] for axis in (0, 1))
    return rows[:, :, None] & columns[:, None, :]


def cell_mask(extent: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Marks the cells (pixels of res5) that belong to each image.

    Args:
      extent: int32 [B, 2], height and width of each image in pixels, multiples of `STRIDE`.
      shape: static (H, W) of the batch.

    Returns:
      bool [B, H / STRIDE, W / STRIDE].

    Raises:
      ValueError: H or W is not a multiple of `STRIDE`.
    """
    if shape[0] % STRIDE or shape[1] % STRIDE:
        raise ValueError(f"images of {shape} with an extent must be multiples of {STRIDE}")
    return inside(extent // STRIDE, (shape[0] // STRIDE, shape[1] // STRIDE))


def pixel_mask(x: jax.Array, mask: jax.Array | None) -> jax.Array | None:
    """Enlarges a mask of cells to the size of a feature map.

    Args:
      x: the feature map, [B, h, w, channels].
      mask: bool [B, H / STRIDE, W / STRIDE] from `cell_mask`; None if the images fill the batch.

    Returns:
      bool [B, h, w, channels], as flax's normalisations take it, or None.
    """
    if mask is None:
        return None
    for axis in (1, 2):
        mask = mask.repeat(x.shape[axis] // mask.shape[axis], axis)
    return jnp.broadcast_to(mask[..., None], x.shape)


def zero_outside(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Sets a feature map to zero outside of each image, even where it holds NaN.

    Args:
      x: the feature map, [B, h, w, channels].
      mask: bool [B, H / STRIDE, W / STRIDE] from `cell_mask`; None returns `x` as it is.
    """
    return x if mask is None else jnp.where(pixel_mask(x, mask), x, 0)
