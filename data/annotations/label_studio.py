"""Label Studio's JSON export: one file for many photos."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from data.annotations.outlines import box, ellipse, rotated
from data.annotations.regions import Annotated, AnnotationError, Annotations, Collector

KIND = "Label Studio"
_PREDICTED = "predictions"  # by a network; nobody has looked at them
_APART = "labels"  # the type of a result that names the class of another one, which has its id
_PIXEL = 1.0  # a box is rounded to whole pixels
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


def is_json_min(document: Any) -> bool:
    """Whether a JSON document is the export "JSON-MIN": a task a photo, a list of shapes a tool."""
    if not isinstance(document, list) or not all(isinstance(task, Mapping) for task in document):
        return False
    lists = (value for task in document for value in task.values() if isinstance(value, list))
    shapes = (shape for shapes in lists for shape in shapes if isinstance(shape, Mapping))
    return any(key == "original_width" or key.endswith("labels") for x in shapes for key in x)


def read(document: Sequence[Mapping[str, Any]]) -> Annotations:
    """Reads a document. Of several annotations of a photo the last counts, unless it was skipped.

    Raises:
      KeyError, TypeError, ValueError, AnnotationError: a result lacks what it must have.
    """
    photos = []
    for task in document:
        made = [x for key in _MADE for x in task.get(key) or () if not x.get("was_cancelled")]
        if made:
            photos.append(_photo(task["data"], made[-1]["result"]))
    if not photos and any(task.get(_PREDICTED) for task in document):
        raise AnnotationError(
            "holds predictions and no annotations; correct and submit them in Label Studio, and "
            "export again"
        )
    return Annotations(KIND, tuple(photos))


def _photo(data: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Annotated:
    address = data.get("image") or next(x for x in data.values() if isinstance(x, str) and "." in x)
    found, size = Collector(), None
    drawn = [result for result in results if "original_width" in result]
    named = {result.get("id") for result in drawn if result["type"] == _APART}
    for result in drawn:
        size = int(result["original_height"]), int(result["original_width"])
        if result["type"].endswith("labels") or result.get("id") not in named:
            _add(found, result, np.array(size[::-1]) / 100, drawn)
    return found.annotated(str(address), size)


def _add(
    found: Collector,
    result: Mapping[str, Any],
    scale: np.ndarray,
    others: Sequence[Mapping[str, Any]],
) -> None:
    """Adds a result. `scale` makes pixels of percent, `others` are all results for the photo."""
    kind, value = result["type"], result["value"]
    labels = value.get(kind) or ()
    if len(labels) != 1:
        found.skip(f"{kind} with {len(labels)} labels")
        return
    label = str(labels[0]).strip()
    if result.get("image_rotation"):
        found.refuse(label, "the photo was rotated in Label Studio; turn it back there")
    elif not kind.endswith("labels"):
        found.skip(kind)
    elif "points" in value:
        found.polygons(label, [np.asarray(value["points"], np.float64) * scale])
    elif "height" in value:
        start = np.array([value["x"], value["y"]]) * scale
        end = start + np.array([value["width"], value["height"]]) * scale
        turn = value.get("rotation", 0)
        rings = [] if turn else [ring * scale for ring in _polygons(others, labels)]
        if any(_holds(start, end, ring) for ring in rings):
            found.skip("box around a polygon of its class")
        else:
            found.polygons(label, [rotated(box(*start, *end), start, turn)])
    elif "radiusX" in value:
        centre = np.array([value["x"], value["y"]]) * scale
        radii = np.array([value["radiusX"], value["radiusY"]]) * scale
        found.polygons(label, [rotated(ellipse(centre, *radii), centre, value.get("rotation", 0))])
    elif "rle" in value:
        height, width = (round(100 * edge) for edge in scale[::-1])
        found.bitmap(label, functools.partial(decode, value["rle"], (height, width)))
    elif "imageDataURL" in value:
        found.bitmap(label, functools.partial(_bitmap, value["imageDataURL"]))
    else:
        found.skip(kind.removesuffix("labels") or "region")


def _polygons(results: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Iterator[np.ndarray]:
    """The corners, in percent, of the polygons with these labels."""
    for result in results:
        value = result["value"]
        if "points" in value and value.get(result["type"]) == labels:
            yield np.asarray(value["points"], np.float64)


def _holds(start: np.ndarray, end: np.ndarray, ring: np.ndarray) -> bool:
    """Whether a box holds a polygon.

    It then says where the polygon is, and is no region: what is imported from COCO has such boxes.
    """
    return bool((ring >= start - _PIXEL).all() and (ring <= end + _PIXEL).all())


def _bitmap(address: str) -> np.ndarray:
    """Decodes a PNG that is written into its address: what is not transparent."""
    content = base64.b64decode(address.partition(",")[2])
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        return np.asarray(image.convert("RGBA"))[..., 3] > 0


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
