"""Boxes and ellipses, turned or not, as polygons."""

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
