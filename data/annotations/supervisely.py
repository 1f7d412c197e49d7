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
from data.annotations.regions import Annotated, Annotations, Collector

KIND = "Supervisely"


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
    left_out: dict[str, int] = {}
    found = Collector(left_out)
    for entry in document["objects"]:
        _add(found, entry)
    size = int(document["size"]["height"]), int(document["size"]["width"])
    return Annotations(KIND, (Annotated("", size, tuple(found.regions)),), (), left_out)


def _add(found: Collector, entry: Mapping[str, Any]) -> None:
    label, kind = str(entry["classTitle"]).strip(), entry.get("geometryType")
    if kind == "bitmap":
        drawn = entry["bitmap"]
        found.bitmap(label, functools.partial(_bitmap, drawn["data"]), drawn["origin"])
    elif kind == "polygon":
        found.polygons(label, [entry["points"]["exterior"]], entry["points"].get("interior") or ())
    elif kind == "rectangle":
        found.polygons(
            label, [box(*entry["points"]["exterior"][0], *entry["points"]["exterior"][1])]
        )
    else:
        found.skip(str(kind))


def _bitmap(encoded: str) -> np.ndarray:
    """Decodes a packed PNG: what is not black, or not transparent, belongs to the object."""
    content = zlib.decompress(base64.b64decode(encoded))
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        has_alpha = "A" in image.getbands()
        return np.asarray(image.getchannel("A") if has_alpha else image.convert("L")) > 0
