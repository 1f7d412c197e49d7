"""Reads files that list examples, in the formats in which such lists are published.

A line holds an id, an image's path, or an image's path and its mask's path with a tab or spaces
between them, as CPS and UniMatch publish them. A path names the example whose id is the end of the
path, without the suffix: `leftImg8bit/train/jena/jena_000078_000019_leftImg8bit.png` and
`/images/train/jena_000078_000019.png` both name `jena_000078_000019`. Windows line ends, blank
lines, a byte order mark and a missing last newline are fine. An id is looked up in all splits;
`split/id` looks in one split only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from data.errors import DataError, counted, some
from data.names import normal_form
from data.photo_suffixes import PHOTO_SUFFIXES

# What data sets append to an id in the names of its files.
_ENDINGS = ("_leftImg8bit",)
_SUFFIX = rf"\.(?:{'|'.join(suffix[1:] for suffix in PHOTO_SUFFIXES)})"
_PAIR = re.compile(rf"(?P<image>.+?{_SUFFIX})\s+.+{_SUFFIX}", re.IGNORECASE)

Places = dict[str, list[tuple[str, int]]]


def read(
    file: Path, ids: Mapping[str, Sequence[str]], key: str, hint: str = ""
) -> set[tuple[str, int]]:
    """The examples that a file lists.

    Args:
      file: the list.
      ids: split -> ids of its examples.
      key: the config key that names the file, for messages.
      hint: why images may be unknown, for messages.

    Returns:
      (split, position in it) of each.

    Raises:
      DataError: the file cannot be read or is empty; or an entry is unknown, names several
        examples, or names the same example as another entry.
    """
    where = f"{file} ({key})"
    try:
        lines = entries(file.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(where, error) from error
    if not lines:
        raise DataError(f"{where}: the list is empty, so it names no example.")
    found, unknown = look_up(lines, ids, where)
    if unknown:
        raise DataError(
            f"{where}: {len(unknown)} of {len({*lines})} entries are not in the data set: "
            f"{some(unknown)}; use the list that belongs to it, or correct config.data.dir."
            + (f" {hint}" if hint else "")
        )
    return found


def entries(content: bytes) -> list[str]:
    """The lines of a list that hold something.

    Raises:
      UnicodeDecodeError: the file is no text.
    """
    text = normal_form(content.decode("utf-8-sig"))
    return [line.strip() for line in text.splitlines() if line.strip()]


def unreadable(where: str, error: Exception) -> DataError:
    """The error for a list that cannot be opened, or is no text."""
    return DataError(f"{where}: cannot be read as a text file ({error}).")


def look_up(
    lines: Sequence[str], ids: Mapping[str, Sequence[str]], where: str
) -> tuple[set[tuple[str, int]], list[str]]:
    """Finds the examples that lines name.

    Args:
      lines: as `entries` returns them.
      ids: split -> ids of its examples.
      where: the list, for messages.

    Returns:
      (split, position in it) of each example, and the lines that name none.

    Raises:
      DataError: a line names several examples, or the same example as another line.
    """
    exact, loose = _places(ids)
    found = {line: _find(line, exact, loose) for line in lines}

    def full(place: tuple[str, int]) -> str:
        return f"{place[0]}/{ids[place[0]][place[1]]}"

    if twice := [line for line, places in found.items() if len(places) > 1]:
        named = [f"{line} ({' or '.join(map(full, found[line]))})" for line in twice]
        raise DataError(
            f"{where}: {counted(len(twice), 'entry names', 'entries name')} several images: "
            f"{some(named)}; write the folders before the name."
        )
    lines_of: dict[tuple[str, int], list[str]] = {}
    for line, places in found.items():
        for place in places:
            lines_of.setdefault(place, []).append(line)
    if same := [" and ".join(lines) for lines in lines_of.values() if len(lines) > 1]:
        raise DataError(
            f"{where}: different entries name one image: {some(same)}; correct them: do all "
            "of these files exist?"
        )
    return {*lines_of}, [line for line, places in found.items() if not places]


def _places(ids: Mapping[str, Sequence[str]]) -> tuple[Places, Places]:
    """Places by id and by split/id, and places by what follows an id's last slash."""
    exact: Places = {}
    loose: Places = {}
    for split, names in ids.items():
        for index, name in enumerate(map(normal_form, names)):
            exact.setdefault(name, []).append((split, index))
            exact.setdefault(f"{split}/{name}", []).append((split, index))
            if "/" in name:
                loose.setdefault(name.rpartition("/")[2], []).append((split, index))
    return exact, loose


def _find(line: str, exact: Places, loose: Places) -> list[tuple[str, int]]:
    candidates = list(_candidates(line))
    for places in (exact, loose):
        for candidate in candidates:
            if candidate in places:
                return places[candidate]
    return []


def _candidates(line: str) -> Iterator[str]:
    """Texts on a line that may be an id, the longest first."""
    pair = _PAIR.fullmatch(line)
    first = pair["image"] if pair else line.split("\t")[0].strip()
    texts = [first]
    if not first.lower().endswith(PHOTO_SUFFIXES):  # a space may be part of the id, or end it
        texts.append(line.split()[0])
    for text in texts:
        parts = [part for part in PurePosixPath(text.replace("\\", "/")).parts if part != "/"]
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            yield name
            stem = name[: name.rindex(".")] if name.lower().endswith(PHOTO_SUFFIXES) else name
            yield stem
            for ending in _ENDINGS:
                yield stem.removesuffix(ending)
