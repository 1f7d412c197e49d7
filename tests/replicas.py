"""Tiny replicas of the official data sets, with their archives, inner paths and file formats.

Every image is different noise. A mask shows class 0, void, and the class that `class_of` gives.
Images are a few pixels wide, so that all 12,031 of VOC are written in seconds.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

SIZE = (12, 16)  # height and width


def class_of(example: str, num_classes: int) -> int:
    """The class that an example's mask shows, besides class 0 and void."""
    return sum(example.encode()) % num_classes


def class_mask(shown: int) -> np.ndarray:
    """Class 0, a block of class `shown`, and a border of void around the block."""
    ids = np.zeros(SIZE, np.uint8)
    ids[3:9, 4:12] = 255
    ids[4:8, 5:11] = shown
    return ids


def mask_of(example: str, num_classes: int) -> np.ndarray:
    """An example's mask: `class_mask` of its class."""
    return class_mask(class_of(example, num_classes))


def image_of(example: str) -> bytes:
    """A JPEG file of noise, different for every example."""
    rng = np.random.default_rng(list(example.encode()))
    return encode(rng.integers(0, 256, (*SIZE, 3), np.uint8), "JPEG")


def encode(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=kind)
    return buffer.getvalue()


def palette_png(ids: np.ndarray) -> bytes:
    """A PNG file of indices with a palette, as VOC's masks are."""
    image = Image.fromarray(ids, "P")
    image.putpalette([value for i in range(256) for value in (i * 37 % 256, 255 - i, i)])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def sbd_mat(ids: np.ndarray) -> bytes:
    """A .mat file as SBD's cls/*.mat: GTcls, with Boundaries, Segmentation, CategoriesPresent."""
    boundaries = np.empty((20, 1), object)
    for i in range(20):
        boundaries[i, 0] = scipy.sparse.csc_matrix(ids.shape)
    struct = {
        "Boundaries": boundaries,
        "Segmentation": ids,
        "CategoriesPresent": np.setdiff1d(ids, [0]).astype(np.float64)[:, None],
    }
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"GTcls": struct}, do_compression=True)
    return buffer.getvalue()


# PASCAL VOC.


def voc_ids(count: dict[str, int]) -> dict[str, list[str]]:
    """Ids in VOC's form: split -> ids."""
    starts = {"train": 0, "val": 100_000, "aug": 200_000}
    return {s: [f"2008_{starts[s] + i:06d}" for i in range(count[s])] for s in starts}


def voc_files(ids: dict[str, list[str]]) -> Iterator[tuple[str, bytes]]:
    """The files of VOC2012: name below that folder, and content."""
    for split in ("train", "val"):
        yield f"ImageSets/Segmentation/{split}.txt", "".join(f"{n}\n" for n in ids[split]).encode()
    for example in sorted(n for names in ids.values() for n in names):
        yield f"JPEGImages/{example}.jpg", image_of(example)
    masks = [palette_png(class_mask(shown)) for shown in range(21)]
    for example in (*ids["train"], *ids["val"]):
        yield f"SegmentationClass/{example}.png", masks[class_of(example, 21)]


def sbd_files(ids: dict[str, list[str]]) -> Iterator[tuple[str, bytes]]:
    """The files of benchmark_RELEASE/dataset; SBD has masks of some train and val images, too."""
    mats = [sbd_mat(class_mask(shown) % 255) for shown in range(21)]  # SBD has no void
    for example in sorted((*ids["train"][::2], *ids["val"][::2], *ids["aug"])):
        yield f"cls/{example}.mat", mats[class_of(example, 21)]
        if example in ids["aug"][:2]:
            yield f"img/{example}.jpg", image_of(example)


# Cityscapes.


def cityscapes_ids(count: dict[str, int]) -> dict[str, list[str]]:
    """Ids in Cityscapes' form: split -> ids."""
    city = {"train": "jena", "val": "munster", "train_extra": "troisdorf"}
    return {s: [f"{city[s]}_{i:06d}_000019" for i in range(n)] for s, n in count.items()}


def label_ids_of(example: str) -> np.ndarray:
    """An example's gtFine_labelIds: the ids 0..33 in a row, beginning at another one each time."""
    return (
        ((np.arange(SIZE[0] * SIZE[1]) + sum(example.encode())) % 34).astype(np.uint8).reshape(SIZE)
    )


def leftimg8bit_files(ids: dict[str, list[str]]) -> Iterator[tuple[str, bytes]]:
    """The files of leftImg8bit."""
    for split, names in ids.items():
        for example in names:
            rng = np.random.default_rng(list(example.encode()))
            pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
            city = example.split("_")[0]
            yield f"leftImg8bit/{split}/{city}/{example}_leftImg8bit.png", encode(pixels)


def gtfine_files(
    ids: dict[str, list[str]],
    kind: str = "labelIds",
    mask: Callable[[str], np.ndarray] = label_ids_of,
) -> Iterator[tuple[str, bytes]]:
    """The files of gtFine."""
    for split in ("train", "val"):
        for example in ids[split]:
            name = f"gtFine/{split}/{example.split('_')[0]}/{example}_gtFine"
            yield f"{name}_{kind}.png", encode(mask(example))
            yield f"{name}_polygons.json", b"{}"


# Folders and archives.


def write_folder(root: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    for name, content in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], prefix: str) -> Path:
    """A tar archive with an entry for its folder `prefix`; compressed if `path` ends in .tgz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        folder = tarfile.TarInfo(prefix)
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files:
            member = tarfile.TarInfo(f"{prefix}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path
