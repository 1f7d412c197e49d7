"""What files of labelling tools say of classes: their names, colours, values and numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from data.annotations import colours, yolo
from data.annotations.colours import Colour
from data.annotations.regions import BACKGROUNDS, IGNORED, AnnotationError
from data.errors import DataError, some
from data.folder.classes import CLASSES, Classes, from_annotations, misplaced_ignored
from data.folder.labels import MATLAB, PNG, Labels
from data.folder.places import Found, own_photo

LABELMAP, VALUES, NAMES = "labelmap.txt", "_classes.csv", "class_names.txt"
_YAML = (".yaml", ".yml")
_OF_YOLO = ("data", "dataset")  # what YOLO's files of names are called
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class ClassFiles:
    """What files beside the labels say of classes.

    Attributes:
      labelmap: labelmap.txt: name -> colour, or None.
      values: _classes.csv: name -> value of its pixels.
      numbered: data.yaml: names in the order of their numbers.
      numbered_in: that file's name, as it may be called otherwise; "" if there is none.
      listed: class_names.txt, which labelme2voc writes: names in the order of their ids.
    """

    labelmap: Mapping[str, Colour | None]
    values: Mapping[str, int]
    numbered: tuple[str, ...]
    numbered_in: str
    listed: tuple[str, ...]

    @property
    def colours(self) -> dict[str, Colour]:
        """The colours of the classes that labelmap.txt gives one."""
        return {name: colour for name, colour in self.labelmap.items() if colour is not None}

    @property
    def in_order(self) -> dict[str, int]:
        """The ids of the classes where labelmap.txt gives none of them a colour."""
        return {} if self.colours else {name: i for i, name in enumerate(self.labelmap)}


def read(found: Found) -> ClassFiles:
    """Reads the files that list classes.

    Raises:
      DataError: one cannot be read, or two contradict each other.
    """
    numbered_in, numbered = _numbered(found)
    return ClassFiles(
        _merged(found, LABELMAP, colours.read_labelmap),
        _merged(found, VALUES, colours.read_values),
        numbered,
        numbered_in,
        _parsed(found, NAMES, _lines) if NAMES in found.names else (),
    )


def _numbered(found: Found) -> tuple[str, tuple[str, ...]]:
    """The YAML file that numbers the classes, and its names; "" and () if there is none.

    Any YAML may lie in a data set. So one that cannot be read is an error only if it is called as
    YOLO's are, or if there are YOLO's labels and nothing else numbers their classes.
    """
    named: dict[str, tuple[str, ...]] = {}
    unread = []
    for name in (n for n in found.names if "/" not in n and n.lower().endswith(_YAML)):
        try:
            names = _parsed(found, name, yolo.read_names)
        except DataError as error:
            if PurePosixPath(name).stem.lower() in _OF_YOLO:
                raise
            unread.append(error)
            continue
        if names:
            named[name] = names
    texts = (file for file in found.labels if file.suffix == ".txt")
    if unread and not named and any(own_photo(file, found.photos) for file in texts):
        raise unread[0]
    first = next(iter(named), "")
    if other := next((name for name, names in named.items() if names != named[first]), ""):
        raise DataError(
            f"{found.tree.where(first)} and {found.tree.where(other)}: number classes otherwise "
            f"({some(named[first])}; {some(named[other])}); remove the one that is not of these "
            "labels."
        )
    return first, named.get(first, ())


def _lines(text: str) -> tuple[str, ...]:
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if problem := misplaced_ignored(names):
        raise AnnotationError(problem)
    return names


def _parsed(found: Found, name: str, parse: Callable[[str], Value]) -> Value:
    try:
        return parse(found.tree.read(name).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, AnnotationError) as error:
        raise DataError(f"{found.tree.where(name)}: {error}.") from error


def files_called(found: Found, called: str) -> list[str]:
    """The files of a name, in lower case, wherever they lie: splits may have a copy each."""
    return [name for name in found.names if PurePosixPath(name).name.lower() == called]


def _merged(
    found: Found, called: str, parse: Callable[[str], dict[str, Value]]
) -> dict[str, Value]:
    """What all files of one name say together."""
    together: dict[str, Value] = {}
    for name in files_called(found, called):
        for key, value in _parsed(found, name, parse).items():
            if together.setdefault(key, value) != value:
                raise DataError(
                    f"{found.tree.where(name)}: has {value} for {key}, and another {called} has "
                    f"{together[key]}; correct whichever is wrong."
                )
    return together


def note_of_numbers(
    files: ClassFiles, listed: Classes | None, labels: Labels, root: Path
) -> Iterator[str]:
    """At most one note: which of two lists numbers the classes of YOLO's files.

    Raises:
      DataError: it is classes.txt, and a name that YOLO's files do not number stands before others.
        It was probably added, since without background the rest of a photo is void.
    """
    if listed is None or all(label.kind != yolo.KIND for label in labels.of.values()):
        return
    if files.numbered:
        yield f"{root}: YOLO's files have the numbers of {files.numbered_in}, not of {CLASSES}"
        return
    unnumbered = [name.lower() in BACKGROUNDS or name == IGNORED for name in listed.lines]
    if sorted(unnumbered) != unnumbered:
        name = listed.lines[unnumbered.index(True)]
        raise DataError(
            f"{root / CLASSES}: {name} stands before other classes, whose lines number the classes "
            "in YOLO's files; put it last (or, if YOLO's files number it, too, add data.yaml with "
            f"names: [{', '.join(listed.lines[:3])}, ...])."
        )
    yield f"{root}: YOLO's files have the numbers of the lines in {CLASSES}, from 0"


def names_from_tools(files: ClassFiles, labels: Labels, root: Path) -> Classes | None:
    """The classes where there is no classes.txt; None if no file names any."""
    kinds = {label.kind for label in labels.of.values()}
    drawn = bool(kinds - {PNG, MATLAB, ""})
    listed = dict.fromkeys(name for read in labels.read.values() for name in read.class_names)
    of_tools = sorted({read.kind for read in labels.read.values() if read.class_names})
    used = sorted({label for read in labels.read.values() for label in read.labels()})
    for names, origin in (
        (files.numbered, files.numbered_in),
        (files.listed, NAMES),
        (tuple(listed), f"the list in {' and '.join(of_tools)}'s files"),
        (tuple(files.labelmap), LABELMAP),
        (tuple(sorted(files.values, key=files.values.__getitem__)), VALUES),
        (tuple(used), "the labels that were used, sorted"),
    ):
        if names:
            return from_annotations(names, origin, root, drawn=drawn)
    return None
