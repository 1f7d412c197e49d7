"""YOLO's text files of polygons, one for each photo, and the data.yaml that names the classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from data.annotations.regions import AnnotationError, Annotations, Collector

KIND = "YOLO"
_CLASS = re.compile(r"\d+(\.0*)?")  # some programs write all numbers as floats
_SHAPE = re.compile(r"\s*-?\d+(\.0*)?(\s+[-+.\deE]+){4,}\s*")  # -1 is nobody's class, but YOLO's
_BOX = 5  # numbers on a line that holds a box: class, x, y, width, height


def read(text: str, class_names: Sequence[str]) -> Annotations:
    """Reads one photo's file: `class x y x y x y ...` a line, as shares of width and height.

    Raises:
      AnnotationError: a line is not of this form, or `class_names` has no such class.
    """
    found = Collector()
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            _add(found, line.split(), f"line {number}", class_names)
    return Annotations(KIND, (found.annotated("", None, shares=True),))


def _add(found: Collector, words: Sequence[str], where: str, class_names: Sequence[str]) -> None:
    try:
        values = [float(word) for word in words[1:]]
    except ValueError as error:
        raise AnnotationError(f"{where} is not a class and coordinates ({error})") from error
    if not _CLASS.fullmatch(words[0]):
        raise AnnotationError(f"{where} begins with {words[0]}, which is no class; export it again")
    if len(words) < _BOX:
        raise AnnotationError(f"{where} ends after {len(words)} numbers; export it again")
    index = int(words[0].partition(".")[0])
    if not 0 <= index < len(class_names):
        raise AnnotationError(
            f"{where} has class {index}, and only {len(class_names)} are named; correct data.yaml "
            "or classes.txt"
        )
    label = class_names[index]
    if len(words) == _BOX:
        found.refuse(label, f"{where} is a box, not a polygon; export the segmentation")
    elif len(values) % 2:
        raise AnnotationError(f"{where} has an odd number of coordinates; export it again")
    else:
        found.polygons(label, [[values[i : i + 2] for i in range(0, len(values), 2)]])


def is_yolo(text: str, *, of_photo: bool = False) -> bool:
    """Whether a text may be one of YOLO's files: a number begins each line.

    Args:
      text: the file's.
      of_photo: whether the file has a photo's name. Then one of YOLO's lines is enough, and `read`
        says which line is none.
    """
    if of_photo and any(map(_SHAPE.fullmatch, text.splitlines())):
        return True
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return all(_CLASS.fullmatch(words[0]) and len(words) >= _BOX for words in lines)


def read_names(text: str) -> tuple[str, ...]:
    """The names of the classes in a data.yaml, by their ids; () if it has none.

    Raises:
      AnnotationError: it is not YAML, or its names are neither a list nor numbered from 0.
    """
    try:
        document: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date may be no date
        reason = " ".join(str(error).split())
        raise AnnotationError(f"is not YAML with one document ({reason}); correct it") from error
    names = document.get("names") if isinstance(document, Mapping) else None
    if names is None or names == [] or names == {}:
        return ()
    if isinstance(names, Mapping):
        if {*names} != {*range(len(names))}:
            raise AnnotationError("its names are not numbered 0, 1, 2, ...; number them so")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):
        raise AnnotationError(f"its names are no list, but {names!r}; write names: [road, tree]")
    return tuple(map(_name, names))


def _name(name: Any) -> str:
    """A class's name as text. YAML takes a plain no or yes as false or true, and ~ as nothing."""
    if isinstance(name, (str, int, float)) and not isinstance(name, bool):
        return str(name).strip()
    raise AnnotationError(f"one of its names is {name!r}, which is no text; put it in quotes")
