"""Two ways to draw regions with holes where polygons have none."""

from __future__ import annotations

import numpy as np
import shapely

from rc2l_jax.prediction.annotations.scene import Scene
from rc2l_jax.prediction.regions import Region


def layers(scene: Scene) -> list[tuple[Region, int]]:
    """Orders regions so that their outer rings, drawn one over the other, give the same mask.

    The background is drawn, too, where it lies in another region's hole.

    Returns:
      (region, layer), the lowest first. What lies in a hole has a higher layer than what is around.
    """
    holed = [region for region in scene.regions if region.outline.interiors]
    tree = shapely.STRtree([shapely.Polygon(region.outline.exterior) for region in holed])
    points = [region.outline.point_on_surface() for region in scene.regions]
    around: list[list[Region]] = [[] for _ in points]
    for inner, outer in tree.query(points, predicate="within").T:
        if holed[outer] is not scene.regions[inner]:
            around[inner].append(holed[outer])
    drawn = [
        (region, len(outer))
        for region, outer in zip(scene.regions, around)
        if not (scene.is_background(region) and all(map(scene.is_background, outer)))
    ]
    return sorted(drawn, key=lambda entry: entry[1])


def corners(ring: shapely.LinearRing) -> np.ndarray:
    """Returns the corners of a ring, float [N, 2], each once."""
    return shapely.get_coordinates(ring)[:-1]


def keyhole(outline: shapely.Polygon) -> np.ndarray:
    """Returns one ring, float [N, 2], that has the polygon's holes: a cut leads to each of them.

    The cuts are without width, and go from the hole's rightmost corner to the right, to the ring or
    to a hole that is connected already.
    """
    polygon = shapely.orient_polygons(outline)  # so that a hole is walked the other way round
    ring = shapely.get_coordinates(polygon.exterior)
    holes = [corners(hole) for hole in polygon.interiors]
    for hole in sorted(holes, key=lambda hole: -hole[:, 0].max()):
        hole = np.roll(hole, -hole[:, 0].argmax(), axis=0)
        edge, end = _to_the_right(ring, *hole[0])
        around = np.concatenate([[end], hole, hole[:1], [end]])
        ring = np.concatenate([ring[: edge + 1], around, ring[edge + 1 :]])
    return ring[:-1]


def _to_the_right(ring: np.ndarray, x: float, y: float) -> tuple[int, tuple[float, float]]:
    """Finds what a ray to the right meets first: the index of an edge, and the point on it."""
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    (crossing,) = np.nonzero((np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1)))
    share = (y - y0[crossing]) / (y1[crossing] - y0[crossing])
    met = x0[crossing] + share * (x1[crossing] - x0[crossing])
    first = np.where(met >= x, met, np.inf).argmin()
    return int(crossing[first]), (float(met[first]), y)
