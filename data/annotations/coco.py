"""COCO's JSON files for instances (and Roboflow's, CVAT's): one for many photos."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from data.annotations.regions import AnnotationError, Annotations, Collector

KIND = "COCO"
_KEYS = ("images", "annotations", "categories")
_DANGLING = "annotation of an image that the file does not list"


def is_coco(document: Any) -> bool:
    """Whether a JSON document is in COCO's format, with classes."""
    if not isinstance(document, Mapping):
        return False
    return all(isinstance(document.get(key), list) for key in _KEYS)


def lacks_classes(document: Any) -> bool:
    """Whether a JSON document has shapes in COCO's format, but does not name their classes."""
    if not isinstance(document, Mapping) or document.get("categories"):
        return False
    return is_results(document.get("annotations"))


def is_results(document: Any) -> bool:
    """Whether a JSON document is a list of shapes alone, as programs write their results."""
    return (
        isinstance(document, list)
        and bool(document)
        and all(
            isinstance(entry, Mapping) and {"image_id", "category_id"} <= entry.keys()
            for entry in document
        )
    )


def read(document: Mapping[str, Any]) -> Annotations:
    """Reads a document. A photo without annotations shows nothing but background.

    Raises:
      KeyError, TypeError, ValueError, AnnotationError: an entry lacks what it must have, two
        entries have one id, or no annotation is of any image.
    """
    names = {id: str(x["name"]).strip() for id, x in _by_id(document, "categories", "name").items()}
    images = _by_id(document, "images", "file_name")
    by_photo = defaultdict(list)
    for entry in document["annotations"]:
        by_photo[entry["image_id"]].append(entry)
    dangling = [entry for id, entries in by_photo.items() if id not in images for entry in entries]
    if images and dangling and len(dangling) == len(document["annotations"]):
        raise AnnotationError(
            f"none of its annotations is of one of its images (an image_id is "
            f"{dangling[0]['image_id']!r}, an image's id {next(iter(images))!r}); export it again"
        )
    photos = []
    for id, image in images.items():
        size = _size(image)
        found = Collector()
        for entry in by_photo[id]:
            _add(found, names[entry["category_id"]], entry, size)
        photos.append(found.annotated(str(image["file_name"]), size))
    used = {entry["category_id"] for entry in document["annotations"]}
    classes = _classes(document["categories"], used)
    left_out = {_DANGLING: len(dangling)} if dangling else {}
    return Annotations(KIND, tuple(photos), classes, left_out)


def _by_id(document: Mapping[str, Any], key: str, name: str) -> dict[Any, Mapping[str, Any]]:
    """The entries of a list by their ids. One that is there twice counts once.

    Raises:
      AnnotationError: entries of two names have one id, as in files that were merged.
    """
    found: dict[Any, Mapping[str, Any]] = {}
    for entry in document[key]:
        other = found.setdefault(entry["id"], entry)
        if other[name] != entry[name]:
            raise AnnotationError(
                f"{other[name]!r} and {entry[name]!r} both have the id {entry['id']!r} in its "
                f"{key}; if it was merged of several files, put these here instead, as exported"
            )
    return found


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return (int(height), int(width)) if height and width else None


def _add(
    found: Collector, label: str, entry: Mapping[str, Any], size: tuple[int, int] | None
) -> None:
    drawn = entry.get("segmentation")
    if isinstance(drawn, Mapping) and size and tuple(drawn["size"]) != size:
        height, width = drawn["size"]
        found.refuse(
            label,
            f"annotation {entry.get('id')} ({label}) has a mask of {width}x{height}, and its image "
            f"{size[1]}x{size[0]} (width x height); export it again",
        )
    elif isinstance(drawn, Mapping):
        found.bitmap(label, functools.partial(decode, drawn))
    elif drawn:
        parts = drawn if isinstance(drawn[0], Sequence) else [drawn]  # some tools do not nest them
        found.polygons(label, parts)
    else:
        found.refuse(
            label,
            f"annotation {entry.get('id')} ({label}) is a box without a polygon; export the "
            "segmentation",
        )


def decode(encoded: Mapping[str, Any]) -> np.ndarray:
    """Decodes run lengths, compressed (text) or not (numbers): bool [H, W].

    Raises:
      AnnotationError: they are not of a mask of their size.
    """
    height, width = encoded["size"]
    counts = encoded["counts"]
    if not counts:
        raise AnnotationError("a mask has no run lengths; export it again")
    if isinstance(counts, str):
        packed = {"size": [height, width], "counts": counts.encode()}
    elif isinstance(counts, bytes):
        packed = encoded
    else:
        if sum(counts) != height * width:
            raise AnnotationError(
                f"the run lengths of a mask are not those of {width}x{height} (width x height)"
            )
        packed = run_lengths.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return run_lengths.decode(packed).astype(bool)


def _classes(categories: Sequence[Mapping[str, Any]], used: set[Any]) -> tuple[str, ...]:
    """The names in the order of their ids, without Roboflow's first one, which groups the others.

    It is nobody's category, and the supercategory of all others.
    """
    ordered = sorted(categories, key=lambda entry: entry["id"])
    above = {entry.get("supercategory") for entry in ordered}
    return tuple(
        str(entry["name"]).strip()
        for entry in ordered
        if entry["id"] in used
        or not (entry["name"] in above and entry.get("supercategory") in (None, "none"))
    )
