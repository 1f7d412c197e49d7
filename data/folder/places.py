"""Finds the photos and the files of labels in a folder, and the split and the id of each.

A folder called `images` (or image, img, JPEGImages, photos) holds photos, one called `labels` (or
label, ann, annotations, mask, masks, gt, SegmentationClass) what is said of them. Such a folder's
name is left out of the files' names, and of train_masks beside train (or beside train_images)
`train` remains. Of what remains the first folder is the split, and the rest without its suffix the
id:

    images/train/a/1.jpg, labels/train/a/1.png     split train, id a/1
    train/images/1.jpg, train/labels/1.txt         split train, id 1
    ds/img/1.jpg, ds/ann/1.jpg.json                split ds, id 1
    valid/1.jpg, valid/1_mask.png                  split val, id 1
    1.jpg, 1.json                                  split all, id 1

Where VOC's lists name the splits, `data/folder/image_sets.py` makes them of what is found here.
If there is a folder `images`, only it, folders of labels beside it, and files beside it are read.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from data.errors import DataError
from data.layout import LAYOUT, ONE_SPLIT
from data.photo_suffixes import PHOTO_SUFFIXES
from data.splits import UNLABELED
from data.trees import FolderTree, Tree, check_names

Place = tuple[str, str]  # split, and example id
IMAGES, LABELS = "images", "labels"
_OF_PHOTOS = (IMAGES, "image", "img", "imgs", "jpegimages", "photos")
_OF_LABELS = (
    LABELS, "label", "ann", "annotation", "annotations", "mask", "masks", "gt", "segmentationclass",
)  # fmt: skip
# VOC's single objects, in colours of their own; and what labelme2voc draws for people.
_NOT_READ = (
    "segmentationobject", "segmentationclassvisualization", "segmentationobjectvisualization",
)  # fmt: skip
_LABEL_SUFFIXES = (".json", ".xml", ".txt", ".mat")
_MASK_ENDING = "_mask"
USUAL_SPLITS = ("train", "val", "test", UNLABELED)  # with capitals or a year, too
VALIDATION = ("valid", "validation")  # become "val" unless there is one


class File(NamedTuple):
    """A file, and where it belongs.

    Attributes:
      name: in the tree.
      split: of the example that the name belongs to.
      stem: its path in the split, without the suffix: the example's id.
      among: "images" or "labels" if it lies in such a folder, or "".
    """

    name: str
    split: str
    stem: str
    among: str

    @property
    def suffix(self) -> str:
        """The end of its name, in lower case."""
        return PurePosixPath(self.name).suffix.lower()


@dataclasses.dataclass(frozen=True)
class Found:
    """The files of a data set.

    Attributes:
      tree: the data set's folder.
      photos: split -> example id -> the photo's name.
      labels: files that may hold labels.
      lists: split -> the list that names its photos, also if it names none; where there are lists.
      unlisted: photos that lie beside lists and are in none.
      notes: what was made of lists.
    """

    tree: Tree
    photos: dict[str, dict[str, str]]
    labels: tuple[File, ...]
    lists: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unlisted: frozenset[Place] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all files that were looked at, sorted."""
        return self.tree.names


def find(root: Path, keep: Collection[str] = ()) -> Found:
    """Finds the files of a data set.

    Args:
      root: its folder.
      keep: splits that remain what they are called, as a run asks for them.

    Raises:
      DataError: there are no photos, a split's name is not allowed, or two photos have one id.
    """
    usual = (root / IMAGES).is_dir()
    tree = _usual_tree(root) if usual else FolderTree(root)
    check_names(tree)
    folders = _folders(tree.names)
    placed = (_place(name, folders) for name in tree.names)
    files = _with_usual_splits([file for file in placed if file is not None], keep)
    if usual:  # photos beside it belong to nothing
        files = [f for f in files if f.among or f.suffix in _LABEL_SUFFIXES]
    masks = _masks(files)
    photos = [f for f in files if _is_photo(f) and f not in masks]
    labels = [f for f in files if f in masks or _may_hold_labels(f)]
    if not photos:
        raise DataError(f"{root / IMAGES if usual else root}: holds no images; {LAYOUT}.")
    return Found(tree, by_split(tree, photos), tuple(labels))


def _usual_tree(root: Path) -> FolderTree:
    """The files of a folder that holds `images`, without those in folders that nobody reads."""
    wanted = (IMAGES, *_OF_LABELS)
    here = sorted(path.name for path in root.iterdir())
    # Unlike Path's, these say no where a link leads to what may not be read.
    folders = [x for x in here if x.lower() in wanted and os.path.isdir(root / x)]
    return FolderTree(root, folders, [name for name in here if os.path.isfile(root / name)])


def _folders(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Folders that hold photos or labels, as their names say.

    Returns:
      A folder's path -> ("images" or "labels", what remains of its name: "train" of train_masks).
    """
    paths = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    found, of_photos, of_labels = {}, defaultdict(list), {}
    for path in sorted(paths):
        name = PurePosixPath(path).name.lower()
        stem, _, ending = path.rpartition("_")
        if name in (*_OF_PHOTOS, *_OF_LABELS):
            found[path] = (IMAGES if name in _OF_PHOTOS else LABELS, "")
        elif ending.lower() in _OF_PHOTOS:
            of_photos[stem].append(path)
        elif ending.lower() in _OF_LABELS:
            of_labels[path] = stem
    for path, stem in of_labels.items():
        if stem in paths or stem in of_photos:  # or else it is a name like any other
            rest = PurePosixPath(stem).name
            found[path] = (LABELS, rest)
            found |= dict.fromkeys(of_photos[stem], (IMAGES, rest))
    return found


def _place(name: str, of_kind: Mapping[str, tuple[str, str]]) -> File | None:
    """Where a file belongs, by the folders of photos and labels; None if it is not read."""
    *folders, last = name.split("/")
    among = ""
    for index, folder in enumerate(folders):
        if folder.lower() in _NOT_READ:
            return None
        if kind := of_kind.get("/".join(folders[: index + 1])):
            among, rest = kind
            folders = [*folders[:index], *filter(None, [rest]), *folders[index + 1 :]]
            break
    split, *inner = folders or [ONE_SPLIT]
    stem = last.rpartition(".")[0] or last
    return File(name, split, "/".join([*inner, stem]), among)


def plain(split: str) -> str:
    """A split's name without what makes no difference: val for Val and val2017."""
    return split.lower().rstrip("0123456789")


def usual_names(splits: Iterable[str], keep: Collection[str]) -> dict[str, str]:
    """Plain names of splits -> what they are called here: val for Val, val2017 or validation.

    Of several that would become one, none does, and those to keep remain what they are.
    """
    splits = {*splits}
    counts = Counter(map(plain, splits))
    kept = {plain(split) for split in splits if split in keep and split not in USUAL_SPLITS}
    alone = [x for x in (*USUAL_SPLITS, *VALIDATION) if counts[x] == 1 and x not in kept]
    names = {name: name for name in alone if name in USUAL_SPLITS}
    if not counts["val"]:
        names |= dict.fromkeys([name for name in alone if name in VALIDATION][:1], "val")
    return names


def _with_usual_splits(files: Sequence[File], keep: Collection[str]) -> list[File]:
    """Gives splits the names that they have here, as photos spell them; labels may do otherwise."""
    names = usual_names((file.split for file in files if _is_photo(file)), keep)
    return [f._replace(split=names.get(plain(f.split), f.split)) for f in files]


def _is_photo(file: File) -> bool:
    return file.among != LABELS and file.name.lower().endswith(PHOTO_SUFFIXES)


def _may_hold_labels(file: File) -> bool:
    if file.among == LABELS:
        return True
    return file.suffix in _LABEL_SUFFIXES


def _masks(files: Sequence[File]) -> frozenset[File]:
    """PNGs that lie among photos, but are masks: NAME_mask.png, or NAME.png beside NAME.jpg."""
    if any(file.among == LABELS and file.suffix == ".png" for file in files):
        return frozenset()
    photos = [file for file in files if _is_photo(file) and file.split != UNLABELED]
    pngs = [file for file in photos if file.suffix == ".png"]
    others = {(f.split, f.stem) for f in photos if f.suffix != ".png"}
    every = {(f.split, f.stem) for f in photos}
    return frozenset(
        file
        for file in pngs
        if (file.split, file.stem) in others
        or (
            file.stem.endswith(_MASK_ENDING)
            and (file.split, file.stem.removesuffix(_MASK_ENDING)) in every
        )
    )


def _ids_for(stem: str) -> Iterable[str]:
    """The ids of examples whose labels a file of this name may hold, the likeliest first."""
    yield stem
    if stem.lower().endswith(PHOTO_SUFFIXES):  # NAME.jpg.json
        yield stem.rpartition(".")[0]
    yield stem.removesuffix(_MASK_ENDING)


def own_photo(file: File, photos: Mapping[str, Mapping[str, str]]) -> Place | None:
    """The photo that has this file's name."""
    of_split = photos.get(file.split, {})
    return next(((file.split, id) for id in _ids_for(file.stem) if id in of_split), None)


def by_split(tree: Tree, photos: Sequence[File]) -> dict[str, dict[str, str]]:
    """Split -> example id -> the photo's name, in the order of the names.

    Raises:
      DataError: two photos would have one id.
    """
    found: dict[str, dict[str, str]] = {}
    problems = []
    for file in photos:
        other = found.setdefault(file.split, {}).setdefault(file.stem, file.name)
        if other != file.name:
            problems.append(
                f"{tree.where(file.name)}: has the same name as {PurePosixPath(other).name}; "
                "remove one."
            )
    if problems:
        raise DataError(problems)
    return found
