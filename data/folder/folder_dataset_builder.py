"""Any folder of images with masks and a list of classes.

    classes.txt                    a name a line; the first line is id 0
    images/{split}/**/NAME.jpg     or .png, in folders as deep as you like
    labels/{split}/**/NAME.png     8-bit ids, with or without a palette, 255 = void

A split is any folder below `images`; images that lie directly in it make the split "all". Images
without a mask can be used as unlabelled ones.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from data import layout
from data.errors import DataError
from data.masks import VOID
from data.sources import Listing

CLASSES = "classes.txt"


def listing(data: ConfigDict) -> Listing:
    """The data set below `data.dir`.

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
    names = read_classes(root / CLASSES)
    return Listing(names, layout.read_splits(root, len(names)))


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
        raise DataError(f"{file}: names {len(names)} classes; use 2 to {VOID - 1}.")
    return names
