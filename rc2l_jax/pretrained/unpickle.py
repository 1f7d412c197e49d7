"""Pickles of NumPy arrays, read without running what is in them.

A pickle is a program: `pickle.load` of a downloaded file runs it. Here only NumPy's own
reconstruction functions and plain containers are known, and everything else is refused by name.
"""

from __future__ import annotations

import codecs
import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from rc2l_jax.pretrained.errors import WeightsError

_reconstruct = np.zeros(0).__reduce__()[0]
_scalar = np.float32(0).__reduce__()[0]
_KNOWN = {
    # NumPy 1 and 2 write different module names for the same functions.
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): codecs.encode,  # how protocols below 3 write bytes
}


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
            return _ArrayUnpickler(file, encoding="latin1").load()
    except WeightsError as error:
        raise WeightsError(
            f"{path}: a pickle of more than NumPy arrays, not loaded: {error}. Save the weights as "
            "safetensors instead"
        ) from None
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise WeightsError(f"{path}: not a readable pickle ({error})") from error
