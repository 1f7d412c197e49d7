"""Draws regions into a mask of class ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools import mask as run_lengths

from data.annotations.outlines import clipped
from data.annotations.regions import IGNORED, Annotated, AnnotationError, Region, Ring, Size
from data.errors import some
from data.label_values import VOID
from data.masks import other_size

VERSION = "3"  # of what annotations mean: when it changes, records are drawn anew
_LIST = "classes.txt"  # where classes are named, unless one says otherwise


def draw(annotated: Annotated, size: Size, ids: Mapping[str, int], rest: int) -> np.ndarray:
    """Draws what a file says of one photo. What lies outside of the photo is cut off.

    Args:
      annotated: the regions.
      size: height and width of the photo.
      ids: a class's name -> its id.
      rest: the id of pixels in no region.

    Returns:
      uint8 [H, W].

    Raises:
      AnnotationError: the photo that was annotated has another size, a region cannot be drawn, or
        its class is not in `ids`.
    """
    ids = {IGNORED: VOID, **ids}
    if problem := next((x.problem for x in annotated.regions if x.problem), ""):
        raise AnnotationError(problem)
    if problem := unlisted(annotated, ids):
        raise AnnotationError(problem)
    if annotated.size and (problem := other_size(annotated.size, size)):
        raise AnnotationError(problem)  # a size that is a slip might not fit into memory
    scale = np.array([size[1], size[0]]) if annotated.shares else np.ones(2)
    mask = np.full(size, rest, np.uint8)
    for region in annotated.regions:
        if region.bitmap is not None:
            _paste(mask, region, ids[region.label])
        else:
            mask[_inside(region, size, scale)] = ids[region.label]
    return mask


def unlisted(annotated: Annotated, ids: Mapping[str, int], listed_in: str = _LIST) -> str:
    """What to say of classes that are not in `ids`; "" if all are. `IGNORED` needs no id."""
    unknown = sorted({x.label for x in annotated.regions} - ids.keys() - {IGNORED})
    return not_listed([repr(name) for name in unknown], listed_in)


def not_listed(names: Sequence[str], listed_in: str = _LIST) -> str:
    """What to say of names that are not in a list; "" if there are none.

    Args:
      names: as people should see them.
      listed_in: which list names the classes.
    """
    if not names:
        return ""
    verb, what = ("is", "the name") if len(names) == 1 else ("are", "the names")
    return f"{some(names)} {verb} not in {listed_in}; add {what} there, as written here"


def _inside(region: Region, size: Size, scale: np.ndarray) -> np.ndarray:
    """Which pixels lie in a region of polygons: bool [H, W]."""
    inside = _filled(region.rings, size, scale)
    return inside & ~_filled(region.holes, size, scale) if region.holes else inside


def _filled(rings: tuple[Ring, ...], size: Size, scale: np.ndarray) -> np.ndarray:
    """Which pixels lie in one of the polygons, by COCO's rule: bool [H, W]."""
    height, width = size
    # pycocotools walks along all edges, also where they are far outside of the photo.
    low, high = np.array([[-2.0], [4.0]]) * [width, height]
    cut = [clipped(ring * scale, low, high) for ring in rings]
    flat = [ring.ravel().tolist() for ring in cut if len(ring) > 2]
    if not flat:
        return np.zeros(size, bool)
    return run_lengths.decode(run_lengths.merge(run_lengths.frPyObjects(flat, *size))).astype(bool)


def _paste(mask: np.ndarray, region: Region, index: int) -> None:
    """Writes the id where the region's bitmap is true; what lies outside of the mask is cut off."""
    try:
        (x, y), bitmap = region.origin, np.asarray(region.bitmap(), bool)
    except AnnotationError:
        raise
    except Exception as error:  # damaged bytes can raise any kind of error
        raise AnnotationError(
            f"a mask of {region.label} cannot be decoded ({error}); export it again"
        ) from error
    height, width = mask.shape
    bitmap = bitmap[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
    x, y = max(x, 0), max(y, 0)
    part = mask[y : y + bitmap.shape[0], x : x + bitmap.shape[1]]
    part[bitmap] = index
