"""Splits as VOC's lists name them: ImageSets/Segmentation/train.txt, val.txt or of other names.

    JPEGImages/1.jpg, which ImageSets/Segmentation/train.txt names     split train
    JPEGImages/2.jpg, which none of the lists there names              split unlabeled

A photo that several lists name (trainval.txt repeats train.txt and val.txt) is of the first one:
train, val and test come first, and trainval last. No two of train, val and test may share a photo.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from data import lists
from data.errors import DataError, counted, some
from data.folder.places import IMAGES, File, Found, Place, by_split, own_photo, plain, usual_names
from data.layout import ONE_SPLIT
from data.splits import UNLABELED
from data.trees import Tree

FOLDER = "ImageSets/Segmentation"
_PHOTOS, _MASKS = "JPEGImages", "SegmentationClass"
_LIST = re.compile(rf"(?P<beside>(?:.+/)?){FOLDER}/(?P<name>[^/]+)\.txt")
_APART = ("train", "val", "test")
Ids = Mapping[str, Sequence[str]]  # split -> ids of its photos


def by_lists(found: Found, keep: Collection[str] = ()) -> Found:
    """Makes the splits that lists name; without lists the folder stays as it is.

    Args:
      found: the folder's files.
      keep: splits that remain what they are called, as a run asks for them.

    Raises:
      DataError: a list cannot be read or names no photo that is there, or two lists share photos
        and may not.
    """
    moved: dict[Place, Place] = {}
    of_splits: dict[str, str] = {}
    unlisted: set[Place] = set()
    notes: list[str] = []
    for beside, files in _lists(found.names, keep).items():
        where = found.tree.where(beside + FOLDER)
        photos = _photos(found, f"{beside}{_PHOTOS}/")
        named = {s: _named(found.tree, file, photos, notes) for s, file in files.items()}
        if not any(named.values()):
            notes.append(f"{where}: is not used, as its lists are empty")
            continue
        taken = _apart(found.tree, files, named)
        for split, ids in photos.items():
            for id in ids:
                whole = id if split == ONE_SPLIT else f"{split}/{id}"
                moved[split, id] = (taken.get((split, id), UNLABELED), whole)
                if (split, id) not in taken:
                    unlisted.add(moved[split, id])
        of_splits |= files
        notes.append(f"{where}: {_what_was_listed(named, taken)}")
    found = dataclasses.replace(
        found, lists=of_splits, unlisted=frozenset(unlisted), notes=tuple(notes)
    )
    return _with_moved(found, moved) if moved else found


def mask_of(photo: str) -> str:
    """The name that the mask of a listed photo has."""
    beside, _, name = photo.rpartition(f"{_PHOTOS}/")
    return f"{beside}{_MASKS}/{name.rpartition('.')[0]}.png"


def _lists(names: Iterable[str], keep: Collection[str]) -> dict[str, dict[str, str]]:
    """The folder that holds ImageSets -> split -> its list, those first that take photos first."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        if match := _LIST.fullmatch(name):
            found.setdefault(match["beside"], {})[match["name"]] = name
    for beside, files in found.items():
        names = usual_names(files, keep)
        files = {names.get(plain(name), name): file for name, file in files.items()}
        order = (*_APART, *sorted({*files} - {*_APART, "trainval"}), "trainval")
        found[beside] = {split: files[split] for split in order if split in files}
    return found


def _photos(found: Found, folder: str) -> dict[str, list[str]]:
    """Split -> ids of the photos below a folder."""
    ids = {
        s: [id for id, n in of.items() if n.startswith(folder)] for s, of in found.photos.items()
    }
    return {split: of_it for split, of_it in ids.items() if of_it}


def _named(tree: Tree, file: str, photos: Ids, notes: list[str]) -> list[Place]:
    """The photos that a list names; adds a note if some are not there."""
    where = tree.where(file)
    try:
        lines = lists.entries(tree.read(file))
    except (OSError, UnicodeDecodeError) as error:
        raise lists.unreadable(where, error) from error
    lines = [line for line in lines if not line.startswith("#")]  # as datumaro reads it
    keys, absent = lists.look_up(lines, photos, where)
    if absent and not keys:
        raise DataError(
            f"{where}: none of its photos ({some(absent)}) is in {_PHOTOS}; put them there, or "
            "remove the list."
        )
    if absent:
        missing = counted(len(absent), "photo that is", "photos that are")
        notes.append(f"{where}: names {missing} not there, such as {absent[0]}")
    return [(split, photos[split][index]) for split, index in sorted(keys)]


def _apart(
    tree: Tree, files: Mapping[str, str], named: Mapping[str, Sequence[Place]]
) -> dict[Place, str]:
    """The split of each photo that is listed: the first one whose list names it.

    Raises:
      DataError: of train, val and test two share photos.
    """
    taken: dict[Place, str] = {}
    problems = []
    for split, places in named.items():
        both: dict[str, list[str]] = {}
        for place in places:
            first = taken.setdefault(place, split)
            if first != split and split in _APART:
                both.setdefault(first, []).append(place[1])
        problems += [
            f"{tree.where(files[split])}: names {counted(len(ids), 'photo')} that "
            f"{tree.where(files[first])} names, too ({some(ids)}); remove each from one of them."
            for first, ids in both.items()
        ]
    if problems:
        raise DataError(problems)
    return taken


def _what_was_listed(named: Mapping[str, Sequence[Place]], taken: Mapping[Place, str]) -> str:
    counts = Counter(taken.values())
    said = ", ".join(f"{split} {counted(counts[split], 'photo')}" for split in named)
    shared = sum(map(len, named.values())) > len(taken)
    first = "; a photo that several lists name is of the first of these" if shared else ""
    return f"its lists are the splits: {said}{first}"


def _with_moved(found: Found, moved: Mapping[Place, Place]) -> Found:
    """Puts photos, and their own files of labels, into other splits."""
    files = [
        File(name, *moved.get((split, id), (split, id)), IMAGES)
        for split, ids in found.photos.items()
        for id, name in ids.items()
    ]
    photos = by_split(found.tree, files)
    labels = []
    for file in found.labels:
        split, id = moved.get(own_photo(file, found.photos), (file.split, file.stem))
        labels.append(file._replace(split=split, stem=id))
    return dataclasses.replace(
        found,
        photos={s: photos[s] for s in dict.fromkeys((*found.lists, *photos)) if s in photos},
        labels=tuple(labels),
    )
