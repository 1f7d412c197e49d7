"""Finds a network in a file, whatever training programs put around it and before its names.

Such programs save the dictionary of weights inside others ("model", "state_dict"), beside those of
other networks. And a network is a part of something larger, whose names go before those of all its
arrays: "model." in Lightning, "teacher." and "student." in a mean teacher, "resnet." in a
classifier. `files` removes what DistributedDataParallel and torch.compile add.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from data.errors import some
from rc2l_jax.weights.errors import WeightsError
from rc2l_jax.weights.numpy_pickles import PickledArray
from rc2l_jax.weights.stored import StoredArray

# Keys under which programs save the dictionary of weights inside another one, and how deep. Of
# several the first is taken, but an average goes before all of them.
_KEYS = ("model", "state_dict", "model_state_dict", "net", "network")
_MOST_DICTIONARIES = 3

# Of several networks in a file the average is taken, as in a run of this project.
_AVERAGES = frozenset(
    {"teacher", "teacher_model", "model_teacher", "ema", "ema_model", "model_ema", "ema_teacher"}
)
# Networks that learn. Of MoCo's two (versions 1 to 3) this is the one that is used, so MoCo's
# average is not among those above.
_LEARNERS = frozenset({"student", "student_model", "model_student", "encoder_q", "base_encoder"})
_PLACES = frozenset(
    {"model", "net", "network", "maskformer", "backbone", "encoder", "resnet", "swin"}
    | {"dinov2", "dinov2_with_registers"}
)
_WORDS = "|".join(sorted(_AVERAGES | _LEARNERS | _PLACES))
# mmengine's "ema_state_dict" is none of these: the average is in its "state_dict".
_AVERAGE_KEYS = _AVERAGES | {f"{key}_ema" for key in _KEYS}


class Network(NamedTuple):
    """The arrays of one network in a file.

    Attributes:
      arrays: {name without the network's prefix: array}.
      left_out: what else is in the file, in words; "" if that is nothing.
    """

    arrays: dict[str, np.ndarray]
    left_out: str


class Dictionary(NamedTuple):
    """A file's dictionary of weights.

    Attributes:
      stored: {name: what the file has by this name}.
      left_out: which networks are beside it, in words; "" if there are none.
    """

    stored: Mapping[str, Any]
    left_out: str


def unwrap(content: Any, source: str) -> Dictionary:
    """Takes the dictionary of weights out of those that programs save it in.

    Args:
      content: what the file holds.
      source: the file, for messages.

    Raises:
      WeightsError: there is no dictionary, or several averages are beside each other.
    """
    taken, left_out = [], []
    for _ in range(_MOST_DICTIONARIES):
        networks = _networks(content) if isinstance(content, Mapping) else []
        if not (key := _choose_key(networks, source)):
            break
        left_out += [other for other in networks if other != key]
        taken.append(key)
        content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{source}: holds no weights by name but {type(content).__name__}")
    if not left_out:
        return Dictionary(content, "")
    return Dictionary(content, f"taken from {'.'.join(taken)}; {some(left_out)} left out")


def _networks(content: Mapping[Any, Any]) -> list[str]:
    """Returns the keys under which a dictionary has others that hold arrays by name."""
    inside = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    # Each dictionary is looked through once, however often a file names it.
    holds = {i: _holds_arrays(value) for i, value in {id(x): x for x in inside.values()}.items()}
    return [key for key, value in inside.items() if isinstance(key, str) and holds[id(value)]]


def _holds_arrays(content: Mapping[Any, Any]) -> bool:
    """Whether a dictionary has arrays by name, or one inside that may have them."""
    return any(
        bool(value.shape)
        if isinstance(value, (StoredArray, PickledArray))
        else isinstance(value, Mapping) and (key in _KEYS or key in _AVERAGE_KEYS)
        for key, value in content.items()
    )


def _choose_key(networks: list[str], source: str) -> str | None:
    """Returns the key of the network to take; None if no key says that there is a network."""
    averages = [key for key in networks if key in _AVERAGE_KEYS]
    if len(averages) > 1:
        raise WeightsError(_unclear(averages, source))
    return next((key for key in (*averages, *_KEYS) if key in networks), None)


def _unclear(found: list[str], source: str) -> str:
    return (
        f"{source}: holds {len(found)} networks ({some(found)}), and it is not clear which to "
        "take; save one of them alone"
    )


def prefixes(names: Iterable[str], pattern: str) -> list[str]:
    """Returns the known prefixes, "" too, with which the pattern matches one of the names."""
    wrapped = re.compile(rf"((?:(?:{_WORDS})\.)*)(?:{pattern})")
    return sorted({match[1] for name in names if (match := wrapped.fullmatch(name))})


def take(arrays: Mapping[str, np.ndarray], found: list[str], whole: bool, source: str) -> Network:
    """Takes a network out of a file's arrays.

    Args:
      arrays: the file's {name: array}.
      found: the prefixes of the networks in it.
      whole: True for a whole MaskFormer, all of whose names have the prefix. Of a backbone, the
        classifier may have only the beginning of the prefix, or none.
      source: the file, for messages.

    Raises:
      WeightsError: the file has several networks and not exactly one average, or two arrays would
        have the same name.
    """
    prefix = _choose(found, source)
    parts = prefix.split(".")[:-1]
    roles = [i for i, part in enumerate(parts, 1) if part in _AVERAGES | _LEARNERS]
    needed = len(parts) if whole else max(roles, default=0)
    taken: dict[str, np.ndarray] = {}
    others: dict[str, None] = {}  # the first parts of other names, in the file's order
    for name, array in arrays.items():
        split = name.split(".")
        shared = _shared(split, parts)
        if shared < needed:
            others[split[0] if split[0] not in parts else ".".join(split[: shared + 1])] = None
        else:
            put(taken, ".".join(split[shared:]), array, source)
    if not others:
        return Network(taken, "")
    left = f"{len(arrays) - len(taken)} arrays of {some([*others])} left out"
    return Network(taken, f"taken from {prefix}*; {left}")


def put(arrays: dict[str, np.ndarray], name: str, array: np.ndarray, source: str) -> None:
    """Adds an array under its new name.

    Raises:
      WeightsError: there is one of this name.
    """
    if name in arrays:
        raise WeightsError(f"{source}: has two arrays that would both be {name}; keep one of them")
    arrays[name] = array


def _choose(found: list[str], source: str) -> str:
    """Returns the prefix of the network to take."""
    averages = [prefix for prefix in found if _AVERAGES & set(prefix.split("."))]
    for candidates in (found, averages):
        if len(candidates) == 1:
            return candidates[0]
    raise WeightsError(_unclear([f"{prefix}*" for prefix in found], source))


def _shared(name: list[str], parts: list[str]) -> int:
    """Counts how many parts a name begins with; its last part is not one of them."""
    shared = 0
    for ours, theirs in zip(name[:-1], parts):
        if ours != theirs:
            break
        shared += 1
    return shared
