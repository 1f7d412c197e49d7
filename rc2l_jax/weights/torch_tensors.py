"""What stands for torch's tensors and storages in its pickles; torch itself is not needed.

A storage is a run of bytes in the file, a tensor a view of it with strides. Both are descriptions
here: nothing is read before `StoredArray.read` is called, and then only what the tensor covers.
Format: torch/_utils.py (`_rebuild_tensor_v2` and its kin) and torch/storage.py.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from rc2l_jax.weights import numpy_pickles
from rc2l_jax.weights.stored import StoredArray, read_bytes
from rc2l_jax.weights.unpickle import Maker, Refused

_MAX_AXES = 32  # of an array in NumPy 1
_MORE_NUMBERS = 2**20


class Source:
    """A file of torch, and how many numbers may be read from it.

    A tensor of stride 0 repeats one number as often as it likes, and any number of tensors may
    share a storage. So a small file could ask for all memory. All tensors together may have as
    many numbers as the file has bytes, which is each number of float32 four times, and a million.

    Attributes:
      file: the file.
      size: its size in bytes.
      byteorder: the order of bytes in its numbers, as in `sys.byteorder`.
    """

    def __init__(self, file: BinaryIO, byteorder: str = "little"):
        self.file, self.byteorder = file, byteorder
        self.size = file.seek(0, 2)
        self._left = self.size + _MORE_NUMBERS

    def spend(self, numbers: int) -> None:
        """Counts numbers that are about to be read.

        Raises:
          ValueError: they are more than a file of this size may ask for.
        """
        self._left -= numbers
        if self._left < 0:
            raise ValueError("its tensors repeat the same numbers too often")


@dataclasses.dataclass(frozen=True)
class StorageType:
    """Stands for a class of storages, and for a `torch.dtype`.

    Attributes:
      dtype: the type of its numbers; None for `UntypedStorage`, whose tensors have a type each.
    """

    dtype: np.dtype | None

    @property
    def itemsize(self) -> int:
        """Bytes of a number; 1 in an `UntypedStorage`."""
        return 1 if self.dtype is None else self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Storage:
    """Stands for a storage.

    Attributes:
      source: the file it is in.
      kind: its class.
      size: its bytes. They lie within the file.
      start: finds where it begins in the file.
    """

    source: Source
    kind: StorageType
    size: int
    start: Callable[[], int]


def is_count(value: Any) -> bool:
    """Returns whether a pickle's value is a size or an offset: an integer from 0 to 2**63 - 1."""
    return type(value) is int and 0 <= value < 2**63


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, dtype: np.dtype | None
) -> StoredArray:
    """Describes a tensor, after checking that it lies within its storage."""
    if not isinstance(storage, Storage) or dtype is None:
        raise ValueError("a tensor without a storage or a type")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("a tensor without a shape or strides")
    if len(shape) != len(strides) or len(shape) > _MAX_AXES:
        raise ValueError(f"a tensor of {len(shape)} axes with {len(strides)} strides")
    if not all(map(is_count, (offset, *shape, *strides))):
        raise ValueError("a tensor whose shape, strides or offset are no sizes")
    numbers = math.prod(shape)
    span = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides)) if numbers else 0
    if numbers and (offset + span) * dtype.itemsize > storage.size:
        raise ValueError(
            f"a tensor of shape {shape} with strides {strides} from {offset} on reaches beyond its "
            f"storage of {storage.size // dtype.itemsize} numbers"
        )

    def read() -> np.ndarray:
        if not numbers:
            return np.empty(shape, dtype)
        source = storage.source
        source.spend(max(span, numbers))
        start = storage.start() + offset * dtype.itemsize
        flat = read_bytes(source.file, start, span * dtype.itemsize)
        if source.byteorder != sys.byteorder and dtype.itemsize > 1:
            flat.view(f"u{dtype.itemsize}").byteswap(inplace=True)
        steps = tuple(stride * dtype.itemsize for stride in strides)
        return np.lib.stride_tricks.as_strided(flat.view(dtype), shape, steps)

    return StoredArray(shape, dtype, read)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> StoredArray:
    dtype = storage.kind.dtype if isinstance(storage, Storage) else None
    return _tensor(storage, offset, shape, strides, dtype)


def _rebuild_tensor_v2(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any,
    hooks: Any,
    metadata: Any = None,
) -> StoredArray:
    _refuse_bits(metadata)
    return _rebuild_tensor(storage, offset, shape, strides)


def _rebuild_tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> StoredArray:
    _refuse_bits(metadata)
    dtype = dtype.dtype if isinstance(dtype, StorageType) else None
    return _tensor(storage, offset, shape, strides, dtype)


def _refuse_bits(metadata: Any) -> None:
    if metadata:
        raise Refused("it has tensors that are yet to be negated or conjugated")


def _rebuild_parameter(tensor: Any, requires_grad: Any, hooks: Any) -> StoredArray:
    if not isinstance(tensor, StoredArray):
        raise ValueError("a parameter without a tensor")
    return tensor


def _size(axes: Any = ()) -> tuple[Any, ...]:
    return tuple(axes)


def _device(*_: Any) -> None:
    return None


_STORAGES = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}
_UNTYPED_ONLY = (np.uint16, np.uint32, np.uint64)  # have no class of storages
# What stands for the names in torch's pickles.
KNOWN: dict[str, Any] = numpy_pickles.KNOWN | {
    "torch._utils._rebuild_tensor": Maker(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": Maker(_rebuild_tensor_v2),
    "torch._utils._rebuild_tensor_v3": Maker(_rebuild_tensor_v3),
    "torch._utils._rebuild_parameter": Maker(_rebuild_parameter),
    "torch.Size": Maker(_size),
    "torch.device": Maker(_device),  # in what training programs save beside the weights
    "torch.storage.UntypedStorage": StorageType(None),
}
for _name, _type in _STORAGES.items():
    KNOWN[f"torch.{_name}Storage"] = StorageType(np.dtype(_type))
for _type in (*_STORAGES.values(), *_UNTYPED_ONLY):
    KNOWN[f"torch.{np.dtype(_type).name}"] = StorageType(np.dtype(_type))
