"""SBD's class masks (Hariharan et al., ICCV 2011) for the images of VOC 2012."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from data.archives import TarTree, repack
from data.download import Archive
from data.errors import DataError
from data.masks import MaskError
from data.records import digest
from data.sources import File
from data.trees import FolderTree, SubTree, Tree

ARCHIVE = Archive(
    "benchmark.tgz",
    (
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
        "benchmark.tgz",
    ),
    "82b4d87ceb2ed10f6038a1cba92111cb",
)
REMEDY = (
    f"put {ARCHIVE.name} there, packed ({ARCHIVE.urls[0]}, MD5 {ARCHIVE.md5}), or a folder "
    "SegmentationClassAug of converted masks."
)
_INSIDE = "benchmark_RELEASE/dataset"
_MASKS = "cls"


def find(root: Path, prepared_dir: Path) -> dict[str, File]:
    """Image id -> mask of SBD, in or below a folder; {} if SBD is not there.

    From a packed SBD the masks are first copied to an uncompressed archive below `prepared_dir`,
    whose files can be read in any order.

    Raises:
      DataError: the archive is damaged, or is not SBD's.
    """
    folder = root.parent if root.is_file() else root
    for inside in (_INSIDE, "VOCaug/dataset", "dataset", "."):
        if (folder / inside / _MASKS).is_dir():
            return _masks(FolderTree(folder / inside, (_MASKS,)))
    archive = folder / ARCHIVE.name
    if not archive.is_file():
        return {}
    stat = archive.stat()
    version = digest(str(archive), str(stat.st_size), str(stat.st_mtime_ns))
    unpacked = prepared_dir / "voc_semseg" / f"sbd-{version}.tar"
    if not unpacked.is_file():
        repack(archive, unpacked, lambda name: name.startswith(f"{_INSIDE}/{_MASKS}/"))
    found = _masks(SubTree(TarTree(unpacked), _INSIDE))
    if not found:
        unpacked.unlink()
        raise DataError(
            f"{archive}: is not SBD's {ARCHIVE.name}: it holds no {_INSIDE}/{_MASKS}/*.mat; "
            + REMEDY
        )
    return found


def _masks(tree: Tree) -> dict[str, File]:
    return {
        name.rpartition("/")[2].removesuffix(".mat"): (tree, name)
        for name in tree.names
        if name.endswith(".mat")
    }


def read_ids(content: bytes, where: str) -> np.ndarray:
    """Reads GTcls.Segmentation of a .mat file: uint8 [H, W], ids as VOC's, no void.

    Raises:
      MaskError: the file is damaged, or is not one of SBD's.
    """
    try:
        found = scipy.io.loadmat(io.BytesIO(content))
    except Exception as error:  # damaged bytes can raise any kind of error
        raise _unreadable(where, error) from error
    return ids_in(found, where)


def ids_in(found: Mapping[str, Any], where: str) -> np.ndarray:
    """Takes GTcls.Segmentation from the variables of a .mat file: uint8 [H, W].

    Raises:
      MaskError: they are not those of one of SBD's files.
    """
    try:
        ids = found["GTcls"][0, 0]["Segmentation"]
    except Exception as error:  # the variable can be anything
        raise _unreadable(where, error) from error
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise MaskError(
            f"{where}: GTcls.Segmentation is {ids.dtype} {ids.shape}, not uint8 [H, W]."
        )
    return ids


def _unreadable(where: str, error: Exception) -> MaskError:
    return MaskError(
        f"{where}: cannot be read as one of SBD's .mat files ({error}); unpack it again."
    )
