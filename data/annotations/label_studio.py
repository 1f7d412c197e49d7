"""Label Studio's JSON export: one file for many photos."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.annotations.outlines import box, ellipse, rotated
from data.annotations.regions import Annotated, AnnotationError, Annotations, Collector

KIND = "Label Studio"
_PREDICTED = "predictions"  # by a network; nobody has looked at them
_MADE = ("annotations", "completions")  # the second is what version 0.9 and earlier called them


def is_label_studio(document: Any) -> bool:
    """Whether a JSON document is a list of Label Studio's tasks."""
    return (
        isinstance(document, list)
        and bool(document)
        and all(
            isinstance(task, Mapping) and isinstance(task.get("data"), Mapping) for task in document
        )
        and any(key in task for task in document for key in (*_MADE, _PREDICTED))
    )


def read(document: Sequence[Mapping[str, Any]]) -> Annotations:
    """Reads a document. Of several annotations of a photo the last counts, unless it was skipped.

    Raises:
      KeyError, TypeError, ValueError, AnnotationError: a result lacks what it must have.
    """
    left_out: dict[str, int] = {}
    photos = []
    for task in document:
        made = [x for key in _MADE for x in task.get(key) or () if not x.get("was_cancelled")]
        if made:
            photos.append(_photo(task["data"], made[-1]["result"], left_out))
    if not photos and any(task.get(_PREDICTED) for task in document):
        raise AnnotationError(
            "holds predictions and no annotations; correct and submit them in Label Studio, and "
            "export again"
        )
    return Annotations(KIND, tuple(photos), (), left_out)


def _photo(
    data: Mapping[str, Any], results: Sequence[Mapping[str, Any]], left_out: dict[str, int]
) -> Annotated:
    address = data.get("image") or next(x for x in data.values() if isinstance(x, str) and "." in x)
    found, size = Collector(left_out), None
    for result in results:
        if "original_width" in result:
            size = int(result["original_height"]), int(result["original_width"])
            _add(found, result, size)
    return Annotated(str(address), size, tuple(found.regions))


def _add(found: Collector, result: Mapping[str, Any], size: tuple[int, int]) -> None:
    kind, value = result["type"], result["value"]
    labels = value.get(kind) or ()
    if len(labels) != 1:
        found.skip(f"{kind} with {len(labels)} labels")
        return
    label, scale = str(labels[0]).strip(), np.array([size[1], size[0]]) / 100
    if result.get("image_rotation"):
        found.refuse(label, "the photo was rotated in Label Studio; turn it back there")
    elif kind == "polygonlabels":
        found.polygons(label, [np.asarray(value["points"], np.float64) * scale])
    elif kind == "rectanglelabels":
        start = np.array([value["x"], value["y"]]) * scale
        end = start + np.array([value["width"], value["height"]]) * scale
        ring = rotated(box(*start, *end), start, value.get("rotation", 0))
        found.polygons(label, [ring])
    elif kind == "ellipselabels":
        centre = np.array([value["x"], value["y"]]) * scale
        radii = np.array([value["radiusX"], value["radiusY"]]) * scale
        found.polygons(label, [rotated(ellipse(centre, *radii), centre, value.get("rotation", 0))])
    elif kind == "brushlabels":
        found.bitmap(label, functools.partial(decode, value["rle"], size))
    else:
        found.skip(kind.removesuffix("labels"))


def decode(packed: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Decodes a brush's bytes (thi.ng's rle-pack of RGBA pixels): bool [H, W].

    After the number of values (32 bits), their size in bits less 1 (5) and four sizes of lengths
    less 1 (4 each) follow blocks: whether one value is repeated (1), which of the sizes the length
    has (2), the length less 1, and the value or the values.

    Raises:
      AnnotationError: the bytes do not hold RGBA pixels of this size.
    """
    bits = bin(int.from_bytes(b"\1" + bytes(packed)))[3:]  # a 1 before them keeps leading zeros
    place = 0

    def take(count: int) -> int:
        nonlocal place
        if place + count > len(bits):
            raise AnnotationError("a brush's run lengths are cut off; export it again")
        place += count
        return int(bits[place - count : place], 2)

    number, width = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    if number != 4 * size[0] * size[1] or width != 8:
        raise AnnotationError(
            f"a brush's run lengths are not those of {size[1]}x{size[0]} (width x height)"
        )
    values = np.zeros(number, np.uint8)
    at = 0
    while at < number:
        repeats = take(1)
        end = at + 1 + take(sizes[take(2)])
        for start in (at,) if repeats else range(at, end):
            values[start : end if repeats else start + 1] = take(width)
        at = end
    return values.reshape(*size, 4)[..., 3] > 0
