"""CVAT's "CVAT for images 1.1": one XML file for many photos."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from xml.etree import ElementTree

import numpy as np

from data.annotations.outlines import box, ellipse, rotated
from data.annotations.regions import AnnotationError, Annotations, Collector

KIND = "CVAT"


def is_cvat(root: ElementTree.Element) -> bool:
    """Whether an XML document is one of CVAT's."""
    kinds = {child.tag for child in root}
    return root.tag == "annotations" and not kinds.isdisjoint(("image", "meta", "track"))


def read(root: ElementTree.Element) -> Annotations:
    """Reads a document. Shapes are drawn in their z order.

    Raises:
      KeyError, ValueError, AnnotationError: a shape lacks what it must have, or it is of a video.
    """
    if root.find("track") is not None:
        raise AnnotationError('is of a video; export it from CVAT as "CVAT for images 1.1"')
    names = [label.findtext("name", "").strip() for label in root.iterfind("meta//labels/label")]
    photos = []
    for image in root.iterfind("image"):
        found = Collector()
        for shape in sorted(image, key=lambda shape: int(shape.get("z_order", 0))):
            _add(found, shape)
        size = int(image.attrib["height"]), int(image.attrib["width"])
        photos.append(found.annotated(image.attrib["name"], size))
    return Annotations(KIND, tuple(photos), tuple(dict.fromkeys(names)))


def _add(found: Collector, shape: ElementTree.Element) -> None:
    kind, label = shape.tag, shape.get("label", "").strip()

    def numbers(*names: str) -> list[float]:
        return [float(shape.attrib[name]) for name in names]

    turn = float(shape.get("rotation", 0))
    if kind == "polygon":
        pairs = [pair.split(",") for pair in shape.attrib["points"].split(";") if pair.strip()]
        found.polygons(label, [[[float(x), float(y)] for x, y in pairs]])
    elif kind == "box":
        left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        centre = (left + right) / 2, (top + bottom) / 2
        found.polygons(label, [rotated(box(left, top, right, bottom), centre, turn)])
    elif kind == "ellipse":
        x, y, *radii = numbers("cx", "cy", "rx", "ry")
        found.polygons(label, [rotated(ellipse((x, y), *radii), (x, y), turn)])
    elif kind == "mask":
        size = int(shape.attrib["height"]), int(shape.attrib["width"])
        counts = [int(count) for count in shape.attrib["rle"].split(",")]
        found.bitmap(label, functools.partial(decode, counts, size), numbers("left", "top"))
    elif kind != "tag":  # says something of the whole photo
        found.skip(kind)


def decode(counts: Iterable[int], size: tuple[int, int]) -> np.ndarray:
    """Decodes run lengths, row by row, of pixels outside and inside in turn: bool [h, w].

    Raises:
      AnnotationError: they are not of a mask of this size.
    """
    lengths = np.fromiter(counts, np.int64)
    if (lengths < 0).any() or lengths.sum() != size[0] * size[1]:
        raise AnnotationError(f"the run lengths of a mask are not those of {size[1]}x{size[0]}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size)
