"""Divides a mask of class ids into regions, with outlines that a person can correct."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import shapely
from scipy import sparse

# Regions below this share of the photo are specks: they become part of what surrounds them. A
# network sees a photo at a short edge of some 500 pixels and predicts masks of a quarter of that.
# Two of these pixels are this share of a photo; what is smaller comes from enlarging the scores.
SPECK = 1e-4
# Outlines are simplified by this share of the photo's short edge, and by a pixel at least.
_TOLERANCE = 1e-3
REGION_BYTES = 16  # memory for each pixel while regions are found
_UNKNOWN = -1


@dataclasses.dataclass(frozen=True)
class Region:
    """A connected part of a class. Pixels that touch at a corner only are not connected.

    Attributes:
      class_id: the class.
      outline: simplified, with holes. x and y in pixels from the photo's upper left corner, so that
        the first pixel lies between 0 and 1. Regions that border on each other have the same
        corners there.
      area: how many pixels it has.
      box: (x, y, width, height) around its pixels.
      runs: int64 [N, 2], where its pixels begin and how many follow each other, going through the
        photo column by column, as COCO does.
      score: mean confidence of its pixels; None if that is unknown or not finite.
    """

    class_id: int
    outline: shapely.Polygon
    area: int
    box: tuple[int, int, int, int]
    runs: np.ndarray
    score: float | None = None


class _Parts(NamedTuple):
    """The connected parts of a mask, as runs of pixels of the same class within a column.

    Attributes:
      starts: int64 [N], the first pixel of each run, counted column by column.
      lengths: int64 [N], pixels of each run.
      part: int [N], number of the part that each run belongs to.
      area: int64 [P], pixels of each part.
    """

    starts: np.ndarray
    lengths: np.ndarray
    part: np.ndarray
    area: np.ndarray

    def run_at(self, places: np.ndarray) -> np.ndarray:
        """The runs that pixels, counted column by column, belong to."""
        return np.searchsorted(self.starts, places, "right") - 1


def tolerance(size: tuple[int, int]) -> float:
    """By how many pixels outlines are simplified in a photo of size (H, W).

    Corners are left out where the triangle that this cuts off or adds is smaller than the
    tolerance's square. So pixels that are farther than the tolerance from the border of their
    region stay in it.
    """
    return max(1.0, _TOLERANCE * min(size))


def find_regions(ids: np.ndarray, confidence: np.ndarray | None = None) -> list[Region]:
    """Finds the connected regions of all classes. Together they fill the photo.

    Args:
      ids: uint8 [H, W], class ids.
      confidence: float [H, W], of the predicted class; None if it is not known.

    Returns:
      The regions, the largest first; none if the mask is nothing but specks.
    """
    columns = _without_specks(np.ascontiguousarray(ids.T))
    if columns is None:
        return []
    parts, faces = _parts(columns), _faces(columns)
    outlines = shapely.coverage_simplify(faces, tolerance(ids.shape), simplify_boundary=False)
    boxes = shapely.bounds(faces).astype(int).tolist()
    runs, scores = _runs_of(parts), _scores(parts, confidence)
    part_of_face = parts.part[parts.run_at(_inner_pixels(faces) @ (columns.shape[1], 1))]
    regions = [
        Region(
            class_id=int(columns.ravel()[runs[part][0, 0]]),
            outline=outline,
            area=int(parts.area[part]),
            box=(left, top, right - left, bottom - top),
            runs=runs[part],
            score=scores[part],
        )
        for outline, (left, top, right, bottom), part in zip(outlines, boxes, part_of_face)
    ]
    return sorted(regions, key=lambda region: (-region.area, region.box))


def _parts(columns: np.ndarray) -> _Parts:
    """Finds the connected parts of a mask uint8 [W, H]: a mask that lies column by column."""
    height, flat = columns.shape[1], columns.ravel()
    begins = np.ones(columns.shape, bool)
    np.not_equal(columns[:, 1:], columns[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    runs = _Parts(starts, np.diff(starts, append=flat.size), starts, starts)
    # Two runs lie side by side if the one that begins lower begins beside the other.
    left, right = starts >= height, starts < flat.size - height
    index = np.arange(len(starts))
    one = np.concatenate([index[left], index[right]])
    other = runs.run_at(np.concatenate([starts[left] - height, starts[right] + height]))
    same = flat[starts[one]] == flat[starts[other]]
    graph = sparse.coo_array((same[same], (one[same], other[same])), shape=(len(index),) * 2)
    _, part = sparse.csgraph.connected_components(graph, directed=False)
    area = np.bincount(part, runs.lengths).astype(np.int64)
    return runs._replace(part=part, area=area)


def _without_specks(columns: np.ndarray) -> np.ndarray | None:
    """Gives the pixels of specks the class of the nearest other region; None if all are specks."""
    parts = _parts(columns)
    speck = parts.area[parts.part] < SPECK * columns.size
    if speck.all():
        return None
    if not speck.any():
        return columns
    starts, lengths = parts.starts[speck], parts.lengths[speck]
    places = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    framed = np.pad(columns.astype(np.int16), 1, constant_values=_UNKNOWN)
    x, y = np.divmod(places, columns.shape[1])
    stride = framed.shape[1]
    places = (x + 1) * stride + y + 1
    pixels = framed.reshape(-1)
    pixels[places] = _UNKNOWN
    while len(places):  # from the outside to the inside, a pixel in each round
        found = np.full(len(places), _UNKNOWN, np.int16)
        for step in (-1, 1, -stride, stride):
            found = np.where(found == _UNKNOWN, pixels[places + step], found)
        pixels[places] = found
        places = places[found == _UNKNOWN]
    return np.ascontiguousarray(framed[1:-1, 1:-1], np.uint8)


def _faces(columns: np.ndarray) -> np.ndarray:
    """Returns the polygon around each connected part of a mask [W, H], along its pixels' edges."""
    framed = np.pad(columns.astype(np.int16), 1, constant_values=_UNKNOWN)
    # Edges between pixels of different classes, and the lattice points that they touch. Where both
    # kinds touch the same point, an outline turns or several meet: there, and only there, a line
    # begins or ends.
    across = (framed[1:] != framed[:-1])[:, 1:-1]  # [W + 1, H]: from (x, y) to (x, y + 1)
    along = (framed[:, 1:] != framed[:, :-1])[1:-1]  # [W, H + 1]: from (x, y) to (x + 1, y)
    by_across, by_along = np.zeros((2, len(across), along.shape[1]), bool)
    by_across[:, :-1] |= across
    by_across[:, 1:] |= across
    by_along[:-1] |= along
    by_along[1:] |= along
    x, begin = np.nonzero(across & by_along[:, :-1])
    end = np.nonzero(across & by_along[:, 1:])[1] + 1
    lines = [np.stack([x, begin, x, end], 1)]
    y, begin = np.nonzero((along & by_across[:-1]).T)
    end = np.nonzero((along & by_across[1:]).T)[1] + 1
    lines.append(np.stack([begin, y, end, y], 1))
    network = shapely.multilinestrings(
        shapely.linestrings(np.concatenate(lines).reshape(-1, 2, 2).astype(np.float64))
    )
    return shapely.get_parts(shapely.polygonize([shapely.line_merge(network)]))


def _inner_pixels(faces: np.ndarray) -> np.ndarray:
    """Returns x and y of a pixel in each polygon, int [N, 2]: one beside the first edge."""
    rings = shapely.get_exterior_ring(faces)
    first, second = (shapely.get_coordinates(shapely.get_point(rings, i)) for i in (0, 1))
    along = np.sign(second - first)
    inward = (
        np.stack([-along[:, 1], along[:, 0]], 1) * np.where(shapely.is_ccw(rings), 1, -1)[:, None]
    )
    return np.floor(first + along / 2 + inward / 2).astype(int)


def _runs_of(parts: _Parts) -> list[np.ndarray]:
    """Returns the runs of each part, int64 [N, 2]."""
    runs = np.stack([parts.starts, parts.lengths], 1)[np.argsort(parts.part, kind="stable")]
    return np.split(runs, np.cumsum(np.bincount(parts.part))[:-1])


def _scores(parts: _Parts, confidence: np.ndarray | None) -> list[float | None]:
    """Returns each part's mean confidence."""
    if confidence is None:
        return [None] * len(parts.area)
    columns = np.ascontiguousarray(confidence.T).ravel()
    sums = np.add.reduceat(columns, parts.starts, dtype=np.float64)
    means = np.bincount(parts.part, sums) / parts.area
    return [round(mean, 4) if math.isfinite(mean) else None for mean in means.tolist()]
