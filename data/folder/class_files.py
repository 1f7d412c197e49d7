"""What files of labelling tools say of classes: their names, colours, values and numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from data import masks
from data.annotations import colours, yolo
from data.annotations.colours import Colour, ColourReader
from data.annotations.regions import AnnotationError
from data.errors import DataError
from data.folder.classes import Classes, from_annotations
from data.folder.labels import MATLAB, PNG, Labels
from data.folder.places import Found
from data.label_values import VOID

LABELMAP, VALUES = "labelmap.txt", "_classes.csv"
_YAML = (".yaml", ".yml")
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class ClassFiles:
    """What files beside the labels say of classes.

    Attributes:
      colours: labelmap.txt: name -> colour.
      values: _classes.csv: name -> value of its pixels.
      numbered: data.yaml: names in the order of their numbers.
    """

    colours: Mapping[str, Colour]
    values: Mapping[str, int]
    numbered: tuple[str, ...]


def read(found: Found) -> ClassFiles:
    """Reads the files that list classes.

    Raises:
      DataError: one cannot be read, or two contradict each other.
    """
    yaml_files = [n for n in found.names if "/" not in n and n.lower().endswith(_YAML)]
    named = [names for n in yaml_files if (names := _parsed(found, n, yolo.read_names))]
    return ClassFiles(
        _merged(found, LABELMAP, colours.read_labelmap),
        _merged(found, VALUES, colours.read_values),
        named[0] if named else (),
    )


def _parsed(found: Found, name: str, parse: Callable[[str], Value]) -> Value:
    try:
        return parse(found.tree.read(name).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, AnnotationError) as error:
        raise DataError(f"{found.tree.where(name)}: {error}.") from error


def _merged(
    found: Found, called: str, parse: Callable[[str], dict[str, Value]]
) -> dict[str, Value]:
    """What all files of one name say together: splits may have a copy each."""
    together: dict[str, Value] = {}
    for name in found.names:
        if PurePosixPath(name).name.lower() != called:
            continue
        for key, value in _parsed(found, name, parse).items():
            if together.setdefault(key, value) != value:
                raise DataError(
                    f"{found.tree.where(name)}: has {value} for {key}, and another {called} has "
                    f"{together[key]}; correct whichever is wrong."
                )
    return together


def names_from_tools(files: ClassFiles, labels: Labels, root: Path) -> Classes | None:
    """The classes where there is no classes.txt; None if no file names any."""
    kinds = {label.kind for label in labels.of.values()}
    drawn = bool(kinds - {PNG, MATLAB, ""})
    listed = dict.fromkeys(name for read in labels.read.values() for name in read.class_names)
    of_tools = sorted({read.kind for read in labels.read.values() if read.class_names})
    used = sorted({label for read in labels.read.values() for label in read.labels()})
    for names, origin in (
        (files.numbered, "data.yaml"),
        (tuple(listed), f"the list in {' and '.join(of_tools)}'s files"),
        (tuple(files.colours), LABELMAP),
        (tuple(sorted(files.values, key=files.values.__getitem__)), VALUES),
        (tuple(used), "the labels that were used, sorted"),
    ):
        if names:
            return from_annotations(names, origin, root, drawn=drawn)
    return None


def png_reader(files: ClassFiles, classes: Classes) -> masks.Reader:
    """What reads masks that are PNG files: by colours or values if a file gives them, or as ids."""
    ids = classes.ids
    if by_name := {**files.colours, **classes.colours}:
        return ColourReader({color: ids[name] for name, color in by_name.items() if name in ids})
    if files.values:
        return _ValueReader({value: ids.get(name) for name, value in files.values.items()})
    return masks.read_ids


class _ValueReader:
    """Reads masks whose pixels have the values of a _classes.csv."""

    def __init__(self, ids: Mapping[int, int | None]):
        """Takes the id of each value; None for a name that classes.txt lacks."""
        known = {VOID: VOID, **ids}
        self._known = np.array([known.get(value) is not None for value in range(256)])
        self._table = np.array([known.get(value) or 0 for value in range(256)], np.uint8)

    def __call__(self, content: bytes, where: str) -> np.ndarray:
        """Reads a PNG: uint8 [H, W].

        Raises:
          MaskError: the file is no PNG of ids, or has a value of no class.
        """
        values = masks.read_ids(content, where)
        if unknown := sorted(set(np.unique(values).tolist()) - set(np.flatnonzero(self._known))):
            raise masks.MaskError(
                f"{where}: has the values {unknown}, to which {VALUES} or classes.txt gives no "
                "name; add it there."
            )
        return self._table[values]
