"""Boxes and ellipses, turned or not, as polygons; and what a window shows of a polygon."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_CORNERS = 180  # of the polygon that stands for an ellipse


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    """The corners of a rectangle."""
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def rotated(ring: Sequence[Sequence[float]], centre: Sequence[float], degrees: float) -> np.ndarray:
    """The corners [N, 2], turned clockwise (as seen; y points down) around a point."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (np.asarray(ring, np.float64) - centre) @ turn + centre


def ellipse(centre: Sequence[float], radius_x: float, radius_y: float) -> np.ndarray:
    """The corners [N, 2] of a polygon that stands for an ellipse."""
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * [radius_x, radius_y] + centre


def clipped(ring: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The part of a polygon that lies in a window, by Sutherland and Hodgman.

    Args:
      ring: corners [N, 2].
      low: the window's upper left corner [2].
      high: its lower right corner [2].

    Returns:
      Corners [M, 2]; M may be 0. Edges beyond the window become edges along its sides.
    """
    for axis in (0, 1):
        ring = _cut(ring, ring[:, axis] - low[axis])
        ring = _cut(ring, high[axis] - ring[:, axis])
    return ring


def _cut(ring: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Cuts a polygon at a line. `inside` [N] says how far inside of it each corner lies."""
    if (inside >= 0).all():
        return ring
    kept = []
    for index, (corner, depth) in enumerate(zip(ring, inside)):
        before, depth_before = ring[index - 1], inside[index - 1]
        if (depth >= 0) != (depth_before >= 0):
            kept.append(before + (corner - before) * (depth_before / (depth_before - depth)))
        if depth >= 0:
            kept.append(corner)
    return np.array(kept).reshape(-1, 2)
