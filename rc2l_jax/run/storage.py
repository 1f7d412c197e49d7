"""Writing into a run directory: one kind of error, a check for room on the disk, and JSON files."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from data.whole_files import write_text


class StorageError(ValueError):
    """A run directory that cannot be written: the disk is full, or permissions are missing."""


@contextlib.contextmanager
def storage_errors(path: epath.Path) -> Iterator[None]:
    """While the context is open, any error is raised as StorageError that names `path`.

    All kinds are caught, because TensorFlow and TensorStore do not raise OSError for a full disk.
    Errors of this package pass unchanged: they already say what is wrong.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith("rc2l_jax."):
            raise
        raise StorageError(
            f"{path} cannot be written ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}). What was complete is still there: make room, "
            "or mend the permissions, and the same command goes on"
        ) from error


def is_local(path: epath.Path) -> bool:
    """Returns whether a path is in this machine's file system, and not in a bucket."""
    return "://" not in os.fspath(path)


def check_room(path: epath.Path, size: int) -> None:
    """Raises StorageError if `path` is on a local disk with less than `size` bytes left.

    Called before a save begins; a bucket, or a folder that does not exist yet, is not checked.
    """
    if not is_local(path) or not path.exists():
        return
    free = shutil.disk_usage(path).free
    if free < size:
        raise StorageError(
            f"{path} cannot be written: a checkpoint needs {size / 2**20:.1f} MiB, and the disk "
            f"has {free / 2**20:.1f} MiB left. What was complete is still there: make room, or set "
            "keep_checkpoints lower, and the same command goes on"
        )


def finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Replaces numbers that JSON cannot hold (NaN, infinities) by None."""
    return {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}


def write_json(path: epath.Path, value: Any) -> None:
    """Writes a JSON file; a reader sees the former file or the new one, never half of it."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
