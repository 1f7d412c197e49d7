"""The classes of a folder: from classes.txt, or else from what the labelling tool wrote."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.annotations.colours import Colour, split_hex
from data.annotations.regions import BACKGROUNDS, IGNORED, background_id
from data.errors import DataError, counted, some
from data.label_values import VOID

CLASSES = "classes.txt"
_NUMBERED = re.compile(r"(?P<number>\d+)(?:\s*[:=.,;)-]\s*|\s+)(?P<name>\S.*)")
_NO_CLASSES = ("ignore", "ignored", "unlabeled", "unlabelled", "void")


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a folder.

    Attributes:
      names: K names; the id of a class is its position.
      origin: where the names are from, for people.
      colours: name -> the colour that stands behind it in classes.txt.
      lines: the names in classes.txt as they stand there, with `IGNORED`.
    """

    names: tuple[str, ...]
    origin: str
    colours: Mapping[str, Colour] = dataclasses.field(default_factory=dict)
    lines: tuple[str, ...] = ()

    @property
    def rest(self) -> int:
        """The id of pixels that nobody annotated: the background's if it is a class, else void."""
        found = background_id(self.names)
        return VOID if found is None else found

    @property
    def ids(self) -> dict[str, int]:
        """The ids of all names that masks may use, with every name of the background."""
        return {
            **dict.fromkeys(BACKGROUNDS, self.rest),
            IGNORED: VOID,
            **{name: index for index, name in enumerate(self.names)},
        }


def read_classes(file: Path) -> tuple[str, ...]:
    """The names of the classes in classes.txt, in the order of their ids.

    Raises:
      DataError: as for `read`.
    """
    return read(file).names


def read(file: Path) -> Classes:
    """Reads classes.txt: a name a line, with #rrggbb behind it or without.

    Raises:
      DataError: the file is missing, names fewer than 2 classes, too many, or one twice, or has
        `IGNORED` among them.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").strip().splitlines()
    except FileNotFoundError as error:
        raise DataError(missing(file)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a text file ({error}).") from error
    split = [split_hex(line.strip()) for line in lines]
    if "" in (names := [name for name, _ in split]):
        raise DataError(
            f"{file}: line {names.index('') + 1} is empty, but every line is a class id; name it "
            "(such as unused_3), or take it out."
        )
    if problem := misplaced_ignored(names):
        raise DataError(f"{file}: {problem}.")
    colours = {name: colour for name, colour in split if colour is not None}
    classes = Classes(_checked(names, str(file)), CLASSES, colours, tuple(names))
    numbered = [_NUMBERED.fullmatch(name) for name in classes.names]
    if all(match and int(match["number"]) in (i, i + 1) for i, match in enumerate(numbered)):
        raise DataError(
            f"{file}: every line begins with a number, which would be part of the class's name; "
            f"write the names alone, the first for id 0: {numbered[0]['name']!r}, not "
            f"{classes.names[0]!r}."
        )
    return classes


def misplaced_ignored(names: Sequence[str]) -> str:
    """What to say where `IGNORED`, which is no class, stands among the classes that masks number.

    Without it the classes below have ids one less than their lines. labelme2voc has it first, as
    -1; there, and at the end, it changes no id.
    """
    if IGNORED not in names[1:-1]:
        return ""
    return (
        f"line {names.index(IGNORED, 1) + 1} is {IGNORED}, which is no class and has no id, so "
        "that those below it would not have their lines' ids; make it the last line (or, if masks "
        "have an id for it, call it ignored here and set "
        f'--config.data.merge_classes="{IGNORED}=ignored")'
    )


def missing(file: Path) -> str:
    """What to say where there is no classes.txt, and nothing else names the classes."""
    return (
        f"{file}: missing; write the names of the classes into it, one a line, the first for "
        f"id 0. ({VOID} is void and needs no name. Where masks are coloured, write the colour "
        "behind each name: road #804080.)"
    )


def from_annotations(names: Sequence[str], origin: str, root: Path, *, drawn: bool) -> Classes:
    """The classes where there is no classes.txt.

    Args:
      names: as the annotation files have them.
      origin: which files those are, for people.
      root: the data set's folder, for messages.
      drawn: whether masks are drawn from regions. Then the rest of a photo needs a class, too:
        "background" comes first unless it is among the names.
    """
    if drawn and background_id(names) is None:
        names = (BACKGROUNDS[0], *names)
    return Classes(_checked(names, f"{root}: {origin}"), origin)


def notes(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    """At most one note: on names for pixels of no class, which need no name."""
    odd = [name for name in names if name.lower() in _NO_CLASSES]
    if not odd:
        return ()
    return (
        f"{file} lists {some(odd)}, which is learned as any other class; pixels that belong to no "
        f"class have {VOID} in the masks, which needs no name",
    )


def _checked(names: Sequence[str], where: str) -> tuple[str, ...]:
    """The names, without the one for pixels that nobody shall learn."""
    names = tuple(name for name in names if name != IGNORED)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{where}: names {', '.join(twice)} twice; a name is one class.")
    if not 2 <= len(names) < VOID:
        raise DataError(
            f"{where}: names {counted(len(names), 'class', 'classes')}; use 2 to {VOID - 1}."
        )
    return names
