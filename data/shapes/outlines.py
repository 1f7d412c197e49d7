"""Outlines as signed distance functions, vectorised over the pixels of an image."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np

from data.shapes.textures import Field

# In units of the circumscribed radius.
RING_HALF_WIDTH = 0.2
CROSS_HALF_WIDTH = 0.3
STAR_INNER_RADIUS = 0.45
_CROSS_LENGTH = float(np.sqrt(1 - CROSS_HALF_WIDTH**2))

# Area of each outline at radius 1.
AREA = {
    "disk": np.pi,
    "square": 2.0,
    "triangle": 0.75 * np.sqrt(3),
    "star": 5 * STAR_INNER_RADIUS * np.sin(np.pi / 5),
    "ring": np.pi * (1 - (1 - 2 * RING_HALF_WIDTH) ** 2),
    "cross": 8 * CROSS_HALF_WIDTH * _CROSS_LENGTH - 4 * CROSS_HALF_WIDTH**2,
}


@dataclasses.dataclass(frozen=True)
class Pose:
    """Where an outline lies: centre (y, x), radius in pixels, angle in radians, axis stretch."""

    centre: np.ndarray
    radius: float
    angle: float
    stretch: float


@lru_cache(maxsize=4)
def pixel_centres(size: int) -> tuple[Field, Field]:
    """Coordinates y, x [H, W] of the pixel centres: 0.5, 1.5, ..."""
    y, x = np.mgrid[:size, :size] + 0.5
    return y, x


def signed_distance(name: str, pose: Pose, size: int) -> Field:
    """Distance to an outline, in pixels, negative inside.

    Args:
      name: a key of `AREA`.
      pose: of the outline; a stretch other than 1 makes the distance approximate.
      size: side of the image.

    Returns:
      float [H, W].
    """
    y, x = pixel_centres(size)
    y, x = (y - pose.centre[0]) / pose.radius, (x - pose.centre[1]) / pose.radius
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    u, v = (cos * x + sin * y) * pose.stretch, (cos * y - sin * x) / pose.stretch
    return pose.radius * _UNIT[name](u, v)


def _disk(u: Field, v: Field) -> Field:
    return np.hypot(u, v) - 1


def _ring(u: Field, v: Field) -> Field:
    return np.abs(np.hypot(u, v) - (1 - RING_HALF_WIDTH)) - RING_HALF_WIDTH


def _box(u: Field, v: Field, half_u: float, half_v: float) -> Field:
    du, dv = np.abs(u) - half_u, np.abs(v) - half_v
    outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
    return outside + np.minimum(np.maximum(du, dv), 0)


def _square(u: Field, v: Field) -> Field:
    return _box(u, v, np.sqrt(0.5), np.sqrt(0.5))


def _cross(u: Field, v: Field) -> Field:
    return np.minimum(
        _box(u, v, _CROSS_LENGTH, CROSS_HALF_WIDTH), _box(u, v, CROSS_HALF_WIDTH, _CROSS_LENGTH)
    )


def _triangle(u: Field, v: Field) -> Field:
    angles = np.pi / 2 + np.arange(3) * 2 * np.pi / 3
    return _polygon(u, v, np.stack([np.cos(angles), np.sin(angles)], axis=1))


def _star(u: Field, v: Field) -> Field:
    angles = np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2, STAR_INNER_RADIUS, 1.0)
    return _polygon(u, v, np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1))


def _polygon(u: Field, v: Field, corners: np.ndarray) -> Field:
    """Exact signed distance to a polygon of `corners` float [P, 2]; inside by the even-odd rule."""
    point = np.stack([u, v], axis=-1)
    nearest = np.full(u.shape, np.inf)
    inside = np.zeros(u.shape, bool)
    for a, b in zip(corners, np.roll(corners, -1, axis=0)):
        edge, offset = b - a, point - a
        along = np.clip(offset @ edge / (edge @ edge), 0, 1)
        gap = offset - along[..., None] * edge
        nearest = np.minimum(nearest, np.einsum("hwc,hwc->hw", gap, gap))
        if edge[1] != 0:
            crosses = (a[1] > v) != (b[1] > v)
            inside ^= crosses & (u < a[0] + edge[0] * (v - a[1]) / edge[1])
    return np.where(inside, -1, 1) * np.sqrt(nearest)


_UNIT = {
    "disk": _disk,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}
