"""Any folder of photos with labels of whatever format.

    classes.txt                    a name a line; the first line is id 0
    images/{split}/**/NAME.jpg     or another format, in folders as deep as you like
    labels/{split}/**/NAME.png     8-bit ids, 255 = void; or what a labelling tool saved

Every folder in `images` is a split; images directly in `images` make the split "all". Images
without a mask can be used as unlabelled ones. `data/folder/places.py` says what other layouts are
read, and docs/masks.md which formats. Nothing in the folder is written or changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data import layout, photos
from data.errors import DataError, some
from data.folder import class_files, classes, image_sets, labels, places, png_masks
from data.folder.arrangement import HELD_BACK, arrange, check_none_within, place_of, why_absent
from data.folder.classes import CLASSES
from data.folder.examples import split_of, stray_notes, what_was_found
from data.folder.labels import Labels
from data.folder.places import Found
from data.sources import Listing, Split
from data.splits import UNLABELED, bases
from data.trees import check_folder, is_left_out


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
    check_folder(root, "correct config.data.dir")
    file = root / CLASSES
    listed = classes.read(file) if file.exists() else None
    asked = bases(data.labeled_split, data.unlabeled_split, data.eval_split)
    found = image_sets.by_lists(places.find(root, asked), asked)
    if problems := photos.missing_package([n for s in found.photos.values() for n in s.values()]):
        raise DataError([f"{root}: {problem}" for problem in problems])
    tools = class_files.read(found)
    found_labels = labels.find(found, tools.numbered or (listed.names if listed else ()))
    check_none_within(root, found, found_labels, data)  # before what depends on the folder
    stray = tuple(stray_notes(found, found_labels))
    names = listed or class_files.names_from_tools(tools, found_labels, root)
    if names is None:
        raise DataError(_no_names(file, found_labels, stray))
    if not found_labels.of and not (root / places.LABELS).is_dir():
        raise DataError(_no_labels(root))
    arranged = arrange(root, found, found_labels, data)
    read_png = png_masks.reader(found, found_labels, tools, names, data.merge_classes)
    how = repr((names, tools))
    made = {
        split: split_of(split, examples, found, found_labels, names, read_png, how)
        for split, examples in arranged.photos.items()
    }
    notes = (
        *(classes.notes(file, names.names) if listed else ()),
        *what_was_found(root, arranged, found_labels, names, tools),
        *class_files.note_of_numbers(tools, listed, found_labels, root),
        *found_labels.notes,
        *stray,
        *found.notes,
        *arranged.notes,
    )
    origin = str(file) if listed else f"{root}: {names.origin}"
    return Listing(names.names, made, _absent(root, found, data, made), origin, notes)


def _no_names(file: Path, labels: Labels, stray: Sequence[str]) -> list[str]:
    """What to say where no file names the classes: first what else is wrong with the labels."""
    damaged = list(dict.fromkeys(x.problem for x in labels.of.values() if not x.kind and x.problem))
    if damaged and not any(label.kind for label in labels.of.values()):
        return damaged
    files = [label.file for label in labels.of.values()]
    files += [file for of_split in labels.stray.values() for file in of_split]
    missing = classes.missing(file)
    if any(file.suffix == ".txt" for file in files):
        missing += f" Or copy YOLO's data.yaml, which names them, to {file.parent}."
    notes = (*labels.notes, *stray) if not any(x.kind for x in labels.of.values()) else ()
    return [*damaged, *notes, missing]


def _no_labels(root: Path) -> str:
    """What to say of a folder without any labels."""
    folders = [path.name for path in sorted(root.iterdir()) if os.path.isdir(path)]
    folders = [name for name in folders if not is_left_out(name) and name != places.IMAGES]
    what = f"{root / places.LABELS}: no such folder; {layout.LAYOUT}."
    if len(folders) > 1 or (folders and (root / places.IMAGES).is_dir()):
        one = folders[0] if len(folders) == 1 else f"one of {some(folders)}"
        what += f" If {one} holds the labels, call it {places.LABELS!r}."
    return what


def _absent(
    root: Path, found: Found, data: ConfigDict, splits: Mapping[str, Split]
) -> dict[str, str]:
    """Name of a split that the config asks for -> why it is not there, and what to do."""
    labeled, evaluation = bases(data.labeled_split), bases(data.eval_split)
    known = [name for name in dict.fromkeys(labeled) if name in splits and name != UNLABELED]
    others = known or [name for name in ("train", layout.ONE_SPLIT) if name in splits][:1]
    # A text that is no split's name is the path of a list file.
    from_list = any(not layout.SPLIT_NAME.fullmatch(name) for name in labeled)
    absent = {}
    named = dict.fromkeys((*labeled, *bases(data.unlabeled_split), *evaluation))
    for name in named:
        if name in (*splits, UNLABELED) or not layout.SPLIT_NAME.fullmatch(name):
            continue
        place = place_of(root, found, name)
        masks = name in (*labeled, *evaluation)
        put = "name" if found.lists else "put"
        do = [f"{put} photos {'with masks ' if masks else ''}there"]
        if there := [split for split in splits if not (masks and split == UNLABELED)]:
            do.append(f"name another split ({', '.join(there)})")
        if name in evaluation and from_list:
            do.append(
                "leave config.data.labeled_split at 'train', of whose photos with masks about one "
                f"in {HELD_BACK} is then held back"
            )
        elif name in evaluation and others:
            of = [(x, max(len(splits[x].sources) // HELD_BACK, 1)) for x in others]
            do.append(
                f"hold some of {' and '.join(map(repr, others))} back: "
                f"--config.data.eval_split={'+'.join(f'{x}#{n}@0' for x, n in of)} "
                f"--config.data.labeled_split={'+'.join(f'{x}#rest{n}@0' for x, n in of)}"
            )
        absent[name] = f"{place} {why_absent(place)}: {', or '.join(do)}"
    return absent
