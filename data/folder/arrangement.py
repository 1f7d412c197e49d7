"""Makes of a folder's splits those that a run asks for, where the folder does not have them.

 - Labelled photos that lie in one split of another name are "train".
 - Photos without labels among labelled ones, where labels lie beside photos, are "unlabeled".
 - Without "val", about one in five labelled photos is held back for it. Whether a photo is depends
   on its name alone: when others come later, none moves from training to evaluation.

Each of these is said in a line, and none happens if a run names its splits otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ml_collections import ConfigDict

from data.errors import counted
from data.folder.labels import Labels, Place
from data.folder.places import IMAGES, Found
from data.layout import ONE_SPLIT
from data.splits import UNLABELED, bases, draw_of

TRAIN, VAL = "train", "val"
HELD_BACK = 5  # one in this many labelled photos is held back for evaluation
_SEED = 0


@dataclasses.dataclass
class Arranged:
    """The splits of a run.

    Attributes:
      photos: split -> example id -> the photo's place in the folder.
      notes: what was arranged.
    """

    photos: dict[str, dict[str, Place]]
    notes: list[str] = dataclasses.field(default_factory=list)


def folder_of(root: Path, split: str) -> Path:
    """The folder that holds, or would hold, the photos of a split."""
    return root / IMAGES / split if (root / IMAGES).is_dir() else root / split


def arrange(root: Path, found: Found, labels: Labels, data: ConfigDict) -> Arranged:
    """Arranges the splits of a folder.

    Args:
      root: the folder.
      found: its files.
      labels: its labels.
      data: `config.data`, of which the names of splits are read.
    """
    photos = {s: {id: (s, id) for id in ids} for s, ids in found.photos.items()}
    arranged = Arranged(photos)
    if TRAIN in bases(data.labeled_split) and TRAIN not in photos:
        _name_train(root, arranged, labels, keep=bases(data.eval_split))
    for split in bases(data.labeled_split):
        if split in photos and UNLABELED in (bases(data.unlabeled_split) or [UNLABELED]):
            _part_unlabeled(root, arranged, found, labels, split, data)
    asks = data.eval_split == VAL and VAL not in photos
    if asks and data.labeled_split in photos:
        _hold_back(root, arranged, labels, data.labeled_split)
    return arranged


def _labelled(arranged: Arranged, labels: Labels, split: str) -> list[str]:
    return [id for id, place in arranged.photos[split].items() if place in labels.of]


def _name_train(root: Path, arranged: Arranged, labels: Labels, keep: Sequence[str]) -> None:
    """Calls the only split with labels "train", unless it is one of those to keep."""
    others = [s for s in arranged.photos if s not in (UNLABELED, VAL, "test", *keep)]
    with_labels = [split for split in others if _labelled(arranged, labels, split)]
    if len(with_labels) != 1:
        return
    (split,) = with_labels
    renamed = {TRAIN if name == split else name: x for name, x in arranged.photos.items()}
    arranged.photos.clear()
    arranged.photos.update(renamed)
    where = root if split == ONE_SPLIT else folder_of(root, split)
    arranged.notes.append(f"{where}: the labelled photos there are the split {TRAIN!r}")


def _part_unlabeled(
    root: Path, arranged: Arranged, found: Found, labels: Labels, split: str, data: ConfigDict
) -> None:
    """Makes a split "unlabeled" of photos without labels, where labels lie beside photos."""
    photos = arranged.photos[split]
    labelled = set(_labelled(arranged, labels, split))
    rest = [id for id in photos if id not in labelled]
    if not labelled or not rest or UNLABELED in arranged.photos or data.unlabeled_dir:
        return
    folders = {PurePosixPath(found.photos[s][id]).parent for s, id in photos.values()}
    of_labels = {PurePosixPath(labels.of[photos[id]].file.name).parent for id in labelled}
    if not of_labels <= folders:
        return
    arranged.photos[UNLABELED] = {id: photos.pop(id) for id in rest}
    arranged.notes.append(
        f"{root}: {counted(len(rest), 'photo')} of {split!r} without labels "
        f"{'makes' if len(rest) == 1 else 'make'} the split {UNLABELED!r}"
    )


def _hold_back(root: Path, arranged: Arranged, labels: Labels, split: str) -> None:
    """Makes a split "val" of about one in five labelled photos."""
    draws = {id: draw_of(id, _SEED)[0] for id in _labelled(arranged, labels, split)}
    if len(draws) < 2:
        return
    limit = max(256 // HELD_BACK, min(draws.values()) + 1)  # one at least is held back
    held = [id for id, draw in draws.items() if draw < limit]
    if len(held) == len(draws):
        held.remove(max(held, key=draws.get))
    photos = arranged.photos[split]
    arranged.photos[VAL] = {id: photos.pop(id) for id in held}
    arranged.notes.append(
        f"{folder_of(root, VAL)} does not exist: {len(held)} of the {len(draws)} labelled photos "
        f"of {split!r}, drawn with seed {_SEED} by their names, are held back as 'val', to measure "
        "with (a run lists them in lists/evaluation.txt)"
    )
