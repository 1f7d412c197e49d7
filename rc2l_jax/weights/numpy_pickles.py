"""Pickles of NumPy arrays, as detectron2 publishes weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from rc2l_jax.weights.errors import WeightsError
from rc2l_jax.weights.unpickle import Buildable, Maker, Refused, dictionary, plain_key, unpickle

ZIP_START = b"PK\x03\x04"  # of an archive, as torch.save writes since torch 1.6


class _Dtype(Buildable):
    """Stands for `numpy.dtype`: a type of plain numbers or texts, of either byte order."""

    def __init__(self, name: Any = "", *_: Any):
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\d{0,3}", name):
            raise ValueError("a type of numbers that is not named as NumPy names them")
        self.dtype = np.dtype(name)
        if self.dtype.kind not in "fiubUS":
            raise Refused(f"it has an array of type {self.dtype}, which is neither number nor text")

    def build(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray(Buildable):
    """Stands for `numpy.ndarray`, whose own class trusts whatever state a pickle gives it."""

    def __init__(self, *_: Any):
        self._value = np.zeros(0)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self._value.shape

    @property
    def dtype(self) -> np.dtype:
        """The array's type in the pickle."""
        return self._value.dtype

    def read(self) -> np.ndarray:
        """Returns the array."""
        return self._value

    def build(self, state: Any) -> None:
        """Takes NumPy's state: version, shape, type, order and bytes."""
        _, shape, dtype, fortran_order, data = state
        self._value = _from_bytes(data, dtype, shape, "F" if fortran_order else "C").read()


def _from_bytes(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> PickledArray:
    if not isinstance(dtype, _Dtype):
        raise ValueError("an array without a type")
    data = data.encode("latin1") if isinstance(data, str) else data
    flat, array = np.frombuffer(data, dtype.dtype), PickledArray()
    if order == "K" and axes is not None:  # the data are in C order of permuted axes
        array._value = flat.reshape(shape).transpose(axes)
    else:
        array._value = flat.reshape(shape, order=order)
    return array


def _scalar(dtype: Any, data: Any) -> PickledArray:
    return _from_bytes(data, dtype, (), "C")


def _encode(text: Any = "", encoding: Any = "latin1") -> bytes:
    """Stands for `_codecs.encode` and `bytes`, by which protocols below 3 write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes that are not written as Python writes them")
    return text.encode("latin1")


def _path(*parts: Any) -> str:
    """Stands for paths, which training programs save among their options."""
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("a path that is no text")
    return "/".join(parts)


# What stands for the names in pickles of plain containers and NumPy arrays.
KNOWN: dict[str, Any] = {
    "numpy.ndarray": Maker(PickledArray),
    "numpy.dtype": Maker(_Dtype),
    "collections.OrderedDict": Maker(dictionary),
    "collections.Counter": Maker(dictionary),  # in the states of schedulers
    "argparse.Namespace": Maker(dictionary),  # its attributes are not read
    "pathlib.PosixPath": Maker(_path),
    "pathlib.WindowsPath": Maker(_path),
    "builtins.set": Maker(lambda items=(): set(map(plain_key, items))),
    "builtins.frozenset": Maker(lambda items=(): frozenset(map(plain_key, items))),
    "builtins.bytes": Maker(_encode),
    "_codecs.encode": Maker(_encode),
}
for _core in ("numpy.core", "numpy._core"):  # names in NumPy 1 and 2
    KNOWN[f"{_core}.multiarray._reconstruct"] = Maker(PickledArray)
    KNOWN[f"{_core}.multiarray.scalar"] = Maker(_scalar)
    KNOWN[f"{_core}.numeric._frombuffer"] = Maker(_from_bytes)  # used by protocol 5


def load_pickle(path: Path) -> Any:
    """Loads NumPy arrays, numbers, strings and plain containers from a pickle of any protocol.

    Returns:
      What the pickle holds, with a `PickledArray` for each array.

    Raises:
      WeightsError: the file is damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(ZIP_START)) == ZIP_START:
                raise WeightsError(f"{path}: written by torch.save; name it {path.stem}.pth")
            file.seek(0)
            return unpickle(file, KNOWN)
    except WeightsError:
        raise
    except Refused as error:
        raise WeightsError(
            f"{path}: a pickle of more than NumPy arrays, not loaded: {error}. Save the weights as "
            "safetensors instead"
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise WeightsError(f"{path}: not a readable pickle ({error})") from error
