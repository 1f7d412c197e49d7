"""What reads the masks of a folder that are PNG files: by colours, by values, or as ids.

Ids are in the order of the classes, or of a labelmap.txt without colours.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data import masks, merging
from data.annotations.colours import Colour, ColourReader, of_voc
from data.annotations.drawing import not_listed
from data.errors import DataError
from data.folder.class_files import LABELMAP, VALUES, ClassFiles, files_called
from data.folder.classes import CLASSES, Classes
from data.folder.labels import PNG, Labels
from data.folder.places import Found
from data.label_values import VOID
from data.trees import Tree


class _Named(NamedTuple):
    """What a file says of one class.

    Attributes:
      name: the class's.
      pixel: the colour or the value that its pixels have.
      shown: the same for people.
      where: the file.
    """

    name: str
    pixel: Colour | int
    shown: str
    where: str


def reader(
    found: Found, labels: Labels, files: ClassFiles, classes: Classes, merge_classes: str
) -> masks.Reader:
    """What reads the masks.

    Args:
      found: the folder's files.
      labels: its labels.
      files: what files say of colours and values.
      classes: its classes.
      merge_classes: `config.data.merge_classes`: classes that become one may share a colour.

    Raises:
      DataError: two classes have one colour or one value.
    """
    made, named = ColourReader, _colours(found, files, classes)
    if not named:
        made, named = _ValueReader, _values(found, VALUES, files.values)
    if not named:
        made, named = _OrderReader, _values(found, LABELMAP, files.in_order)
    if not named:
        return masks.read_ids
    if any(label.kind == PNG for label in labels.of.values()):
        _check_apart(named, classes, merging.parse(merge_classes))
    ids = {x.pixel: classes.ids[x.name] for x in named if x.name in classes.ids}
    lacking = {
        x.pixel: f"{x.where}: {not_listed([f'{x.name!r} ({x.shown})'], classes.origin)}."
        for x in named
        if x.pixel not in ids
    }
    return made(ids, lacking)


def _colours(found: Found, files: ClassFiles, classes: Classes) -> list[_Named]:
    labelmap = next(iter(files_called(found, LABELMAP)), "")
    places = dict.fromkeys(files.colours, labelmap) | dict.fromkeys(classes.colours, CLASSES)
    return [
        _Named(name, colour, f"#{bytes(colour).hex()}", found.tree.where(places[name]))
        for name, colour in {**files.colours, **classes.colours}.items()
    ]


def _values(found: Found, called: str, values: Mapping[str, int]) -> list[_Named]:
    where = found.tree.where(next(iter(files_called(found, called)), ""))
    return [_Named(name, x, f"value {x}", where) for name, x in values.items()]


def _check_apart(named: Sequence[_Named], classes: Classes, groups: Mapping[str, str]) -> None:
    """Checks that no two classes have the same pixels; names of one id, or merged ones, may.

    Args:
      named: what files say of the classes.
      classes: the folder's classes.
      groups: name of a class -> name of the one that it becomes, as `merging.parse` returns it.
    """
    first: dict[Colour | int, _Named] = {}
    problems = []
    for entry in (x for x in named if x.name in classes.ids):
        other = first.setdefault(entry.pixel, entry)
        names = entry.name, other.name
        ids, merged = (classes.ids[x] for x in names), (groups.get(x, x) for x in names)
        if len({*ids}) > 1 and len({*merged}) > 1:
            files = " and ".join(dict.fromkeys((other.where, entry.where)))
            problems.append(
                f"{files}: {other.name!r} and {entry.name!r} are both {entry.shown}, so masks do "
                "not tell which of them it is; correct one, or make one class of both: "
                f'--config.data.merge_classes="{other.name}={entry.name}".'
            )
    if problems:
        raise DataError(problems)


class IdReader:
    """Reads masks of ids. Where the first mask is coloured, all coloured ones have its error.

    So it is said once, while a coloured mask among masks of ids has an error of its own.
    """

    def __init__(self, tree: Tree, first: str):
        """Takes the first mask, by its name in the tree."""
        self._tree, self._first = tree, first

    def __call__(self, content: bytes, where: str) -> np.ndarray:
        """Reads a PNG: uint8 [H, W].

        Raises:
          MaskError: the file is no PNG of ids.
        """
        try:
            return masks.read_ids(content, where)
        except masks.ColouredMaskError as error:
            raise masks.MaskError(self._of_first or str(error)) from error

    @functools.cached_property
    def _of_first(self) -> str:
        """What is wrong with the first mask, if it is coloured."""
        try:
            masks.read_ids(self._tree.read(self._first), self._tree.where(self._first))
        except masks.ColouredMaskError as error:
            return str(error)
        except (OSError, masks.MaskError):
            pass
        return ""


class _ValueReader:
    """Reads masks whose pixels have the values that a file gives to the classes."""

    def __init__(self, ids: Mapping[int, int], lacking: Mapping[int, str], called: str = VALUES):
        """Takes the id of each value, what to say of others that the file has, and its name."""
        self._ids = {VOID: VOID, **ids}
        self._lacking, self._called = lacking, called
        self._table = np.array([self._ids.get(value, 0) for value in range(256)], np.uint8)

    def __call__(self, content: bytes, where: str) -> np.ndarray:
        """Reads a PNG: uint8 [H, W].

        Raises:
          MaskError: the file is no PNG of ids, or has a value of no class.
        """
        values = masks.read_ids(content, where)
        unknown = sorted(set(np.unique(values).tolist()) - self._ids.keys())
        if problem := next((self._lacking[x] for x in unknown if x in self._lacking), ""):
            raise masks.MaskError(problem)
        if unknown:
            raise masks.MaskError(
                f"{where}: has the values {unknown}, to which {self._called} gives no name; add "
                "it there."
            )
        return self._table[values]


class _OrderReader:
    """Reads masks of ids in the order of a labelmap.txt, or in VOC's colours of these ids.

    Where classes have no colours, datumaro writes either, and the file does not say which.
    """

    def __init__(self, ids: Mapping[int, int], lacking: Mapping[int, str]):
        """Takes the class id of each place in the file, and what to say of those not listed."""
        self._as_ids = _ValueReader(ids, lacking, LABELMAP)
        self._as_colours = ColourReader(
            {of_voc(value): id for value, id in ids.items()},
            {of_voc(value): problem for value, problem in lacking.items()},
        )

    def __call__(self, content: bytes, where: str) -> np.ndarray:
        """Reads a PNG: uint8 [H, W].

        Raises:
          MaskError: the file is no PNG, or has a value or a colour of no class.
        """
        try:
            return self._as_ids(content, where)
        except masks.ColouredMaskError:
            return self._as_colours(content, where)
