"""`config.data.merge_classes`: several classes of a data set become one.

    top=shirt,blouse;bottom=trousers,skirt

The new class stands where the first of its members stood. `__ignore__` as the new name makes pixels
void. A class whose name is also that of a group belongs to the group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data.annotations.regions import IGNORED
from data.errors import DataError
from data.label_values import VOID
from data.masks import decode_mask, encode_png

if TYPE_CHECKING:
    from data.sources import Label, Size, Source, Split

_KEY = "config.data.merge_classes"


def parse(text: str) -> dict[str, str]:
    """Reads the config's value: name of a class -> name of the one that it becomes.

    Raises:
      DataError: the text is not of the form that the module's docstring shows, or names a class
        twice.
    """
    groups: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        group, equals, members = part.partition("=")
        names = [name.strip() for name in members.split(",")]
        if not equals or not group.strip() or "" in names:
            raise DataError(f"{_KEY}: {part!r} is not NEW=OLD,OLD; write top=shirt,blouse")
        for name in names:
            if groups.setdefault(name, group.strip()) != group.strip():
                raise DataError(f"{_KEY}: {name!r} is in two groups; take it out of one.")
    return groups


@dataclasses.dataclass(frozen=True)
class Merge:
    """How the classes of a data set are merged.

    Attributes:
      names: of the classes afterwards.
      table: uint8 [256], an id before -> the id afterwards.
    """

    names: tuple[str, ...]
    table: np.ndarray

    def split(self, split: Split) -> Split:
        """The same examples, with masks of merged classes."""
        return dataclasses.replace(split, sources=tuple(map(self._source, split.sources)))

    def _source(self, source: Source) -> Source:
        def read() -> tuple[bytes, Label]:
            image, read_label = source.read()

            def label(size: Size) -> tuple[bytes, str]:
                content, error = read_label(size)
                return (b"", error) if error else (encode_png(self.table[decode_mask(content)]), "")

            return image, label

        return dataclasses.replace(source, read=read)


def merge(class_names: Sequence[str], text: str) -> Merge:
    """Merges classes of a data set.

    Args:
      class_names: K names.
      text: `config.data.merge_classes`.

    Raises:
      DataError: the text cannot be read, names an unknown class, or leaves fewer than two classes.
    """
    groups = parse(text)
    groups |= {group: group for group in groups.values() if group in class_names}
    _check(class_names, groups)
    merged = [groups.get(name, name) for name in class_names]
    names = tuple(name for name in dict.fromkeys(merged) if name != IGNORED)
    if len(names) < 2:
        raise DataError(f"{_KEY} = {text!r} leaves fewer than 2 classes; merge fewer.")
    table = np.full(256, VOID, np.uint8)
    table[: len(merged)] = [VOID if name == IGNORED else names.index(name) for name in merged]
    return Merge(names, table)


def _check(class_names: Sequence[str], groups: Mapping[str, str]) -> None:
    if unknown := [name for name in groups if name not in class_names]:
        raise DataError(
            f"{_KEY} names {', '.join(map(repr, unknown))}, which the data set does not have; its "
            f"classes are: {', '.join(class_names)}."
        )
