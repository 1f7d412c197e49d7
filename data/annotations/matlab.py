"""MATLAB's .mat files: a label map, or one of SBD's."""

from __future__ import annotations

import io

import numpy as np
import scipy.io

from data.masks import MaskError
from data.voc_semseg import sbd

_OF_SBD = "GTcls"


def read_ids(content: bytes, where: str) -> np.ndarray:
    """Reads the class ids of a file: SBD's GTcls, or the only matrix of whole numbers in it.

    Args:
      content: the file's bytes.
      where: the file, for messages.

    Returns:
      uint8 [H, W].

    Raises:
      MaskError: the file is not one of MATLAB's, or holds no or several such matrices.
    """
    try:
        found = scipy.io.loadmat(io.BytesIO(content))
    except NotImplementedError as error:
        raise MaskError(f"{where}: is of MATLAB's version 7.3; save it with '-v7'.") from error
    except Exception as error:  # damaged bytes can raise any kind of error
        raise MaskError(f"{where}: cannot be read as MATLAB's ({error}); save it again.") from error
    if _OF_SBD in found:
        return sbd.ids_in(found, where)
    matrices = {name: x for name, x in found.items() if not name.startswith("__") and _is_map(x)}
    if len(matrices) != 1:
        raise MaskError(
            f"{where}: holds {len(matrices)} matrices of whole numbers ({', '.join(matrices)}); "
            "save the label map alone."
        )
    (ids,) = matrices.values()
    if ids.min(initial=0) < 0 or ids.max(initial=0) > 255:
        raise MaskError(
            f"{where}: has ids from {ids.min()} to {ids.max()}; save ids from 0 to 255."
        )
    return ids.astype(np.uint8)


def _is_map(found: object) -> bool:
    """Whether a variable is a matrix of whole numbers; MATLAB keeps them as floats by default."""
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.size < 2:
        return False
    return found.dtype.kind in "bui" or (
        found.dtype.kind == "f" and bool((found == np.round(found)).all())
    )
