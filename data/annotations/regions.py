"""The one structure that annotation files of all formats are read into."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Ring = Sequence[Sequence[float]]  # the corners (x, y) of a polygon
Size = tuple[int, int]  # height and width

# Names of classes that tools give to what nobody has annotated, and to what nobody shall learn.
BACKGROUNDS = ("background", "_background_", "__background__")
IGNORED = "__ignore__"
_FARTHEST = 1e12  # no photo's corner; with numbers near the largest float one cannot calculate
_OUTSIDE = "polygon outside of its photo"


def background_id(class_names: Sequence[str]) -> int | None:
    """The id of the class that surrounds all objects, by its name; None if there is none."""
    ids = (i for i, name in enumerate(class_names) if name.lower() in BACKGROUNDS)
    return next(ids, None)


class AnnotationError(ValueError):
    """A file or a region that cannot be used: says why and what to do, but not which file it is."""


@dataclasses.dataclass(frozen=True)
class Region:
    """A part of a photo that somebody gave a class.

    Attributes:
      label: the class's name.
      rings: polygons, in pixels from the photo's upper left corner (the first pixel's centre is at
        0.5, 0.5); the region is all that lies in one of them, but in none of the `holes`.
      holes: polygons that are cut out.
      bitmap: returns bool [h, w]: a region that is given pixel by pixel instead.
      origin: x and y of the bitmap's upper left pixel in the photo.
      problem: why the region cannot be drawn, and what to do; "" if it can.
    """

    label: str
    rings: tuple[Ring, ...] = ()
    holes: tuple[Ring, ...] = ()
    bitmap: Callable[[], np.ndarray] | None = None
    origin: tuple[int, int] = (0, 0)
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Annotated:
    """What a file says of one photo.

    Attributes:
      photo: the photo's name as the file has it: a path, part of one, or an address. "" if the file
        belongs to the photo of its own name.
      size: height and width of the photo that was annotated; None if the file does not tell them.
      regions: in the order of drawing: later ones lie over earlier ones.
      shares: whether coordinates are shares of the photo's width and height, not pixels.
      left_out: what was not read -> how often: lines, points, polygons without an area.
    """

    photo: str
    size: Size | None
    regions: tuple[Region, ...]
    shares: bool = False
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def not_drawn(self) -> dict[str, int]:
        """What is not read or lies outside of the photo -> how often."""
        outside = sum(map(self.outside, self.regions))
        return {**self.left_out, **({_OUTSIDE: outside} if outside else {})}

    def outside(self, region: Region) -> bool:
        """Whether all polygons of a region lie outside of the photo, as far as one can tell."""
        height, width = (1, 1) if self.shares else self.size or (np.inf, np.inf)
        return bool(region.rings) and all(
            (np.max(ring, 0) <= 0).any() or (np.min(ring, 0) >= (width, height)).any()
            for ring in region.rings
        )


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What one file holds.

    Attributes:
      kind: the format's name for people, such as "Labelme".
      photos: what it says of each photo.
      class_names: the classes that it lists, in its own order; () if it has no such list.
      left_out: what was not read, and is of none of its photos -> how often.
    """

    kind: str
    photos: tuple[Annotated, ...]
    class_names: tuple[str, ...] = ()
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def labels(self) -> set[str]:
        """The names of the classes that regions have."""
        return {region.label for photo in self.photos for region in photo.regions}


class Collector:
    """Collects the regions of one photo, and counts what is left out."""

    def __init__(self) -> None:
        """Begins without regions."""
        self._regions: list[Region] = []
        self._left_out: Counter[str] = Counter()

    def annotated(self, photo: str, size: Size | None, *, shares: bool = False) -> Annotated:
        """What was collected, for the photo of this name and size (see `Annotated`)."""
        return Annotated(photo, size, tuple(self._regions), shares, self._left_out)

    def skip(self, what: str) -> None:
        """Counts a shape that is no region."""
        self._left_out[what] += 1

    def polygons(self, label: str, rings: Iterable[Any], holes: Iterable[Any] = ()) -> None:
        """Adds a region of polygons [[x, y], ...]; those without an area are counted.

        Raises:
          AnnotationError: a corner is not two finite numbers, or is farther off than any photo's.
        """
        kept = tuple(ring for ring in map(corners, rings) if self._is_area(ring))
        if kept:
            cut = tuple(ring for ring in map(corners, holes) if len(ring) > 2)
            self._regions.append(Region(label, kept, cut))

    def bitmap(self, label: str, read: Callable[[], np.ndarray], origin: Any = (0, 0)) -> None:
        """Adds a region that is given pixel by pixel."""
        x, y = (round(float(value)) for value in origin)
        self._regions.append(Region(label, bitmap=read, origin=(x, y)))

    def refuse(self, label: str, problem: str) -> None:
        """Adds a region that cannot be drawn, so that its photo's mask is an error."""
        self._regions.append(Region(label, problem=problem))

    def _is_area(self, ring: Ring) -> bool:
        if len(ring) < 3:
            self.skip("polygon of fewer than three corners")
            return False
        if _on_a_line(ring):
            self.skip("polygon without an area")
            return False
        return True


def _on_a_line(ring: np.ndarray) -> bool:
    """Whether corners [N, 2] are one point, or lie on one line, but for rounding."""
    places = ring - ring[0]
    squares = (places**2).sum(1)
    x, y = places[squares.argmax()]
    return bool((np.abs(places[:, 0] * y - places[:, 1] * x) <= 1e-9 * squares.max()).all())


def corners(ring: Any) -> Ring:
    """Corners [[x, y], ...] as an array [N, 2].

    Raises:
      AnnotationError: a corner is not two finite numbers, or is farther off than any photo's.
    """
    try:
        array = np.asarray(ring, np.float64).reshape(-1, 2) if len(ring) else np.zeros((0, 2))
    except (TypeError, ValueError) as error:
        raise AnnotationError(f"a polygon's corners are not pairs of numbers ({error})") from error
    if not (np.abs(array) < _FARTHEST).all():  # nor is NaN
        raise AnnotationError(
            f"a polygon has a corner that is no finite number, or is beyond {_FARTHEST:.0e}"
        )
    return array
