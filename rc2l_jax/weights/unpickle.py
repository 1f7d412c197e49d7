"""Reads pickles of NumPy arrays without running code that is in them.

A pickle is a program, and `pickle.load` runs it, which is not safe with a downloaded file. Here it
can make plain containers and the classes below, which stand for NumPy's arrays and types and hold
numbers only. Everything else is refused by name. NumPy's own classes are not used, because they
trust whatever state a pickle gives them.
"""

from __future__ import annotations

import codecs
import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from rc2l_jax.weights.errors import WeightsError


class _Dtype:
    """Stands for `numpy.dtype`: a type of plain numbers, of either byte order."""

    def __init__(self, name: str, *_: Any):
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in "fiub":
            raise WeightsError(f"it has an array of type {self.dtype}, which is no number")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for `numpy.ndarray`."""

    def __init__(self, *_: Any):
        self.value = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, data = state
        self.value = _from_bytes(data, dtype, shape, "F" if fortran_order else "C").value


def _from_bytes(
    data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str, axes: Any = None
) -> _Array:
    data = data.encode("latin1") if isinstance(data, str) else data
    flat, array = np.frombuffer(data, dtype.dtype), _Array()
    if order == "K" and axes is not None:  # the data are in C order of permuted axes
        array.value = flat.reshape(shape).transpose(axes)
    else:
        array.value = flat.reshape(shape, order=order)
    return array


def _scalar(dtype: _Dtype, data: Any) -> _Array:
    return _from_bytes(data, dtype, (), "C")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): codecs.encode,  # by which protocols below 3 write bytes
}
for _core in ("numpy.core", "numpy._core"):  # names in NumPy 1 and 2
    _KNOWN[f"{_core}.multiarray", "_reconstruct"] = _Array
    _KNOWN[f"{_core}.multiarray", "scalar"] = _scalar
    _KNOWN[f"{_core}.numeric", "_frombuffer"] = _from_bytes  # used by protocol 5


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise WeightsError(f"it wants to use {module}.{name}, which is no array") from None


def load_pickle(path: Path) -> Any:
    """Loads NumPy arrays, numbers, strings and plain containers from a pickle of any protocol.

    Raises:
      WeightsError: the file is damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            return _arrays(_ArrayUnpickler(file, encoding="latin1").load())
    except WeightsError as error:
        raise WeightsError(
            f"{path}: a pickle of more than NumPy arrays, not loaded: {error}. Save the weights as "
            "safetensors instead"
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise WeightsError(f"{path}: not a readable pickle ({error})") from error


def _arrays(stored: Any) -> Any:
    """Replaces the stand-ins for arrays, in any depth of containers, by the arrays they hold."""
    if isinstance(stored, _Array):
        return stored.value
    if isinstance(stored, dict):
        return {key: _arrays(value) for key, value in stored.items()}
    if isinstance(stored, (list, tuple)):
        return [_arrays(value) for value in stored]
    return stored
