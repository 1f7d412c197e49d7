"""Files of safetensors, read array by array.

`safetensors.deserialize` wants the whole file in memory and copies it there, and `safe_open` gives
NumPy no bfloat16. So the library checks the file, and the bytes are read here. Format: the length
of a header (uint64), the header (JSON: name -> type, shape, first and last byte), the bytes.
"""

from __future__ import annotations

import contextlib
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from rc2l_jax.weights.errors import WeightsError
from rc2l_jax.weights.stored import StoredArray, read_bytes

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_DTYPES |= {"I64": np.int64, "I32": np.int32, "BOOL": np.bool_}


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[dict[str, StoredArray]]:
    """Opens a file of safetensors.

    Yields:
      {name: array}; the arrays can be read until the end of the block.

    Raises:
      WeightsError: the file is damaged, or has arrays of other types.
    """
    try:
        with safe_open(path, "numpy"):
            pass  # the header is well-formed, and the arrays fill the file without overlap
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            yield {name: _array(file, path, name, x, 8 + length) for name, x in header.items()}
    except (SafetensorError, OSError, EOFError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from error


def _array(
    file: BinaryIO, path: Path, name: str, entry: dict[str, Any], origin: int
) -> StoredArray:
    if entry["dtype"] not in _DTYPES:
        raise WeightsError(f"{path}: {name} is of type {entry['dtype']}, not a float")
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    start = origin + entry["data_offsets"][0]

    def read() -> np.ndarray:
        flat = read_bytes(file, start, math.prod(shape) * dtype.itemsize)
        return flat.view(dtype).reshape(shape)

    return StoredArray(shape, dtype, read)
