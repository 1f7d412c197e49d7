"""Checksums of what a checkpoint holds, by which a bit that a disk has flipped is noticed.

They are taken of the arrays in memory and kept with the checkpoint's metadata. So they appear with
the checkpoint, wherever it lies and however many processes write it, and a part that is read alone
can be checked alone. (A store has checksums for some of its files only.)
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from rc2l_jax.run.leaves import Leaves

# The entries of the metadata that hold the checksums of arrays, and of all other entries.
# Checkpoints of former versions have neither.
_OF_ARRAYS, _OF_REST = "checksums", "metadata_checksum"


def with_checksums(metadata: Mapping[str, Any], leaves: Leaves) -> dict[str, Any]:
    """Returns the metadata with checksums of itself and of the arrays {path: array}."""
    return dict(metadata) | {_OF_ARRAYS: _of_arrays(leaves), _OF_REST: _of_values(metadata)}


def checked(metadata: Mapping[str, Any], leaves: Leaves) -> dict[str, Any]:
    """Returns the metadata without the checksums, after comparing them with what was read.

    Args:
      metadata: as `with_checksums` returned it.
      leaves: {path: array}, some or all of the arrays. Nothing is compared if there are no
        checksums, as in checkpoints of former versions.

    Raises:
      ValueError: something is not as it was saved.
    """
    rest = {key: x for key, x in metadata.items() if key not in (_OF_ARRAYS, _OF_REST)}
    if _OF_ARRAYS not in metadata and _OF_REST not in metadata:
        return rest
    stored = metadata.get(_OF_ARRAYS, {})
    changed = ["metadata"] if metadata.get(_OF_REST) != _of_values(rest) else []
    changed += [name for name, total in _of_arrays(leaves).items() if stored.get(name) != total]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ValueError(f"{changed[0]}{more}: not as it was saved, so the disk has changed it")
    return rest


def _of_arrays(leaves: Leaves) -> dict[str, int]:
    # In threads, as a large network's state has gigabytes: zlib lets other threads run meanwhile.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        sums = list(pool.map(_of_array, leaves.values()))
    return {"/".join(path): total for path, total in zip(leaves, sums)}


def _of_array(array: np.ndarray) -> int:
    array = np.asarray(array)
    kind = f"{array.dtype} {array.shape}".encode()
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8), zlib.crc32(kind))


def _of_values(metadata: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
