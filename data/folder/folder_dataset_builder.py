"""Any folder of photos with labels of whatever format.

    classes.txt                    a name a line; the first line is id 0
    images/{split}/**/NAME.jpg     or another format, in folders as deep as you like
    labels/{split}/**/NAME.png     8-bit ids, 255 = void; or what a labelling tool saved

Every folder in `images` is a split; images directly in `images` make the split "all". Images
without a mask can be used as unlabelled ones. `data/folder/places.py` says what other layouts are
read, and docs/masks.md which formats. Nothing in the folder is written or changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from data import layout, photos
from data.errors import DataError
from data.folder import class_files, classes, labels, places
from data.folder.arrangement import HELD_BACK, arrange, folder_of
from data.folder.classes import CLASSES
from data.folder.examples import split_of, what_was_found
from data.sources import Listing, Split
from data.splits import UNLABELED, bases


def listing(data: ConfigDict) -> Listing:
    """Lists the data set below `data.dir`.

    Raises:
      DataError: the folder, its list of classes or its labels cannot be used.
    """
    if not data.dir:
        raise DataError(
            "config.data.dir is not set; set it to the folder that holds your images and labels."
        )
    root = Path(data.dir).expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; correct config.data.dir.")
    file = root / CLASSES
    listed = classes.read(file) if file.exists() else None
    found = places.find(root)
    if problems := photos.missing_package([n for s in found.photos.values() for n in s.values()]):
        raise DataError([f"{root}: {problem}" for problem in problems])
    tools = class_files.read(found)
    found_labels = labels.find(found, tools.numbered or (listed.names if listed else ()))
    names = listed or class_files.names_from_tools(tools, found_labels, root) or classes.read(file)
    if not found_labels.of and not (root / places.LABELS).is_dir():
        raise DataError(f"{root / places.LABELS}: no such folder; {layout.LAYOUT}.")
    arranged = arrange(root, found, found_labels, data)
    read_png = class_files.png_reader(tools, names)
    how = repr((names, tools))
    made = {
        split: split_of(split, examples, found, found_labels, names, read_png, how)
        for split, examples in arranged.photos.items()
    }
    notes = (
        *(classes.notes(file, names.names) if listed else ()),
        *what_was_found(root, arranged, found_labels, names, tools),
        *found_labels.notes,
        *arranged.notes,
    )
    origin = str(file) if listed else f"{root}: {names.origin}"
    return Listing(names.names, made, _absent(root, data, made), origin, notes)


def _absent(root: Path, data: ConfigDict, splits: Mapping[str, Split]) -> dict[str, str]:
    """Name of a split that the config asks for -> why it is not there, and what to do."""
    labeled, evaluation = bases(data.labeled_split), bases(data.eval_split)
    others = (*labeled, "train", layout.ONE_SPLIT)
    other = next((name for name in others if name in splits and name != UNLABELED), "")
    # A text that is no split's name is the path of a list file.
    from_list = any(not layout.SPLIT_NAME.fullmatch(name) for name in labeled)
    absent = {}
    named = dict.fromkeys((*labeled, *bases(data.unlabeled_split), *evaluation))
    for name in named:
        if name in (*splits, UNLABELED) or not layout.SPLIT_NAME.fullmatch(name):
            continue
        folder = folder_of(root, name)
        why = "holds no photo" if folder.is_dir() else "does not exist"
        masks = name in (*labeled, *evaluation)
        do = [f"put photos {'with masks ' if masks else ''}there"]
        if there := [split for split in splits if not (masks and split == UNLABELED)]:
            do.append(f"name another split ({', '.join(there)})")
        if name in evaluation and from_list:
            do.append(
                "leave config.data.labeled_split at 'train', of whose photos with masks about one "
                f"in {HELD_BACK} is then held back"
            )
        elif name in evaluation and other:
            count = max(len(splits[other].sources) // HELD_BACK, 1)
            do.append(
                f"hold some of {other!r} back: --config.data.eval_split={other}#{count}@0 "
                f"--config.data.labeled_split={other}#rest{count}@0"
            )
        absent[name] = f"{folder} {why}: {', or '.join(do)}"
    return absent
