"""Arrays that are still in their file, so that one at a time is read and converted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import BinaryIO

import numpy as np


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array in a file that is open.

    Attributes:
      shape: its shape.
      dtype: its type in the file.
      read: reads it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def read_bytes(file: BinaryIO, start: int, count: int) -> np.ndarray:
    """Reads uint8 [count] from `start` on.

    The caller knows from the file's size that `count` bytes are there.

    Raises:
      EOFError: the file has become shorter.
    """
    data = np.empty(count, np.uint8)
    file.seek(start)
    if file.readinto(data) != count:
        raise EOFError("it ends too early")
    return data
