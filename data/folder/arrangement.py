"""Makes of a folder's splits those that a run asks for, where the folder does not have them.

 - Labelled photos that lie in splits of other names are "train". Of several splits the photos'
   ids then begin with the split's name.
 - Photos without labels among labelled ones, where labels lie beside photos, are "unlabeled".
 - Without "val", about one in five labelled photos is held back for it. Whether a photo is depends
   on its folder and name alone: when others come later, none moves from training to evaluation.
   (Of a handful one may, since at least one photo is held back, and at least one is not.)

Each of these is said in a line, and none happens if a run names its splits otherwise. Where VOC's
lists name the splits (`data/folder/image_sets.py`), photos that are in a list and have no labels
are "unlabeled", too, beside those in no list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ml_collections import ConfigDict

from data.errors import DataError, counted, some
from data.folder.labels import Labels
from data.folder.places import IMAGES, VALIDATION, Found, Place, plain
from data.layout import ONE_SPLIT, SPLIT_NAME
from data.splits import UNLABELED, bases, draw_of

TRAIN, VAL = "train", "val"
_NOT_TRAIN = (UNLABELED, VAL, *VALIDATION, "test", "testing", "eval", "evaluation")
HELD_BACK = 5  # one in this many labelled photos is held back for evaluation
_SEED = 0
Photos = dict[str, Place]  # example id -> the photo's place in the folder


@dataclasses.dataclass
class Arranged:
    """The splits of a run.

    Attributes:
      photos: split -> example id -> the photo's place in the folder.
      notes: what was arranged.
    """

    photos: dict[str, Photos]
    notes: list[str] = dataclasses.field(default_factory=list)


def place_of(root: Path, found: Found, split: str) -> Path:
    """The folder that holds, or would hold, the photos of a split; or the list that names them."""
    if split in found.lists:
        return Path(found.tree.where(found.lists[split]))
    if found.lists and split not in found.photos:
        first = next(iter(found.lists.values()))
        return Path(found.tree.where(first)).with_name(f"{split}.txt")
    return root / IMAGES / split if (root / IMAGES).is_dir() else root / split


def why_absent(place: Path) -> str:
    """What is the matter with a place, as `place_of` returns it, where a split has no photo."""
    if place.is_file():
        return "names no photo that another list does not name"
    return "holds no photo" if place.is_dir() else "does not exist"


def arrange(root: Path, found: Found, labels: Labels, data: ConfigDict) -> Arranged:
    """Arranges the splits of a folder.

    Args:
      root: the folder.
      found: its files.
      labels: its labels.
      data: `config.data`, of which the names of splits are read.

    Raises:
      DataError: what remains as a split has a name that none may have.
    """
    arranged = Arranged({s: {id: (s, id) for id in ids} for s, ids in found.photos.items()})
    named = dict.fromkeys(bases(data.labeled_split))
    if splits := _for_train(found, labels, data):
        _name_train(root, arranged, found, splits)
    if found.unlisted:
        _use_unlisted(root, arranged, found, labels, data)
    labeled = [split for split in named if split in arranged.photos]
    if UNLABELED in (bases(data.unlabeled_split) or [UNLABELED]) and not data.unlabeled_dir:
        _part_unlabeled(root, arranged, found, labels, labeled)
    whole = [part.strip() for part in data.labeled_split.split("+")]
    if data.eval_split == VAL and VAL not in found.photos and whole == labeled:
        _hold_back(root, arranged, found, labels, labeled)
    _check_names(root, found, arranged.photos)
    return arranged


def _check_names(root: Path, found: Found, splits: Iterable[str]) -> None:
    problems = [
        f"{place_of(root, found, split)}: a split's name may hold letters, digits, _ and -; rename "
        "it."
        for split in splits
        if not SPLIT_NAME.fullmatch(split)
    ]
    if problems:
        raise DataError(problems)


def _joined(arranged: Arranged, splits: Sequence[str]) -> Photos:
    """The photos of splits together; of several splits, ids begin with the split's name."""
    several = len(splits) > 1
    return {
        f"{split}/{id}" if several and split != ONE_SPLIT else id: place
        for split in splits
        for id, place in arranged.photos[split].items()
    }


def _labelled(photos: Photos, labels: Labels) -> list[str]:
    return [id for id, place in photos.items() if labels.has(place)]


def _move(arranged: Arranged, photos: Photos, to: str) -> None:
    """Makes a split of photos that are in others."""
    moved = set(photos.values())
    for split, of_it in arranged.photos.items():
        arranged.photos[split] = {id: place for id, place in of_it.items() if place not in moved}
    arranged.photos[to] = photos


def _for_train(found: Found, labels: Labels, data: ConfigDict) -> list[str]:
    """The splits with labels that are to be "train", where a run asks for it and there is none."""
    named = bases(data.labeled_split)
    if TRAIN not in named or TRAIN in found.photos:
        return []
    keep = (*named, *bases(data.unlabeled_split, data.eval_split))
    return [
        split
        for split, ids in found.photos.items()
        if plain(split) not in _NOT_TRAIN and split not in keep
        if any(labels.has((split, id)) for id in ids)
    ]


def check_none_within(root: Path, found: Found, labels: Labels, data: ConfigDict) -> None:
    """Refuses to make "train" of a folder that holds splits of its own, and photos to test with.

    Raises:
      DataError: there is such a folder, as where `data.dir` is the folder above the data set.
    """
    problems = []
    for split in _for_train(found, labels, data):
        inner = {id.partition("/")[0] for id in found.photos[split] if "/" in id}
        if {*map(plain, inner)}.isdisjoint(_NOT_TRAIN):
            continue
        own = some(sorted(name for name in inner if plain(name) in (TRAIN, *_NOT_TRAIN)))
        do = "move these, and the folders of their labels, up"
        if (root / split).is_dir():
            do = f"set config.data.dir to {root / split}"
        problems.append(
            f"{place_of(root, found, split)}: has splits of its own ({own}), and all of it would "
            f"be trained on; {do}, or say that they are none with "
            f"--config.data.labeled_split={split}"
        )
    if problems:
        raise DataError(problems)


def _name_train(root: Path, arranged: Arranged, found: Found, splits: Sequence[str]) -> None:
    """Calls splits "train"."""
    train = {TRAIN: _joined(arranged, splits)}
    rest = {split: of_it for split, of_it in arranged.photos.items() if split not in splits}
    arranged.photos = train | rest
    if len(splits) > 1:
        arranged.notes.append(
            f"{root}: the photos of {some(splits)} are together the split {TRAIN!r}, as there is "
            "none (or name others with --config.data.labeled_split)"
        )
        return
    where = root if splits == [ONE_SPLIT] else place_of(root, found, splits[0])
    arranged.notes.append(f"{where}: the labelled photos there are the split {TRAIN!r}")


def _use_unlisted(
    root: Path, arranged: Arranged, found: Found, labels: Labels, data: ConfigDict
) -> None:
    """Says what photos in no list are used for: nothing where a folder of others is given."""
    one = len(found.unlisted) == 1
    used = f"{'makes' if one else 'make'} the split {UNLABELED!r}"
    if data.unlabeled_dir:
        used = f"{'is' if one else 'are'} not used, as config.data.unlabeled_dir is set"
        others = arranged.photos.pop(UNLABELED).items()
        if listed := {id: place for id, place in others if place not in found.unlisted}:
            arranged.photos[UNLABELED] = listed
    note = f"{root}: {counted(len(found.unlisted), 'photo')} that no list names {used}"
    if labelled := sum(map(labels.has, found.unlisted)):
        mask = "has a mask, which counts" if labelled == 1 else "have masks, which count"
        note += f"; {labelled} of them {mask} once a list names the photo"
    arranged.notes.append(note)


def _part_unlabeled(
    root: Path, arranged: Arranged, found: Found, labels: Labels, splits: Sequence[str]
) -> None:
    """Makes a split "unlabeled" of photos without labels, where labels lie beside photos.

    Lists of photos may name those without labels as well, since tools list all of a project's.
    """
    photos = _joined(arranged, splits)
    labelled = _labelled(photos, labels)
    rest = {id: place for id, place in photos.items() if not labels.has(place)}
    others = arranged.photos.get(UNLABELED, {})
    if not labelled or not rest or (others and not found.lists) or rest.keys() & others.keys():
        return
    folders = {PurePosixPath(found.photos[s][id]).parent for s, id in photos.values()}
    of_labels = {PurePosixPath(labels.of[photos[id]].file.name).parent for id in labelled}
    if not found.lists and not of_labels <= folders:
        return
    _move(arranged, rest | others, UNLABELED)
    does = "join" if others else "make"
    arranged.notes.append(
        f"{root}: {counted(len(rest), 'photo')} of {_quoted(splits)} without labels "
        f"{does + 's' if len(rest) == 1 else does} the split {UNLABELED!r}"
    )


def _hold_back(
    root: Path, arranged: Arranged, found: Found, labels: Labels, splits: Sequence[str]
) -> None:
    """Makes a split "val" of about one in five labelled photos."""
    photos = _joined(arranged, splits)
    draws = {
        id: draw_of(_name_to_draw_by(photos[id], found), _SEED)[0]
        for id in _labelled(photos, labels)
    }
    if len(draws) < 2:
        return
    limit = max(256 // HELD_BACK, min(draws.values()) + 1)  # one at least is held back
    held = [id for id, draw in draws.items() if draw < limit]
    if len(held) == len(draws):
        held.remove(max(held, key=draws.get))
    _move(arranged, {id: photos[id] for id in held}, VAL)
    place = place_of(root, found, VAL)
    arranged.notes.append(
        f"{place} {why_absent(place)}: {len(held)} of the {len(draws)} labelled photos "
        f"of {_quoted(splits)}, drawn with seed {_SEED} by their names, are held back as 'val', to "
        "measure with (a run lists them in lists/evaluation.txt)"
    )


def _name_to_draw_by(place: Place, found: Found) -> str:
    """A photo's name with its folder's, whether or not there are other folders.

    Without folders, photos that are all called alike (scene1/image.jpg) would all draw alike.
    """
    split, id = place
    return id if split in (TRAIN, ONE_SPLIT, *found.lists) else f"{split}/{id}"


def _quoted(splits: Sequence[str]) -> str:
    return " and ".join(map(repr, splits))
