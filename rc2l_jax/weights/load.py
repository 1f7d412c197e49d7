"""Loads pretrained weights, of another program or of a run, into our variables."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rc2l_jax.models import resnet
from rc2l_jax.run.classes import describe_class_changes
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.stored_config import stored_class_names
from rc2l_jax.structs import TrainState
from rc2l_jax.weights import descriptions, files, names
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
    variables: Any,
    config: ConfigDict,
    run: dict[str, np.ndarray] | None = None,
    class_names: Sequence[str] = (),
) -> tuple[Any, InitReport]:
    """Puts the weights that `config.init_from` names into freshly initialised variables.

    Args:
      variables: {"params", "batch_stats"} of the model, on the host or a device.
      config: see `configs/base.py`; reads `init_from`, `init_queries` and `model`.
      run: the teacher's arrays, as `restore.teacher_of_run` returns them, if `init_from` is a run
        directory; None if it is not.
      class_names: the data set's K names, to compare with those of the weights; none if they are
        not known.

    Returns:
      Variables of the same structure (NumPy float32 where loaded), and a report of what was loaded.

    Raises:
      WeightsError: the weights cannot be found or read, or do not fit the model.
    """
    if run is not None:
        descriptions.check_run(config)
        report = InitReport(config.init_from, config.init_from, names.OWN.title)
        former = stored_class_names(run_path(config.init_from))
        changes = describe_class_changes(former, class_names)
        return fit(variables, run, names.OWN, config, report, changes), report
    path, description = files.find(config.init_from, otherwise=_from_scratch(config))
    descriptions.check_description(description, config, path)
    read = files.read_network(path)
    family, arrays, left_out = names.family_of(read.arrays, str(path))
    left_out = "; ".join(filter(None, (read.left_out, left_out)))
    report = InitReport(config.init_from, str(path), family.title, left_out=left_out)
    changes = describe_class_changes(descriptions.class_names(description), class_names)
    return fit(variables, arrays, family, config, report, changes), report


def _from_scratch(config: ConfigDict) -> str:
    """Says how to train without pretrained weights; "" if their backbone is to be kept frozen."""
    if config.model.freeze_backbone:
        return ""
    norm = " --config.model.norm=group" if config.model.backbone in resnet.BACKBONES else ""
    return f"train from scratch: --config.init_from={norm}"


def fit(
    variables: Any,
    arrays: dict[str, np.ndarray],
    family: names.Family,
    config: ConfigDict,
    report: InitReport,
    class_changes: str = "",
) -> Any:
    """Puts a family's arrays into our variables.

    Args:
      variables: {"params", "batch_stats"} of the model.
      arrays: {the family's name: float32 array}.
      family: maps our paths to its names, and its arrays to ours.
      config: see `configs/base.py`; reads `init_queries` and `model`.
      report: gets what was loaded and what was not.
      class_changes: says which classes are others than the file's, even if there are as many; ""
        if none are.

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
        if reason := _reason_to_lack(ours, family):
            report.reinitialized[ours] = reason
            continue
        try:
            name, given = _take(ours, arrays, family)
            if reason := _reason_to_leave(ours, given, value, config, report.file, class_changes):
                report.reinitialized[ours] = reason
                continue
            flat[key] = _fitted(given, value.shape, ours, name, report)
            report.loaded.append(ours)
        except _Misfit as misfit:
            problems.append(f"{ours} {value.shape}: {misfit}")
    _refuse(problems + _without_a_place(arrays, family, report), family, report)
    # Without batch normalisation "batch_stats" is empty; flattening dropped it.
    return {name: {} for name in variables} | flax.traverse_util.unflatten_dict(flat)


class _Misfit(Exception):
    """Says why an array of ours gets nothing from the file, although it should."""


def _reason_to_lack(ours: str, family: names.Family) -> str:
    """Returns why no file of this family has an array; "" if it should have it."""
    if not family.whole and not ours.startswith("backbone/"):
        return _NOT_IN_A_BACKBONE
    return f"not part of a {family.title}" if re.fullmatch(family.lacks, ours) else ""


def _take(ours: str, arrays: dict[str, np.ndarray], family: names.Family) -> tuple[str, np.ndarray]:
    """Takes the array for one of our paths out of the file's; returns its name there, and it."""
    try:
        name = family.name_of(ours)
    except KeyError:
        raise _Misfit(f"a {family.title} has no such array") from None
    if name not in arrays:
        raise _Misfit(f"the file has no {name}")
    return name, family.to_ours(ours, arrays.pop(name))


def _reason_to_leave(
    ours: str, given: np.ndarray, value: Any, config: ConfigDict, file: str, class_changes: str
) -> str:
    """Returns why an array keeps its random start, or "" if it is to be loaded.

    Only the class head and the queries may differ between the file and the model.
    """
    if ours.startswith("class_head/"):
        if given.shape[-1] != value.shape[-1]:
            return f"{value.shape[-1] - 1} classes instead of {given.shape[-1] - 1}"
        return class_changes
    if ours != "query_embed":
        return ""
    if config.init_queries == "fresh":
        return "init_queries = 'fresh'"
    if given.shape[0] < value.shape[0]:
        raise WeightsError(
            f"{file}: has {given.shape[0]} queries and model.num_queries = "
            f"{value.shape[0]}: use at most {given.shape[0]}, or init_queries = 'fresh'"
        )
    return ""


def _fitted(
    given: np.ndarray, shape: tuple[int, ...], ours: str, name: str, report: InitReport
) -> np.ndarray:
    """Returns an array of the file, of the queries only as many as the model has."""
    if ours == "query_embed" and given.shape[0] > shape[0]:
        report.cut[ours] = (
            f"{shape[0]} of {given.shape[0]} queries (model.num_queries = "
            f"{given.shape[0]} takes all)"
        )
        given = given[: shape[0]]
    if given.shape != shape:
        raise _Misfit(f"{name} in the file gives {given.shape}")
    return np.ascontiguousarray(given)


def _without_a_place(
    arrays: dict[str, np.ndarray], family: names.Family, report: InitReport
) -> list[str]:
    """Reports the file's arrays that are left over; returns those that should have had a place."""
    report.waived += [name for name in arrays if re.fullmatch(family.waived, name)]
    waived = set(report.waived)
    return [
        f"{name} {array.shape} in the file: the model has no place for it"
        for name, array in arrays.items()
        if name not in waived
    ]


def _refuse(problems: list[str], family: names.Family, report: InitReport) -> None:
    """Raises WeightsError with all problems, if there are any."""
    if problems:
        raise WeightsError(
            f"{report.file} ({family.title}) does not fit the model (check model.backbone, "
            f"model.stem, model.norm and the widths). {len(problems)} arrays do not match:\n  "
            + "\n  ".join(problems)
        )


def pretrained_state(
    state: TrainState,
    config: ConfigDict,
    run: dict[str, np.ndarray] | None = None,
    class_names: Sequence[str] = (),
) -> tuple[TrainState, InitReport]:
    """Starts student and teacher from the weights that `config.init_from` names.

    Args:
      state: the state of step 0.
      config: see `configs/base.py`; reads `init_from`, `init_queries` and `model`.
      run, class_names: see `load_pretrained`.

    Returns:
      The state with the loaded weights, and a report of what was loaded.

    Raises:
      WeightsError: the weights cannot be found or read, or do not fit the model.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    loaded, report = load_pretrained(variables, config, run, class_names)
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
