"""Validation of a run's config: every problem is found before anything is built or written.

`configs/base.py` is the schema: a config must have its keys and no others, with values of the same
types. Then each value must be in its range, and values that belong together must agree.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import base
from data.errors import counted
from rc2l_jax.models import efficientnet, resnet
from rc2l_jax.models.backbones import BACKBONES, EFFICIENTNET_KEYS, RESNET_KEYS
from rc2l_jax.run.config_values import (
    CHOICES,
    MULTIPLES_OF_32,
    NOT_EMPTY,
    OR_ZERO,
    POSITIVE,
    RANGES,
)


class ConfigError(ValueError):
    """A config that cannot be run.

    Attributes:
      problems: a sentence for each problem: the dotted key, its value and the remedy.
    """

    def __init__(self, problems: list[str]):
        self.problems = tuple(problems)
        super().__init__("config: " + "; ".join(problems))


def dotted(config: ConfigDict | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens a nested config to {dotted key: value}, in the config's order."""
    flat = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, (ConfigDict, Mapping)) and len(value):
            flat.update(dotted(value, f"{key}."))
        else:
            flat[key] = value
    return flat


def validate(config: ConfigDict, num_devices: int, *, trains: bool = True) -> None:
    """Checks keys and types against `configs/base.py`, then the values, alone and together.

    Args:
      config: the run's config.
      num_devices: devices of all processes together, which share each batch.
      trains: False if the config is only used to evaluate: then its batches need not fit the
        devices, since an evaluation's are rounded up.

    Raises:
      ConfigError: lists every problem found.
    """
    schema = dotted(base.get_config())
    given = dotted(config)
    problems = _schema_problems(given, schema)
    # Keys that are missing or of a wrong type are reported above; below, their default is checked.
    usable = {key for key, default in schema.items() if _has_type(given.get(key), default)}
    values = {key: given[key] if key in usable else schema[key] for key in schema}
    # A default can have a problem of its own (data.name is empty): do not report it as the user's.
    problems += [text for key, text in _value_problems(values) if key in usable]
    problems += _combination_problems(values)
    problems += _device_problems(values, num_devices) if trains else []
    if problems:
        raise ConfigError(problems)


def validate_options(config: ConfigDict) -> None:
    """Checks a config that only says how to predict, so that it may name no data set.

    Values are checked one by one; whether they fit together and fit the devices is not.

    Raises:
      ConfigError: lists every problem found.
    """
    schema, given = dotted(base.get_config()), dotted(config)
    problems = _schema_problems(given, schema)
    if not problems:
        problems = [text for key, text in _value_problems(given) if key not in NOT_EMPTY]
    if problems:
        raise ConfigError(problems)


def is_known(key: str) -> bool:
    """Returns whether `configs/base.py` has a value, not only a group, under this dotted key."""
    return key in dotted(base.get_config())


def nearest_key(key: str) -> str | None:
    """Returns the dotted key of `configs/base.py` that is spelled most like `key`, or None."""
    known = list(dotted(base.get_config()))
    matches = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not matches:
        by_name = {name.rsplit(".", 1)[-1]: name for name in known}
        last = key.rsplit(".", 1)[-1]
        matches = [by_name[name] for name in difflib.get_close_matches(last, by_name, n=1)]
    return matches[0] if matches else None


def unknown_key(key: str) -> str:
    """Returns the sentence that reports an unknown key, with the nearest known one."""
    nearest = nearest_key(key)
    remedy = f"did you mean {nearest!r}?" if nearest else "configs/base.py lists every key"
    return f"unknown key {key!r}: {remedy}"


def _has_type(value: Any, default: Any) -> bool:
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, tuple):
        return isinstance(value, (tuple, list))  # a list is what JSON makes of a tuple
    return type(value) is type(default)


def _schema_problems(given: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    problems = [unknown_key(key) for key in given if key not in schema]
    problems += [
        f"missing key {key!r}: start from configs/base.py, which sets it to {schema[key]!r}"
        for key in schema
        if key not in given
    ]
    problems += [
        f"{key} = {given[key]!r} is {type(given[key]).__name__}, not {type(default).__name__}"
        for key, default in schema.items()
        if key in given and not _has_type(given[key], default)
    ]
    return problems


def _value_problems(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Finds values that are wrong on their own: (key, sentence) each."""
    problems = []
    for key, choices in CHOICES.items():
        if values[key] not in choices:
            problems.append((key, f"{key} = {values[key]!r} is not one of {', '.join(choices)}"))
    for key, (low, high) in RANGES.items():
        if key in OR_ZERO and values[key] == 0:
            continue
        # NaN fails every comparison, so it is reported as well. Infinity is never allowed.
        if not (low <= values[key] <= high and values[key] < math.inf):
            allowed = f"at least {low}" if high == math.inf else f"between {low} and {high}"
            problems.append((key, f"{key} = {values[key]} must be {allowed}"))
    for key, value in values.items():
        if isinstance(value, int) and abs(value) >= 2**31 and key not in dict(problems):
            problems.append((key, f"{key} = {value} does not fit into 32 bits"))
    for key in POSITIVE:
        if not 0 < values[key] < math.inf:
            problems.append((key, f"{key} = {values[key]} must be greater than 0"))
    for key in NOT_EMPTY:
        if not values[key].strip():
            problems.append((key, f"{key} is empty: set it in the config file"))
    for key in MULTIPLES_OF_32:
        if values[key] % 32:
            text = "must be a multiple of 32, the backbone's stride"
            problems.append((key, f"{key} = {values[key]} {text}"))
    scales = values["eval.scales"]
    if not scales or not all(_has_type(x, 1.0) and 0 < x < math.inf for x in scales):
        text = "must be one or more numbers greater than 0, such as 0.5,1.0"
        problems.append(("eval.scales", f"eval.scales = {scales!r} {text}"))
    return problems


def _combination_problems(values: dict[str, Any]) -> list[str]:
    """Finds values that contradict each other."""
    problems = []
    for low, high in (("cutmix.min_area", "cutmix.max_area"), ("data.min_scale", "data.max_scale")):
        if values[low] > values[high]:
            problems.append(f"{low} = {values[low]} is above {high} = {values[high]}")
    heads, hidden = values["model.num_heads"], values["model.hidden_dim"]
    if heads > 0 and hidden % heads:
        problems.append(
            f"model.hidden_dim = {hidden} is not a multiple of model.num_heads = {heads}"
        )
    if hidden % 4:
        text = "must be a multiple of 4: sine and cosine of two axes"
        problems.append(f"model.hidden_dim = {hidden} {text}")
    problems += _backbone_problems(values)
    if values["pseudo.threshold_by_class"] and values["pseudo.source"] != "semantic":
        problems.append(
            "pseudo.threshold_by_class = True scales pseudo.pixel_threshold, which only "
            'pseudo.source = "semantic" has: set that, or threshold_by_class = False'
        )
    if values["warmup_steps"] >= values["num_steps"] > 0:
        problems.append(
            f"warmup_steps = {values['warmup_steps']} must be below num_steps = "
            f"{values['num_steps']}"
        )
    if values["unsup_weight"] > 0 and not values["data.unlabeled_split"].strip():
        problems.append(
            f"data.unlabeled_split is empty with unsup_weight = {values['unsup_weight']}: set it, "
            "or unsup_weight = 0 for supervised training"
        )
    return problems


def _backbone_problems(values: dict[str, Any]) -> list[str]:
    """Finds settings that the backbone does not have."""
    problems, name = [], values["model.backbone"]
    families = (
        ("ResNets", resnet.BACKBONES, RESNET_KEYS),
        ("EfficientNets", efficientnet.BACKBONES, EFFICIENTNET_KEYS),
    )
    schema = dotted(base.get_config())
    for family, members, keys in families:
        if name not in BACKBONES or name in members:
            continue
        for key in (f"model.{key}" for key in keys):
            if values[key] != schema[key]:
                problems.append(
                    f"{key} = {values[key]!r} is of {family}, and model.backbone = {name!r} has "
                    f"none: leave it at {schema[key]!r}"
                )
    if values["model.freeze_backbone"] and not values["init_from"]:
        problems.append(
            "model.freeze_backbone = True without init_from would freeze random weights: set "
            "init_from, or freeze_backbone = False"
        )
    return problems


def _device_problems(values: dict[str, Any], num_devices: int) -> list[str]:
    """Finds training batches that the devices cannot share equally, or that are too small.

    Each device takes its share in `accumulate_steps` parts of equal size.
    """
    semi, accumulate = values["unsup_weight"] > 0, max(values["accumulate_steps"], 1)
    parts = num_devices * accumulate
    shares = counted(num_devices, "device")
    if accumulate > 1:
        shares = f"the {parts} parts of {shares} times accumulate_steps = {accumulate}"
    problems = []
    for key in ("batch_size", "unlabeled_batch_size") if semi else ("batch_size",):
        size = values[key]
        if 0 < size < parts:
            problems.append(
                f"{key} = {size} leaves some of {shares} without an image: it must be at least "
                f"{parts}"
            )
        elif size > 0 and size % parts:
            problems.append(
                f"{key} = {size} cannot be shared equally by {shares}: take a multiple of {parts}"
                + _device_counts(size, accumulate)
            )
    if not semi:
        return problems
    unlabeled = values["unlabeled_batch_size"]
    if unlabeled == 0:
        problems.append(
            "unlabeled_batch_size = 0 with unsup_weight > 0, which needs unlabelled images: set "
            "unsup_weight = 0 for supervised training"
        )
    elif unlabeled == accumulate and values["cutmix.probability"] > 0:
        problems.append(
            f"unlabeled_batch_size = {unlabeled} leaves CutMix one image at a time, and it needs a "
            f"second one: take at least {2 * accumulate}, or set cutmix.probability = 0"
        )
    return problems


def _device_counts(size: int, accumulate: int) -> str:
    """Names the numbers of devices that can share a batch, as the end of a sentence; "" if none."""
    if size % accumulate:
        return ""
    most = size // accumulate
    counts = [str(n) for n in range(1, most + 1) if most % n == 0]
    return f", or one of {', '.join(counts)} devices"
