"""Normalises the pixels of an image to what a network takes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Mean and standard deviation of ImageNet's red, green and blue, in the 0..255 range. MaskFormer's
# backbones were trained with them.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


def normalize(images: jax.Array) -> jax.Array:
    """Subtracts ImageNet's mean and divides by its standard deviation.

    Args:
      images: uint8 or float [B, H, W, 3] in 0..255, RGB.

    Returns:
      float32 [B, H, W, 3].
    """
    return (images.astype(jnp.float32) - jnp.array(PIXEL_MEAN)) / jnp.array(PIXEL_STD)
