"""Labelme's JSON files (versions 3 to 6): one for each photo."""

from __future__ import annotations

import base64
import functools
import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from data.annotations.outlines import box, ellipse
from data.annotations.regions import AnnotationError, Annotations, Collector, Ring, corners
from data.errors import counted

KIND = "Labelme"
_NO_REGIONS = {"point": "point", "points": "point", "line": "line", "linestrip": "line"}


def is_labelme(document: Any) -> bool:
    """Whether a JSON document is one of Labelme's."""
    return isinstance(document, Mapping) and isinstance(document.get("shapes"), list)


def read(document: Mapping[str, Any]) -> Annotations:
    """Reads a document.

    Raises:
      AnnotationError: a shape lacks its label or its points, or is of an unknown kind.
    """
    found = Collector()
    for shape in document["shapes"]:
        _add(found, shape)
    height, width = document.get("imageHeight"), document.get("imageWidth")
    size = (int(height), int(width)) if height and width else None
    photo = str(document.get("imagePath") or "")
    return Annotations(KIND, (found.annotated(photo, size),))


def _add(found: Collector, shape: Mapping[str, Any]) -> None:
    label, points = str(shape["label"]).strip(), shape["points"]
    kind = shape.get("shape_type") or "polygon"  # version 3 has polygons only
    if kind in _NO_REGIONS:
        found.skip(_NO_REGIONS[kind])
    elif kind in ("polygon", "oriented_rectangle"):
        found.polygons(label, [points])
    elif kind == "rectangle":
        _add_rectangle(found, label, corners(points))
    elif kind == "circle":
        radius = math.dist(*points)
        found.polygons(label, [ellipse(points[0], radius, radius)])
    elif kind == "mask":
        found.bitmap(label, functools.partial(_bitmap, shape["mask"]), points[0])
    else:
        raise AnnotationError(f"a shape of the unknown kind {kind!r}")


def _add_rectangle(found: Collector, label: str, points: Ring) -> None:
    """Adds a rectangle of two opposite corners, or of all four, as X-AnyLabeling saves it."""
    if len(points) in (2, 4):
        found.polygons(label, [box(*points.min(0), *points.max(0))])
    else:
        number = counted(len(points), "corner")
        found.refuse(label, f"a rectangle ({label}) has {number}, not 2 or 4; draw it again")


def _bitmap(encoded: str) -> np.ndarray:
    """The PNG that a tool for masks saved: bool [h, w]."""
    with Image.open(io.BytesIO(base64.b64decode(encoded)), formats=("PNG",)) as image:
        return np.asarray(image.convert("L")) > 0
