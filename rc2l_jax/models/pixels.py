"""From the pixels of an image to what a network is fed."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# ImageNet statistics in the 0..255 range: what MaskFormer's backbones were trained with.
PIXEL_MEAN = (123.675, 116.28, 103.53)


PIXEL_STD = (58.395, 57.12, 57.375)


def normalize(images: jax.Array) -> jax.Array:
    """[B, H, W, 3], uint8 or float in 0..255 (RGB), to float32 of ImageNet's mean and deviation."""
    return (images.astype(jnp.float32) - jnp.array(PIXEL_MEAN)) / jnp.array(PIXEL_STD)
