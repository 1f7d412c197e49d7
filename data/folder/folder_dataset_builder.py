"""Any folder of images with masks and a list of classes.

    classes.txt                    a name a line; the first line is id 0
    images/{split}/**/NAME.jpg     or .png, in folders as deep as you like
    labels/{split}/**/NAME.png     8-bit ids, with or without a palette, 255 = void

Every folder in `images` is a split; images directly in `images` make the split "all". Images
without a mask can be used as unlabelled ones. Photos that are stored turned (EXIF) are made
upright, but their masks are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data import layout
from data.errors import DataError, counted, some
from data.label_values import VOID
from data.sources import Listing, Split
from data.splits import UNLABELED, bases

CLASSES = "classes.txt"
_NUMBERED = re.compile(r"(?P<number>\d+)(?:\s*[:=.,;)-]\s*|\s+)(?P<name>\S.*)")
_NO_CLASSES = ("ignore", "ignored", "unlabeled", "unlabelled", "void")
_HELD_BACK = 5  # one in this many labelled images is suggested for evaluation


def listing(data: ConfigDict) -> Listing:
    """Lists the data set below `data.dir`.

    Raises:
      DataError: the folder or its list of classes cannot be used.
    """
    if not data.dir:
        raise DataError(
            "config.data.dir is not set; set it to the folder that holds classes.txt, images and "
            "labels."
        )
    root = Path(data.dir).expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; correct config.data.dir.")
    file = root / CLASSES
    names = read_classes(file)
    splits = layout.read_splits(root, len(names))
    return Listing(names, splits, _absent(root, data, splits), str(file), _notes(file, names))


def _absent(root: Path, data: ConfigDict, splits: Mapping[str, Split]) -> dict[str, str]:
    """Name of a split that the config asks for -> why it is not there, and what to do."""
    labeled, evaluation = bases(data.labeled_split), bases(data.eval_split)
    others = (*labeled, "train", layout.ONE_SPLIT)
    other = next((name for name in others if name in splits and name != UNLABELED), "")
    absent = {}
    named = dict.fromkeys((*labeled, *bases(data.unlabeled_split), *evaluation))
    for name in named:
        # A text that is no split's name is the path of a list file.
        if name in (*splits, UNLABELED) or not layout.SPLIT_NAME.fullmatch(name):
            continue
        folder = root / "images" / name
        why = "holds no .jpg or .png" if folder.is_dir() else "does not exist"
        masks = name in (*labeled, *evaluation)
        do = [f"put photos {'with masks ' if masks else ''}there"]
        if there := [split for split in splits if not (masks and split == UNLABELED)]:
            do.append(f"name another split ({', '.join(there)})")
        if name in evaluation and other:
            count = max(len(splits[other].sources) // _HELD_BACK, 1)
            do.append(
                f"hold some of {other!r} back: --config.data.eval_split={other}#{count}@0 "
                f"--config.data.labeled_split={other}#rest{count}@0"
            )
        absent[name] = f"{folder} {why}: {', or '.join(do)}"
    return absent


def _notes(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    """At most one note: on names for pixels of no class, which need no name."""
    odd = [name for name in names if name.lower() in _NO_CLASSES]
    if not odd:
        return ()
    return (
        f"{file} lists {some(odd)}, which is learned as any other class; pixels that belong to no "
        f"class have {VOID} in the masks, which needs no name",
    )


def read_classes(file: Path) -> tuple[str, ...]:
    """The names of the classes, in the order of their ids.

    Raises:
      DataError: the file is missing, or names fewer than 2 classes, too many, or one twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").strip().splitlines()
    except FileNotFoundError as error:
        raise DataError(
            f"{file}: missing; write the names of the classes into it, one a line, the first for "
            f"id 0. ({VOID} is void and needs no name.)"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a text file ({error}).") from error
    names = tuple(line.strip() for line in lines)
    if "" in names:
        raise DataError(
            f"{file}: line {names.index('') + 1} is empty, but every line is a class id; name it "
            "(such as unused_3), or take it out."
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{file}: names {', '.join(twice)} twice; a name is one class.")
    if not 2 <= len(names) < VOID:
        raise DataError(
            f"{file}: names {counted(len(names), 'class', 'classes')}; use 2 to {VOID - 1}."
        )
    numbered = [_NUMBERED.fullmatch(name) for name in names]
    if all(match and int(match["number"]) in (i, i + 1) for i, match in enumerate(numbered)):
        raise DataError(
            f"{file}: every line begins with a number, which would be part of the class's name; "
            f"write the names alone, the first for id 0: {numbered[0]['name']!r}, not {names[0]!r}."
        )
    return names
