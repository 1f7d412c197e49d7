"""Cityscapes (Cordts et al., CVPR 2016): leftImg8bit with gtFine, 19 classes.

`data.dir` holds leftImg8bit/{train,val,train_extra}/CITY/*_leftImg8bit.png and
gtFine/{train,val}/CITY/*_gtFine_labelIds.png (or _labelTrainIds.png), or the zip files they come
in. train_extra has no fine masks and serves as unlabelled images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from data import masks
from data.archives import ZipTree
from data.errors import DataError, some
from data.label_values import VOID
from data.masks import MaskError
from data.sources import File, Listing, Split, fingerprint_of, tree_source
from data.trees import FolderTree, SubTree, Tree

CLASS_NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip
# The label id (0..33, cityscapesScripts' labels.py) of each class; all other label ids are void.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NUM_LABEL_IDS = 34
COUNTS = {"train": 2_975, "val": 500}  # official
_EXTRA = "train_extra"

_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_{}.png"
_ARCHIVES = {
    "leftImg8bit": ("leftImg8bit_trainvaltest.zip", "leftImg8bit_trainextra.zip"),
    "gtFine": ("gtFine_trainvaltest.zip",),
}
_SOURCE = (
    "https://www.cityscapes-dataset.com/downloads (a free account; or: pip install "
    "cityscapesscripts && csDownload gtFine_trainvaltest.zip leftImg8bit_trainvaltest.zip)"
)

_TO_CLASS = np.full(256, VOID, np.uint8)
_TO_CLASS[list(LABEL_IDS)] = np.arange(len(LABEL_IDS))


def listing(data: ConfigDict) -> Listing:
    """Lists Cityscapes' files below `data.dir`.

    Raises:
      DataError: files are missing. (A split that does not have its official number of images is
        absent, which is an error where a config names it.)
    """
    if not data.dir:
        raise DataError(f"config.data.dir is not set; set it to Cityscapes' folder: {_SOURCE}.")
    root = Path(data.dir).expanduser().absolute()
    images, labels = _trees(root, "leftImg8bit"), _trees(root, "gtFine")
    if not labels:
        raise DataError(f"{root}: holds neither gtFine nor {_ARCHIVES['gtFine'][0]}: {_SOURCE}.")
    by_split: dict[str, list[File]] = {}
    for tree in images:
        for name in tree.names:
            if name.endswith(_IMAGE):
                by_split.setdefault(name.split("/")[0], []).append((tree, name))
    absent = {
        split: f"{root}: {len(by_split.pop(split, ()))} of the {count} images of "
        f"leftImg8bit/{split} are there; unpack {_ARCHIVES['leftImg8bit'][0]} again: {_SOURCE}."
        for split, count in COUNTS.items()
        if len(by_split.get(split, ())) != count
    }
    if _EXTRA not in by_split:
        archive = _ARCHIVES["leftImg8bit"][1]
        absent[_EXTRA] = f"{root} holds no leftImg8bit/{_EXTRA}; it is in {archive}: {_SOURCE}."
    splits = {
        s: _split(root, s, by_split[s], labels[0]) for s in (*COUNTS, _EXTRA) if s in by_split
    }
    return Listing(CLASS_NAMES, splits, absent)


def _trees(root: Path, kind: str) -> list[Tree]:
    """The trees of `kind`, "leftImg8bit" or "gtFine"; their names begin with the split's."""
    if (root / kind).is_dir():
        return [FolderTree(root / kind)]
    return [SubTree(ZipTree(root / f), kind) for f in _ARCHIVES[kind] if (root / f).is_file()]


def _split(root: Path, split: str, images: list[File], labels: Tree) -> Split:
    there = set(labels.names)
    sources, files = [], []
    for tree, name in sorted(images, key=lambda image: image[1]):
        stem = name.removesuffix(_IMAGE)
        # labelIds first, which are official: users make labelTrainIds, perhaps with other ids.
        kinds = {stem + _MASK.format(kind): kind for kind in ("labelIds", "labelTrainIds")}
        mask = next((file for file in kinds if file in there), None)
        source = tree_source(
            stem.rpartition("/")[2],
            (tree, name),
            mask and (labels, mask),
            len(CLASS_NAMES),
            missing=f"{labels.where(stem + _MASK.format('labelIds'))}: missing mask; unpack "
            f"{_ARCHIVES['gtFine'][0]} again, or use the image as an unlabelled one.",
            read=label_ids if mask and kinds[mask] == "labelIds" else masks.read_ids,
        )
        sources.append(source)
        files += [(tree, name), mask and (labels, mask)]
    if len({source.id for source in sources}) != len(sources):
        names = [s.id for s in sources]
        raise DataError(
            f"{split}: two images have the name {some([n for n in names if names.count(n) > 1])}."
        )
    return Split(tuple(sources), fingerprint_of(files), str(root))


def label_ids(content: bytes, where: str) -> np.ndarray:
    """Reads a gtFine_labelIds file: uint8 [H, W] of the 19 classes and void.

    Raises:
      MaskError: the file is not an image of ids, or has an id that Cityscapes does not have.
    """
    ids = masks.read_ids(content, where)
    if (ids >= NUM_LABEL_IDS).any():
        wrong = np.unique(ids[ids >= NUM_LABEL_IDS]).tolist()
        raise MaskError(
            f"{where}: ids {wrong} are no label ids of Cityscapes (0..{NUM_LABEL_IDS - 1}); if "
            "these are train ids, name the file ..._gtFine_labelTrainIds.png."
        )
    return _TO_CLASS[ids]
