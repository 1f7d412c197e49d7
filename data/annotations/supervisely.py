"""Supervisely's JSON files: one for each photo (ds/ann/NAME.jpg.json), and meta.json of classes."""

from __future__ import annotations

import base64
import functools
import io
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from data.annotations.outlines import box
from data.annotations.regions import Annotations, Collector, Ring, corners

KIND = "Supervisely"
_PNG = b"\x89PNG"


def is_supervisely(document: Any) -> bool:
    """Whether a JSON document annotates one photo."""
    return (
        isinstance(document, Mapping)
        and isinstance(document.get("objects"), list)
        and isinstance(document.get("size"), Mapping)
    )


def is_meta(document: Any) -> bool:
    """Whether a JSON document is a project's meta.json, which lists the classes."""
    if not isinstance(document, Mapping) or not isinstance(document.get("classes"), list):
        return False
    return all(isinstance(entry, Mapping) and "title" in entry for entry in document["classes"])


def read_meta(document: Mapping[str, Any]) -> Annotations:
    """Reads the names of the classes."""
    names = tuple(str(entry["title"]).strip() for entry in document["classes"])
    return Annotations(KIND, (), names)


def read(document: Mapping[str, Any]) -> Annotations:
    """Reads what is said of one photo.

    Raises:
      KeyError, TypeError, ValueError, AnnotationError: an object lacks what it must have.
    """
    found = Collector()
    for entry in document["objects"]:
        _add(found, entry)
    size = int(document["size"]["height"]), int(document["size"]["width"])
    return Annotations(KIND, (found.annotated("", size),))


def _add(found: Collector, entry: Mapping[str, Any]) -> None:
    label, kind = str(entry["classTitle"]).strip(), entry.get("geometryType")
    if kind == "bitmap":
        drawn = entry["bitmap"]
        found.bitmap(label, functools.partial(_bitmap, drawn["data"]), drawn["origin"])
    elif kind == "polygon":
        _add_polygon(found, label, entry["points"])
    elif kind == "multipolygon":
        for part in entry["parts"]:
            _add_polygon(found, label, part)
    elif kind == "rectangle":
        ends = corners(entry["points"]["exterior"])
        (left, top), (right, bottom) = ends.min(0), ends.max(0) + _counts_pixels(ends)
        found.polygons(label, [box(left, top, right, bottom)])
    else:
        found.skip(str(kind))


def _add_polygon(found: Collector, label: str, points: Mapping[str, Any]) -> None:
    rings = [corners(ring) for ring in (points["exterior"], *(points.get("interior") or ()))]
    if _counts_pixels(*rings):
        rings = [ring + 0.5 for ring in rings]  # the pixels' centres
    found.polygons(label, rings[:1], rings[1:])


def _counts_pixels(*rings: Ring) -> bool:
    """Whether corners are rows and columns of pixels, as in all files that the SDK downloads.

    The tool itself has places between the pixels' edges, which are hardly ever whole numbers.
    """
    return all((np.asarray(ring) % 1 == 0).all() for ring in rings)


def _bitmap(encoded: str) -> np.ndarray:
    """Decodes a PNG, packed or not: what is not black, or not transparent, is of the object."""
    content = base64.b64decode(encoded)
    if not content.startswith(_PNG):
        content = zlib.decompress(content)
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        has_alpha = "A" in image.getbands()
        return np.asarray(image.getchannel("A") if has_alpha else image.convert("L")) > 0
