"""Which photos of a folder a file means that names photos by paths or addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

from data.folder.places import File, Found, Place
from data.layout import ONE_SPLIT
from data.names import normal_form
from data.photo_suffixes import PHOTO_SUFFIXES

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # how Label Studio begins uploaded files
Index = dict[str, list[Place]]


def scope(file: File, splits: Sequence[str]) -> list[str]:
    """The splits that a file of many photos may be about.

    That of its folder; or else those whose name is part of its own, as in instances_train2017.json;
    or else all.
    """
    if file.split in splits and file.split != ONE_SPLIT:
        return [file.split]
    own = file.stem.lower()
    named = [s for s in splits if re.search(rf"(?<![a-z]){re.escape(s.lower())}(?![a-z])", own)]
    return named or list(splits)


def places_by_name(found: Found, splits: Sequence[str]) -> tuple[Index, Index]:
    """Places by id and by split/id; and by what follows an id's last slash."""
    exact: Index = {}
    loose: Index = {}
    for split in splits:
        for example in found.photos[split]:
            for name in (example, f"{split}/{example}"):
                exact.setdefault(normal_form(name), []).append((split, example))
            if "/" in example:
                loose.setdefault(normal_form(example).rpartition("/")[2], []).append(
                    (split, example)
                )
    return exact, loose


def names_in(name: str) -> Iterator[str]:
    r"""Texts that may be the id of the photo that a file names by a path or an address.

    The longest first: `C:\photos\a\1.jpg` may be of a/1 or of 1, and Label Studio's
    `/data/upload/1/0123abcd-cat.jpg` of cat.
    """
    path = unquote(name)
    if "://" in path or "?d=" in path:  # an address, of which Label Studio's may end in a path
        path = path.partition("?d=")[2] or path.partition("?")[0]
    parts = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part != "/"]
    for start in range(len(parts)):
        whole = normal_form("/".join(parts[start:]))
        stem = whole.rpartition(".")[0] if whole.lower().endswith(PHOTO_SUFFIXES) else whole
        yield stem
        if whole != stem:
            yield whole
    if parts and (own := _UPLOADED.sub("", normal_form(parts[-1]), count=1)) != parts[-1]:
        yield own.rpartition(".")[0] if own.lower().endswith(PHOTO_SUFFIXES) else own
