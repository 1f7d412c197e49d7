"""Random smooth fields and textures; they are cheap, as their interpolation is separable."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Field = np.ndarray  # float64 [H, W] or [H, W, 3]


@lru_cache(maxsize=64)
def _interpolation(size: int, cells: int) -> np.ndarray:
    """Smooth (cosine) interpolation weights [size, cells + 1] of a coarse grid."""
    position = (np.arange(size) + 0.5) / size * cells
    left = np.floor(position).astype(int)
    part = 0.5 - 0.5 * np.cos(np.pi * (position - left))
    weights = np.zeros((size, cells + 1))
    weights[np.arange(size), left] = 1 - part
    weights[np.arange(size), left + 1] += part
    return weights


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Value noise in 0..1 with `cells` cells along each side: [H, W]."""
    weights = _interpolation(size, cells)
    return weights @ rng.random((cells + 1, cells + 1)) @ weights.T


def ramp(rng: np.random.Generator, size: int) -> Field:
    """A linear ramp in 0..1 in a random direction: [H, W]."""
    angle = rng.uniform(0, 2 * np.pi)
    line = (np.arange(size) + 0.5) / size - 0.5
    return 0.5 + (line[:, None] * np.sin(angle) + line * np.cos(angle)) / np.sqrt(2)


def sigmoid(x: Field) -> Field:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def mix(below: Field, above: Field, opacity: Field) -> Field:
    """Lays a colour or image `above` over [H, W, 3] with opacity [H, W]."""
    return below + opacity[..., None] * (above - below)


def textured(rng: np.random.Generator, size: int, colour: np.ndarray, strength: float) -> Field:
    """An image [H, W, 3] of one random texture between `colour` and a second colour.

    Args:
      rng: source of the texture's kind, scale, direction and second colour.
      size: side of the image.
      colour: float [3], 0..255.
      strength: how far the second colour may be from `colour`: at 0 it is the same, at 1 it may be
        any.
    """
    second = colour + strength * rng.uniform(0.2, 1) * (rng.uniform(0, 255, 3) - colour)
    field = _KINDS[rng.integers(len(_KINDS))](rng, size)
    return colour + field[..., None] * (second - colour)


def _cloud(rng: np.random.Generator, size: int) -> Field:
    octaves = [smooth_noise(rng, size, cells) / cells for cells in (3, 6, 12)]
    return sum(octaves) / (1 / 3 + 1 / 6 + 1 / 12)


def _gradient(rng: np.random.Generator, size: int) -> Field:
    return 0.7 * ramp(rng, size) + 0.3 * smooth_noise(rng, size, 4)


def _stripes(rng: np.random.Generator, size: int) -> Field:
    phase = ramp(rng, size) * rng.uniform(4, 14) + rng.uniform(0.3, 1.5) * smooth_noise(
        rng, size, 4
    )
    return 0.5 + 0.5 * np.sin(2 * np.pi * phase)


def _patches(rng: np.random.Generator, size: int) -> Field:
    return sigmoid(rng.uniform(8, 25) * (smooth_noise(rng, size, int(rng.integers(5, 13))) - 0.5))


def _grain(rng: np.random.Generator, size: int) -> Field:
    return 0.5 * smooth_noise(rng, size, size // 2) + 0.5 * smooth_noise(rng, size, size // 4)


_KINDS = (_cloud, _gradient, _stripes, _patches, _grain)


def blur(image: Field, deviation: float) -> Field:
    """Gaussian blur of an image [H, W, 3], edges repeated."""
    radius = 3
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / max(deviation, 1e-3)) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="edge")
    height, width = image.shape[:2]
    rows = sum(k * padded[i : i + height] for i, k in enumerate(kernel))
    return sum(k * rows[:, i : i + width] for i, k in enumerate(kernel))
