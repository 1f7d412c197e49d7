"""Sine position codes of the image features that queries attend to (DETR, arXiv 2005.12872)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


def sine_position(height: int, width: int, dim: int, temperature: float = 10_000.0) -> jax.Array:
    """Sine position codes: the first half of a code is of the row, the second of the column.

    Positions are first scaled to (0, 2 pi].

    Args:
      height: of the feature map.
      width: of the feature map.
      dim: length of each code; a multiple of 4.
      temperature: about the ratio of the longest to the shortest wavelength.

    Returns:
      float32 [height * width, dim].
    """
    rows, columns = (_sine_axis(size, dim // 2, temperature) for size in (height, width))
    shape = (height, width, dim // 2)
    code = jnp.concatenate(
        [jnp.broadcast_to(rows[:, None], shape), jnp.broadcast_to(columns[None], shape)], axis=-1
    )
    return code.reshape(height * width, dim)


def masked_sine_position(mask: jax.Array, dim: int, temperature: float = 10_000.0) -> jax.Array:
    """`sine_position` for a batch of images of several sizes: each gets the codes of its own size.

    Args:
      mask: bool [B, height, width], True on the upper left part that each image takes up.
      dim: length of each code; a multiple of 4.
      temperature: about the ratio of the longest to the shortest wavelength.

    Returns:
      float32 [B, height * width, dim]; meaningless outside the images.
    """

    def codes(lines: jax.Array) -> jax.Array:
        """Codes along one axis from the mask along it: bool [B, length] -> [B, length, dim / 2]."""
        length = lines.shape[1]
        table = np.zeros((length + 1, length, dim // 2), np.float32)
        for size in range(1, length + 1):
            table[size, :size] = _sine_axis(size, dim // 2, temperature)
        return jnp.asarray(table)[lines.sum(1)]

    rows, columns = codes(mask[:, :, 0]), codes(mask[:, 0, :])
    shape = (*mask.shape, dim // 2)
    code = jnp.concatenate(
        [jnp.broadcast_to(rows[:, :, None], shape), jnp.broadcast_to(columns[:, None], shape)], -1
    )
    return code.reshape(mask.shape[0], -1, dim)


def _sine_axis(size: int, dim: int, temperature: float) -> np.ndarray:
    """Codes of the positions along an axis: float32 [size, dim], sines and cosines alternating."""
    position = np.arange(1, size + 1) / (size + 1e-6) * 2 * math.pi
    angle = position[:, None] / temperature ** (np.arange(0, dim, 2) / dim)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(size, dim).astype(np.float32)
