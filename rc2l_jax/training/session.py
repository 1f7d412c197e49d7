"""What a training run carries besides its `TrainState`, and how that is saved and read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rc2l_jax.input_pipeline.bad_examples import BadExamples
from rc2l_jax.input_pipeline.subsets import RunData
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.reports.log import say
from rc2l_jax.reports.writer import Report
from rc2l_jax.run.checkpoints import Checkpoints
from rc2l_jax.run.directory import check_still_there
from rc2l_jax.run.interruption import StopRequest
from rc2l_jax.run.storage import finite, storage_errors
from rc2l_jax.structs import Batch, TrainState
from rc2l_jax.training.averages import Totals
from rc2l_jax.training.pseudo_label_history import PseudoLabelHistory


@dataclasses.dataclass
class Training:
    """What the loop needs and updates, besides the `TrainState`.

    Attributes:
      config: the run's, with the keys of `configs/base.py`.
      model: the architecture of student and teacher.
      data: the data set and the run's subsets of it.
      views: makes the views that pictures show, see `devices.parallel_views`.
      checkpoints: the run's checkpoints.
      report: writes numbers and pictures into the run directory.
      stop: knows whether a signal asked the run to stop.
      best: the best evaluation so far, see `scores.better`; None before the first one.
      metrics: means over the steps of the last log.
      total: {name: (sum, count)} of the steps since the last log; None if there were none.
      owes_evaluation: whether the last step should have been evaluated and was not yet.
      has_evaluated: whether this process has evaluated, and so has compiled the evaluation.
      saved_step: the step of the newest checkpoint; 0 if there is none.
      bad: the examples that this process could not use since it started.
      pseudo_labels: the history of a few images' pseudo labels; None if this process draws none.
      after_evaluation: called with the step after each evaluation.
    """

    config: ConfigDict
    model: MaskFormer
    data: RunData
    views: Callable[[TrainState, Batch], tuple[jax.Array, ...]]
    checkpoints: Checkpoints
    report: Report
    stop: StopRequest
    best: dict[str, Any] | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    total: Totals | None = None
    owes_evaluation: bool = False
    has_evaluated: bool = False
    saved_step: int = 0
    bad: BadExamples | None = None
    pseudo_labels: PseudoLabelHistory | None = None
    after_evaluation: Callable[[int], None] | None = None


def resume(training: Training, template: TrainState) -> TrainState:
    """Returns the newest checkpoint's state, and sets `training` to what it was at that step.

    `template` is a state of the same model and optimiser; its structure and shapes are used.

    Raises:
      CheckpointError: the checkpoint cannot be read, or is of another model.
    """
    state, metadata = training.checkpoints.restore(template)
    training.best, training.metrics = metadata["best"], metadata["metrics"]
    training.owes_evaluation, training.saved_step = metadata["owes_evaluation"], int(state.step)
    if metadata["total"]:
        training.total = {name: tuple(map(np.float32, x)) for name, x in metadata["total"].items()}
    say(f"resuming from the checkpoint of step {training.saved_step}")
    return state


def save(training: Training, state: TrainState) -> None:
    """Starts to write a checkpoint, unless this step has one already."""
    step = int(state.step)
    if step == training.saved_step:
        return
    with storage_errors(training.report.workdir):
        check_still_there(training.report.workdir)
    total = jax.device_get(training.total) or {}
    metadata = {
        "config": training.config.to_dict(),
        "best": training.best,
        "metrics": finite(training.metrics),
        "total": {name: [float(x) for x in pair] for name, pair in total.items()},
        "owes_evaluation": training.owes_evaluation,
    }
    training.checkpoints.save(state, metadata)
    training.saved_step = step
