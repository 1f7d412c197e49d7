"""Pretrained weights in: a checkpoint of another program -> our variables."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rc2l_jax.structs import TrainState
from rc2l_jax.weights import files, names
from rc2l_jax.weights.errors import WeightsError

_NOT_IN_A_BACKBONE = "not part of a backbone"


@dataclasses.dataclass
class InitReport:
    """What became of the weights.

    Attributes:
      init_from: as in the config.
      file: the weights' file.
      family: what it holds.
      loaded: our paths that got their values.
      reinitialized: our paths that keep their random start, and why.
      cut: our paths that got the first of more rows, and how many.
      waived: names in the file that mean nothing to the model.
    """

    init_from: str
    file: str
    family: str
    loaded: list[str] = dataclasses.field(default_factory=list)
    reinitialized: dict[str, str] = dataclasses.field(default_factory=dict)
    cut: dict[str, str] = dataclasses.field(default_factory=dict)
    waived: list[str] = dataclasses.field(default_factory=list)

    def lines(self) -> list[str]:
        """What to tell the user."""
        lines = [f"initialized from {self.file} ({self.family}): {len(self.loaded)} arrays"]
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
    """Puts the weights that `config.init_from` names into freshly drawn variables.

    Args:
      variables: {"params", "batch_stats"} of the model, on the host or a device.
      config: reads `init_from`, `init_queries` and `model.norm`.
      run: if `init_from` is a run directory, what is in it: see `trained.teacher_of_run`.

    Returns:
      Variables of the same structure (NumPy float32 where loaded), and what was done.

    Raises:
      WeightsError: the weights cannot be had or read, or do not fit. Nothing is half-loaded.
    """
    if run is not None:
        report = InitReport(config.init_from, config.init_from, names.OWN.title)
        return fit(variables, run, names.OWN, config, report), report
    path, description = files.find(config.init_from)
    _check_description(description, config, path)
    family, arrays = names.family_of(files.read_arrays(path), str(path))
    report = InitReport(config.init_from, str(path), family.title)
    return fit(variables, arrays, family, config, report), report


def fit(
    variables: Any,
    arrays: dict[str, np.ndarray],
    family: names.Family,
    config: ConfigDict,
    report: InitReport,
) -> Any:
    """Puts arrays by their family's names into variables; notes in `report` what was done.

    Raises:
      WeightsError: they do not fit.
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
        name = family.name_of(ours)
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
    report.waived = [name for name in arrays if re.fullmatch(family.waived, name)]
    problems += [
        f"{name} {array.shape} in the file: the model has no place for it"
        for name, array in arrays.items()
        if name not in report.waived
    ]
    if problems:
        raise WeightsError(
            f"{report.file} ({family.title}) does not fit the model (check model.backbone, "
            f"model.stem, model.norm and the widths). {len(problems)} arrays do not match:\n  "
            + "\n  ".join(problems)
        )
    # Without batch normalisation "batch_stats" is empty, and flattened away.
    return {name: {} for name in variables} | flax.traverse_util.unflatten_dict(flat)


def _reason_to_leave(
    ours: str, given: np.ndarray, value: Any, config: ConfigDict, file: str
) -> str | None:
    """Why an array that may differ keeps its random start; None if it is to be loaded."""
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
    """Refuses what config.json says the model cannot be, also where no array's shape tells."""
    kind = description.get("model_type", "maskformer")
    if kind not in ("maskformer", "resnet"):
        raise WeightsError(f"{path}: its config.json says {kind!r}; use a MaskFormer or a ResNet")
    backbone, decoder = (
        value if isinstance(value := description.get(key), dict) else {}
        for key in ("backbone_config", "decoder_config")
    )
    if kind == "maskformer" and backbone.get("model_type", "resnet") != "resnet":
        raise WeightsError(
            f"{path}: its config.json says a backbone {backbone['model_type']!r}; only ResNet "
            "is here"
        )
    heads = decoder.get("decoder_attention_heads", config.model.num_heads)
    if kind == "maskformer" and heads != config.model.num_heads:
        raise WeightsError(
            f"{path}: its config.json says {heads} attention heads and model.num_heads = "
            f"{config.model.num_heads}: set model.num_heads = {heads}"
        )
    resnet = backbone if kind == "maskformer" else description
    if resnet.get("downsample_in_bottleneck") or resnet.get("downsample_in_first_stage"):
        raise WeightsError(
            f"{path}: its config.json says a ResNet with strides elsewhere than in v1.5 "
            "(downsample_in_bottleneck, downsample_in_first_stage)"
        )


def pretrained_state(
    state: TrainState, config: ConfigDict, run: dict[str, np.ndarray] | None = None
) -> tuple[TrainState, InitReport]:
    """Starts student and teacher from the weights that `config.init_from` names.

    Args:
      state: of step 0.
      config: see `load_pretrained`.
      run: see `load_pretrained`.

    Raises:
      WeightsError: see `load_pretrained`; nothing is half-loaded.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    loaded, report = load_pretrained(variables, config, run)
    return start_from(state, loaded), report


def start_from(state: TrainState, variables: Any) -> TrainState:
    """The state with {"params", "batch_stats"} as both student and teacher."""
    # Two copies: the state is donated to the step, and no two of its leaves may share a buffer.
    student, teacher = (jax.tree.map(jnp.array, variables) for _ in range(2))
    return state.replace(
        params=student["params"],
        batch_stats=student["batch_stats"],
        teacher_params=teacher["params"],
        teacher_batch_stats=teacher["batch_stats"],
    )
