"""What lies outside an image in a batch padded to one size, kept out of every layer.

A convolution at an image's border must read zeros, a normalisation must count the image's own
pixels, an attention must look at them only. Then a prediction does not depend on how much padding
the batch gave an image. Layers get the image as a mask over cells of res5's stride, from which the
mask of any finer feature map follows; None means that there is nothing outside.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.structs import STRIDE


def inside(size: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Marks the upper left `size` of each plane.

    Args:
      size: int32 [B, 2], height and width.
      shape: static (H, W).

    Returns:
      bool [B, H, W].
    """
    rows, columns = (jnp.arange(shape[axis]) < size[:, axis, None] for axis in (0, 1))
    return rows[:, :, None] & columns[:, None, :]


def cell_mask(extent: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Marks the cells of res5 that belong to each image.

    Args:
      extent: int32 [B, 2], height and width of each image, multiples of `STRIDE`.
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
    """Brings a mask of cells to a feature map.

    Args:
      x: [B, h, w, channels].
      mask: see `cell_mask`; None if there is nothing outside.

    Returns:
      bool [B, h, w, channels], as flax's normalisations take it, or None.
    """
    if mask is None:
        return None
    for axis in (1, 2):
        mask = mask.repeat(x.shape[axis] // mask.shape[axis], axis)
    return jnp.broadcast_to(mask[..., None], x.shape)


def zero_outside(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Sets what lies outside each image to zero, whatever it was.

    Args:
      x: [B, h, w, channels].
      mask: see `cell_mask`; None returns `x`.
    """
    return x if mask is None else jnp.where(pixel_mask(x, mask), x, 0)
