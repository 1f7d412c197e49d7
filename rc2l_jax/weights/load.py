"""Loads pretrained weights, of another program or of a run, into our variables."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rc2l_jax.models import resnet
from rc2l_jax.structs import TrainState
from rc2l_jax.weights import dinov2, files, names, swin
from rc2l_jax.weights.errors import WeightsError

_NOT_IN_A_BACKBONE = "not part of a backbone"


@dataclasses.dataclass
class InitReport:
    """Which variables got their values from the file, and which did not.

    Attributes:
      init_from: the config's `init_from`.
      file: the weights' file, or the run directory.
      family: what the file holds, such as "MaskFormer of transformers".
      loaded: paths of our variables that were loaded.
      reinitialized: {path of ours: why it keeps its random start}.
      cut: {path of ours: how many of the file's rows it took}.
      waived: names in the file that the model has no use for.
      left_out: which of the file's networks was taken, and what is beside it; "" if nothing is.
    """

    init_from: str
    file: str
    family: str
    loaded: list[str] = dataclasses.field(default_factory=list)
    reinitialized: dict[str, str] = dataclasses.field(default_factory=dict)
    cut: dict[str, str] = dataclasses.field(default_factory=dict)
    waived: list[str] = dataclasses.field(default_factory=list)
    left_out: str = ""

    def lines(self) -> list[str]:
        """Returns the report as lines for the user."""
        lines = [f"initialized from {self.file} ({self.family}): {len(self.loaded)} arrays"]
        lines += [f"  {self.left_out}"] if self.left_out else []
        reasons: dict[str, list[str]] = {}
        for path, reason in self.reinitialized.items():
            reasons.setdefault(reason, []).append(path)
        for reason, paths in reasons.items():
            modules = sorted({path.split("/")[0] for path in paths})
            lines.append(f"  left random: {', '.join(modules)} ({len(paths)} arrays): {reason}")
        lines += [f"  in part: {path}: {what}" for path, what in self.cut.items()]
        if self.waived:
            lines.append(f"  not used: {', '.join(self.waived)}")
        return lines


def load_pretrained(
    variables: Any, config: ConfigDict, run: dict[str, np.ndarray] | None = None
) -> tuple[Any, InitReport]:
    """Puts the weights that `config.init_from` names into freshly initialised variables.

    Args:
      variables: {"params", "batch_stats"} of the model, on the host or a device.
      config: see `configs/base.py`; reads `init_from`, `init_queries` and `model`.
      run: the teacher's arrays, as `restore.teacher_of_run` returns them, if `init_from` is a run
        directory; None if it is not.

    Returns:
      Variables of the same structure (NumPy float32 where loaded), and a report of what was loaded.

    Raises:
      WeightsError: the weights cannot be found or read, or do not fit the model.
    """
    if run is not None:
        report = InitReport(config.init_from, config.init_from, names.OWN.title)
        return fit(variables, run, names.OWN, config, report), report
    path, description = files.find(config.init_from)
    _check_description(description, config, path)
    read = files.read_network(path)
    family, arrays, left_out = names.family_of(read.arrays, str(path))
    left_out = "; ".join(filter(None, (read.left_out, left_out)))
    report = InitReport(config.init_from, str(path), family.title, left_out=left_out)
    return fit(variables, arrays, family, config, report), report


def fit(
    variables: Any,
    arrays: dict[str, np.ndarray],
    family: names.Family,
    config: ConfigDict,
    report: InitReport,
) -> Any:
    """Puts a family's arrays into our variables.

    Args:
      variables: {"params", "batch_stats"} of the model.
      arrays: {the family's name: float32 array}.
      family: maps our paths to its names, and its arrays to ours.
      config: see `configs/base.py`; reads `init_queries` and `model`.
      report: gets what was loaded and what was not.

    Returns:
      Variables of the same structure, NumPy float32 where loaded.

    Raises:
      WeightsError: arrays are missing, have other shapes, or have no place in the model.
    """
    if config.model.norm == "group" and family is not names.OWN:
        raise WeightsError(
            f"{report.file}: model.norm = 'group' cannot take a ResNet's batch normalisation; use "
            "'frozen' or 'batch'"
        )
    arrays, flat = dict(arrays), flax.traverse_util.flatten_dict(variables)
    problems = []
    for key, value in flat.items():
        ours = "/".join(key[1:])
        if not family.whole and not ours.startswith("backbone/"):
            report.reinitialized[ours] = _NOT_IN_A_BACKBONE
            continue
        if re.fullmatch(family.lacks, ours):
            report.reinitialized[ours] = f"not part of a {family.title}"
            continue
        try:
            name = family.name_of(ours)
        except KeyError:
            problems.append(f"{ours} {value.shape}: a {family.title} has no such array")
            continue
        if name not in arrays:
            problems.append(f"{ours} {value.shape}: the file has no {name}")
            continue
        given = family.to_ours(ours, arrays.pop(name))
        if reason := _reason_to_leave(ours, given, value, config, report.file):
            report.reinitialized[ours] = reason
            continue
        if ours == "query_embed" and given.shape[0] > value.shape[0]:
            report.cut[ours] = (
                f"{value.shape[0]} of {given.shape[0]} queries (model.num_queries = "
                f"{given.shape[0]} takes all)"
            )
            given = given[: value.shape[0]]
        if given.shape != value.shape:
            problems.append(f"{ours} {value.shape}: {name} in the file gives {given.shape}")
            continue
        flat[key] = np.ascontiguousarray(given)
        report.loaded.append(ours)
    for name, array in arrays.items():
        if re.fullmatch(family.waived, name):
            report.waived.append(name)
        else:
            problems.append(f"{name} {array.shape} in the file: the model has no place for it")
    if problems:
        raise WeightsError(
            f"{report.file} ({family.title}) does not fit the model (check model.backbone, "
            f"model.stem, model.norm and the widths). {len(problems)} arrays do not match:\n  "
            + "\n  ".join(problems)
        )
    # Without batch normalisation "batch_stats" is empty; flattening dropped it.
    return {name: {} for name in variables} | flax.traverse_util.unflatten_dict(flat)


def _reason_to_leave(
    ours: str, given: np.ndarray, value: Any, config: ConfigDict, file: str
) -> str | None:
    """Returns why an array keeps its random start, or None if it is to be loaded.

    Only the class head and the queries may differ between the file and the model.
    """
    if ours.startswith("class_head/") and given.shape[-1] != value.shape[-1]:
        return f"{value.shape[-1] - 1} classes instead of {given.shape[-1] - 1}"
    if ours != "query_embed":
        return None
    if config.init_queries == "fresh":
        return "init_queries = 'fresh'"
    if given.shape[0] < value.shape[0]:
        raise WeightsError(
            f"{file}: has {given.shape[0]} queries and model.num_queries = "
            f"{value.shape[0]}: use at most {given.shape[0]}, or init_queries = 'fresh'"
        )
    return None


def _check_description(description: dict[str, Any], config: ConfigDict, path: Any) -> None:
    """Refuses a network that config.json says is another one, even if all array shapes fit."""
    kind = description.get("model_type", "maskformer")
    if kind in dinov2.KINDS:
        dinov2.check_description(description, config, path)
        return
    if kind not in ("maskformer", "resnet", *swin.MODEL_TYPES):
        raise WeightsError(
            f"{path}: its config.json says {kind!r}; use a MaskFormer, a ResNet, a Swin or a DINOv2"
        )
    backbone, decoder = (
        value if isinstance(value := description.get(key), dict) else {}
        for key in ("backbone_config", "decoder_config")
    )
    backbone = backbone if kind == "maskformer" else description
    _check_backbone(backbone, config.model.backbone, path)
    heads = decoder.get("decoder_attention_heads", config.model.num_heads)
    if kind == "maskformer" and heads != config.model.num_heads:
        raise WeightsError(
            f"{path}: its config.json says {heads} attention heads and model.num_heads = "
            f"{config.model.num_heads}: set model.num_heads = {heads}"
        )


def _check_backbone(description: dict[str, Any], ours: str, path: Any) -> None:
    """Refuses a backbone that is of another kind than `ours`, or has other settings."""
    kind = description.get("model_type")  # None if config.json does not say it
    if kind is not None and kind not in (
        ("resnet",) if ours in resnet.BACKBONES else swin.MODEL_TYPES
    ):
        raise WeightsError(
            f"{path}: its config.json says a backbone {kind!r} and model.backbone = {ours!r}: set "
            "model.backbone to that of the file"
        )
    if kind in swin.MODEL_TYPES:
        swin.check_settings(description, f"{path}: its config.json says")
    if description.get("downsample_in_bottleneck") or description.get("downsample_in_first_stage"):
        raise WeightsError(
            f"{path}: its config.json says a ResNet with strides elsewhere than in v1.5 "
            "(downsample_in_bottleneck, downsample_in_first_stage)"
        )


def pretrained_state(
    state: TrainState, config: ConfigDict, run: dict[str, np.ndarray] | None = None
) -> tuple[TrainState, InitReport]:
    """Starts student and teacher from the weights that `config.init_from` names.

    Args:
      state: the state of step 0.
      config: see `configs/base.py`; reads `init_from`, `init_queries` and `model`.
      run: the teacher's arrays if `init_from` is a run directory, see `load_pretrained`.

    Returns:
      The state with the loaded weights, and a report of what was loaded.

    Raises:
      WeightsError: the weights cannot be found or read, or do not fit the model.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    loaded, report = load_pretrained(variables, config, run)
    return start_from(state, loaded), report


def start_from(state: TrainState, variables: Any) -> TrainState:
    """Returns the state with `variables`, {"params", "batch_stats"}, as student and as teacher."""
    # Two copies: the state is donated to the step, so no two of its leaves may share a buffer.
    student, teacher = (jax.tree.map(jnp.array, variables) for _ in range(2))
    own = {module: teacher["params"][module] for module in state.teacher_params}
    return state.replace(
        params=student["params"],
        batch_stats=student["batch_stats"],
        teacher_params=own,
        teacher_batch_stats=teacher["batch_stats"],
    )
