"""Reads folders of images, with the masks beside them: images/{split}/... and labels/{split}/..."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data.errors import DataError, some
from data.lists import IMAGE_SUFFIXES
from data.sources import Split, fingerprint_of, tree_source
from data.trees import FolderTree, Tree

ONE_SPLIT = "all"  # the split of images that lie in no folder of their own
_LAYOUT = "expected images/{split}/NAME.jpg (or .png) and labels/{split}/NAME.png"
_UNREAD = (".tif", ".tiff", ".bmp", ".webp", ".gif")
_SPLIT_NAME = re.compile(r"[\w-]+")


def read_splits(root: Path, num_classes: int, required: Sequence[str] = ()) -> dict[str, Split]:
    """Lists images/{split}/**/NAME.jpg with labels/{split}/**/NAME.png.

    Args:
      root: the folder that holds `images` and `labels`.
      num_classes: K.
      required: splits that must be there; without them any folder below `images` is one, and
        images that lie in no folder make the split "all".

    Raises:
      DataError: folders are missing or empty, or two images would have one id.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set config.data.dir to the data set's folder.")
    wanted = [root / kind / split for kind in ("images", "labels") for split in (required or ("",))]
    if problems := [f"{f}: no such folder; {_LAYOUT}." for f in wanted if not f.is_dir()]:
        raise DataError(problems)
    images, labels = FolderTree(root / "images"), FolderTree(root / "labels")
    by_split: dict[str, list[str]] = {split: [] for split in required}
    for name in _images(images):
        split = name.split("/")[0] if "/" in name else ONE_SPLIT
        if not required or split in by_split:
            by_split.setdefault(split, []).append(name)
    problems = [
        f"{root / 'images' / split}: split {split!r} is empty; {_LAYOUT}."
        for split, names in by_split.items()
        if not names
    ]
    problems += [
        f"{root / 'images' / split}: a split's name may hold letters, digits, _ and -; rename it."
        for split in by_split
        if not _SPLIT_NAME.fullmatch(split)
    ]
    if not by_split:
        problems.append(f"{root / 'images'}: holds no images; {_LAYOUT}.")
    if others := [name for name in images.names if name.lower().endswith(_UNREAD)]:
        problems.append(
            f"{root / 'images'}: {len(others)} images cannot be read in training: {some(others)}; "
            "convert them to .png or .jpg."
        )
    if problems:
        raise DataError(problems)
    return {
        split: _split(images, labels, names, num_classes, "" if split == ONE_SPLIT else split)
        for split, names in by_split.items()
    }


def read_unlabeled(root: Path) -> Split:
    """Lists every image below a folder; none has a mask.

    Raises:
      DataError: there is no such folder, or no image in it.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; correct config.data.unlabeled_dir.")
    images = FolderTree(root)
    names = _images(images)
    if not names:
        raise DataError(f"{root}: holds no .jpg or .png images; correct config.data.unlabeled_dir.")
    return _split(images, None, names, 0, "")


def _split(
    images: Tree, labels: Tree | None, names: Sequence[str], num_classes: int, folder: str
) -> Split:
    """A split of the images `names`; ids leave out `folder` and the suffix."""
    masks_there = {_mask_key(name): name for name in labels.names} if labels else {}
    sources, files, problems = [], [], []
    seen: dict[str, str] = {}
    for name in names:
        stem = name.rpartition(".")[0]
        example = stem.removeprefix(f"{folder}/") if folder else stem
        if example in seen:
            problems.append(
                f"{images.where(name)}: has the same name as {PurePosixPath(seen[example]).name}; "
                "remove one."
            )
            continue
        seen[example] = name
        mask = f"{stem}.png"
        found = masks_there.get(_mask_key(mask))
        there = (labels, found) if found else None
        missing = f"{labels.where(mask) if labels else images.where(name)}: missing mask; add it, "
        missing += "or use the image in the unlabelled split only."
        sources.append(tree_source(example, (images, name), there, num_classes, missing=missing))
        files += [(images, name), there]
    if problems:
        raise DataError(problems)
    return Split(tuple(sources), fingerprint_of(files, str(num_classes)))


def _mask_key(name: str) -> str:
    """A mask's name, with its suffix in small letters."""
    stem, dot, suffix = name.rpartition(".")
    return stem + dot + suffix.lower()


def _images(tree: Tree) -> list[str]:
    return [name for name in tree.names if name.lower().endswith(IMAGE_SUFFIXES)]
