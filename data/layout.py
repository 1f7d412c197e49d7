"""Reads folders of images, with the masks beside them: images/{split}/... and labels/{split}/..."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data.errors import DataError, counted
from data.photo_suffixes import PHOTO_SUFFIXES
from data.photos import missing_package
from data.sources import Split, fingerprint_of, tree_source
from data.trees import FolderTree, Tree, check_folder, check_names

ONE_SPLIT = "all"  # the split of images that lie in no folder of their own
SPLIT_NAME = re.compile(r"[\w-]+")
LAYOUT = "expected images/{split}/NAME.jpg (or .png) and labels/{split}/NAME.png"

_OF_MASKS = (*PHOTO_SUFFIXES, ".json", ".mat", ".txt", ".xml")


def read_splits(root: Path, num_classes: int) -> dict[str, Split]:
    """Lists images/{split}/**/NAME.jpg with labels/{split}/**/NAME.png.

    Every folder in `images` is a split.

    Args:
      root: the folder that holds `images` and `labels`.
      num_classes: K.

    Raises:
      DataError: a folder is missing or empty or may not be read, or its name cannot be a split's;
        or two images would have one id.
    """
    check_folder(root, "set config.data.dir to the data set's folder")
    wanted = [root / kind for kind in ("images", "labels")]
    if problems := [f"{f}: no such folder; {LAYOUT}." for f in wanted if not f.is_dir()]:
        raise DataError(problems)
    images, labels = FolderTree(root / "images"), FolderTree(root / "labels")
    check_names(images)
    by_split: dict[str, list[str]] = {}
    for name in _images(images):
        if "/" in name:
            by_split.setdefault(name.split("/")[0], []).append(name)
    if not by_split:
        raise DataError(f"{root / 'images'}: holds no folder of images; {LAYOUT}.")
    if problems := [
        f"{root / 'images' / split}: a split's name may hold letters, digits, _ and -; rename it."
        for split in by_split
        if not SPLIT_NAME.fullmatch(split)
    ]:
        raise DataError(problems)
    return {
        split: _labelled_split(root, images, labels, names, num_classes, split)
        for split, names in by_split.items()
    }


def read_unlabeled(root: Path) -> Split:
    """Lists every image below a folder; none has a mask.

    Raises:
      DataError: the folder is missing, may not be read or holds no image, an image has a format
        that needs a package, or two images would have one id.
    """
    check_folder(root, "correct config.data.unlabeled_dir")
    images = FolderTree(root)
    check_names(images)
    names = _images(images)
    if not names:
        raise DataError(f"{root}: holds no photos; correct config.data.unlabeled_dir.")
    if problems := missing_package(names):
        raise DataError([f"{root}: {problem}" for problem in problems])
    by_id = _by_id(images, names, "")
    sources = [
        tree_source(
            example,
            (images, name),
            None,
            0,
            missing=f"{images.where(name)}: has no mask, for config.data.unlabeled_dir holds none; "
            "use the image in the unlabelled split only.",
        )
        for example, name in by_id.items()
    ]
    fingerprint = fingerprint_of([(images, name) for name in by_id.values()])
    return Split(tuple(sources), fingerprint, str(root))


def _labelled_split(
    root: Path, images: Tree, labels: Tree, names: Sequence[str], num_classes: int, split: str
) -> Split:
    """The split of the images `names`. An id is a name without the split's folder and suffix."""
    inside = f"{split}/"
    masks = {_mask_key(name): name for name in labels.names if name.startswith(inside)}
    by_id = _by_id(images, names, inside)
    files = {example: f"{inside}{example}.png" for example in by_id}
    any_mask = any(file in masks for file in files.values())
    none = (
        f"{labels.where(split)}: holds no mask for the {counted(len(names), 'image')} of "
        f"images/{split}; put NAME.png there for NAME.jpg, or name a split that has masks."
    )
    sources, stamped = [], []
    for example, name in by_id.items():
        file = files[example]
        mask = (labels, masks[file]) if file in masks else None
        missing = none
        if any_mask:
            missing = f"{labels.where(file)}: missing mask; add it, or use the image in the "
            missing += "unlabelled split only."
        sources.append(tree_source(example, (images, name), mask, num_classes, missing=missing))
        stamped += [(images, name), mask]
    stray = sorted(masks[key] for key in masks.keys() - set(files.values()))
    notes = stray_note(labels, stray, split)
    fingerprint = fingerprint_of(stamped, str(num_classes))
    return Split(tuple(sources), fingerprint, str(root), notes)


def _by_id(images: Tree, names: Sequence[str], inside: str) -> dict[str, str]:
    """Example id -> name of its image. The id is that name without `inside` and the suffix.

    Raises:
      DataError: two images would have one id.
    """
    by_id: dict[str, str] = {}
    problems = []
    for name in names:
        example = name.rpartition(".")[0].removeprefix(inside)
        other = by_id.setdefault(example, name)
        if other != name:
            problems.append(
                f"{images.where(name)}: has the same name as {PurePosixPath(other).name}; "
                "remove one."
            )
    if problems:
        raise DataError(problems)
    return by_id


def stray_note(labels: Tree, names: Sequence[str], folder: str) -> tuple[str, ...]:
    """At most one note: on masks that belong to no image of the split.

    Args:
      labels: the tree of the masks.
      names: of those that belong to none.
      folder: of the split's masks, in the tree.
    """
    names = [name for name in names if name.lower().endswith(_OF_MASKS)]
    if not names:
        return ()
    belong = counted(len(names), "file that belongs", "files that belong")
    return (
        f"{labels.where(folder)} holds {belong} to no image, such as "
        f"{names[0].removeprefix(f'{folder}/')}: a mask has its image's name and ends in .png, or "
        "is of a format in docs/masks.md",
    )


def _mask_key(name: str) -> str:
    """A mask's name, with its suffix in lower case."""
    stem, dot, suffix = name.rpartition(".")
    return stem + dot + suffix.lower()


def _images(tree: Tree) -> list[str]:
    return [name for name in tree.names if name.lower().endswith(PHOTO_SUFFIXES)]
