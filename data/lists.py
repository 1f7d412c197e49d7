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
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} ({key}): cannot be read as a text file ({error}).") from error
    lines = [line.strip() for line in normal_form(text).splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{file} ({key}): the list is empty, so it names no example.")
    exact, loose = _places(ids)
    found = {line: _find(line, exact, loose) for line in lines}
    if unknown := [line for line, places in found.items() if not places]:
        raise DataError(
            f"{file} ({key}): {len(unknown)} of {len(found)} entries are not in the data set: "
            f"{some(unknown)}; use the list that belongs to it, or correct config.data.dir."
            + (f" {hint}" if hint else "")
        )
    if twice := [line for line, places in found.items() if len(places) > 1]:

        def full(place: tuple[str, int]) -> str:
            return f"{place[0]}/{ids[place[0]][place[1]]}"

        named = [f"{line} ({' or '.join(map(full, found[line]))})" for line in twice]
        raise DataError(
            f"{file} ({key}): {counted(len(twice), 'entry names', 'entries name')} several images: "
            f"{some(named)}; write the folders before the name."
        )
    lines_of: dict[tuple[str, int], list[str]] = {}
    for line, (place,) in found.items():
        lines_of.setdefault(place, []).append(line)
    if same := [" and ".join(lines) for lines in lines_of.values() if len(lines) > 1]:
        raise DataError(
            f"{file} ({key}): different entries name one image: {some(same)}; correct them: do all "
            "of these files exist?"
        )
    return set(lines_of)


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
