"""The training loop: steps, and what is due after them."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rc2l_jax.evaluation.evaluate_run import (
    EVALUATION_COMPILES,
    evaluate_networks,
    write_curves,
    write_figures,
)
from rc2l_jax.evaluation.scores import better, build_results, losses_of
from rc2l_jax.input_pipeline.bad_examples import BadExamples
from rc2l_jax.input_pipeline.subsets import RunData
from rc2l_jax.input_pipeline.train_batches import TrainBatches, train_batches
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.reports.examples import unlabeled_picture
from rc2l_jax.reports.log import Clock, say
from rc2l_jax.reports.writer import Report
from rc2l_jax.run.checkpoints import Checkpoints
from rc2l_jax.run.directory import check_still_there
from rc2l_jax.run.interruption import Interrupted, StopRequest
from rc2l_jax.run.startup import topology
from rc2l_jax.run.storage import StorageError, finite, storage_errors
from rc2l_jax.structs import Batch, TrainState
from rc2l_jax.training import alarms
from rc2l_jax.training.averages import Totals, accumulate, summarize
from rc2l_jax.training.pseudo_label_history import PseudoLabels


class TrainingError(ValueError):
    """A run whose numbers do not allow it to go on; its last good state is kept."""


@dataclasses.dataclass
class Training:
    """What the loop carries besides the `TrainState`.

    Attributes:
      config: see `configs/base.py`.
      model: of student and teacher.
      data: the data set and the run's subsets of it.
      views: see `views.parallel_views`.
      checkpoints, report: of the run directory.
      stop: whether somebody asked for an end.
      best: see `evaluate.better`; None before the first evaluation.
      metrics: of the last logged steps.
      total: of the steps since the last log; None if there was none.
      owes_evaluation: the last step's evaluation was interrupted.
      has_evaluated: this process has, so that the next evaluation need not compile.
      saved_step: of the newest checkpoint.
      bad: the examples that this process could not use since it started.
      pseudo_labels: of a few images, evaluation after evaluation; None if nothing is shown here.
      after_evaluation: see `train.train_and_evaluate`.
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
    pseudo_labels: PseudoLabels | None = None
    after_evaluation: Callable[[int], None] | None = None


def resume(training: Training, template: TrainState) -> TrainState:
    """Returns the newest checkpoint's state, and puts `training` back to where it was."""
    state, metadata = training.checkpoints.restore(template)
    training.best, training.metrics = metadata["best"], metadata["metrics"]
    training.owes_evaluation, training.saved_step = metadata["owes_evaluation"], int(state.step)
    if metadata["total"]:
        training.total = {name: tuple(map(np.float32, x)) for name, x in metadata["total"].items()}
    say(f"resuming from the checkpoint of step {training.saved_step}")
    return state


def train(
    training: Training,
    state: TrainState,
    step_fn: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]],
) -> TrainState:
    """Takes the steps from `state.step` to `config.num_steps`; logs, evaluates and saves.

    Between two logged steps nothing waits for the device: metrics are summed there.

    Raises:
      Interrupted: `training.stop` asked for it; the state is saved.
      StorageError, TrainingError, DataError: see `train_and_evaluate`.
    """
    config, first = training.config, int(state.step)
    clock = Clock(first, config.num_steps)
    try:
        if training.owes_evaluation:
            with training.stop.at_once():
                batch = next(batches_from(training, first - 1))
            evaluate_run(training, state, batch)
        batches = batches_from(training, first)
        training.bad = batches.bad
        for step in range(first + 1, config.num_steps + 1):
            training.stop.check()
            # A disk may let us wait for long.
            with kept_on_error(training, state), training.stop.at_once():
                batch = next(batches)
            if step == first + 1:
                say("compiling the training step (a minute or two on a CPU)")
            began = time.perf_counter()
            state, metrics = step_fn(state, batch)
            if step == first + 1:
                jax.block_until_ready(metrics)
                say(f"first step, with compilation: {time.perf_counter() - began:.1f} s")
                clock.restart(step)
                if training.total is not None and training.total.keys() != metrics.keys():
                    training.total = None  # of another config or version: other means
            training.total = accumulate(training.total, metrics)
            finish_step(training, step, state, batch, clock)
    except Interrupted:
        save(training, state)
        training.checkpoints.wait()
        say(f"checkpoint of step {int(state.step)} saved; the same command goes on from there")
        raise
    return state


def batches_from(training: Training, step: int) -> TrainBatches:
    """This process's training batches, the first of them that of `step`."""
    return train_batches(training.config, training.data, step, *topology())


@contextlib.contextmanager
def kept_on_error(training: Training, state: TrainState) -> Iterator[None]:
    """Within it an error costs no steps: the state is saved before the run ends.

    With many processes it is not: a save is of all of them, and the others have no error.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception:
        if jax.process_count() == 1:
            with contextlib.suppress(Exception):  # the first error is the one to be told
                save(training, state)
                training.checkpoints.wait()
                say(f"checkpoint of step {int(state.step)} saved before the run ends by an error")
        raise


def finish_step(
    training: Training, step: int, state: TrainState, batch: Batch, clock: Clock
) -> None:
    """Logs, evaluates and saves after a step, where one of these is due."""
    config = training.config
    evaluates = step == config.num_steps or step % config.eval_every_steps == 0
    logs = evaluates or step % config.log_every_steps == 0
    if logs:
        log(training, step, state, clock)
    if evaluates:
        training.owes_evaluation = True
        with kept_on_error(training, state):
            evaluate_run(training, state, batch)
    if evaluates or step % config.checkpoint_every_steps == 0:
        save(training, state)
    if logs:
        clock.restart(step)


def log(training: Training, step: int, state: TrainState, clock: Clock) -> None:
    """Reports the mean of the metrics since the last log.

    Raises:
      TrainingError: no step was finite for too long.
    """
    steps = int(training.total["nonfinite_steps"][1])
    before, metrics = training.metrics, alarms.without_zeros(summarize(training.total))
    training.metrics, training.total = metrics, None
    say(clock.line(step, training.metrics.get("loss/total", np.nan)))
    rate = clock.rate(step)
    extra = {"data/bad_examples": training.bad.count} | ({"steps_per_second": rate} if rate else {})
    training.report.scalars(step, training.metrics | extra)
    for warning in (
        alarms.nonfinite_warning(training.metrics, steps),
        alarms.collapse_warning(training.metrics, training.config.data.num_classes),
    ):
        if warning:
            say(warning)
    nonfinite_run = int(state.nonfinite_run)
    if nonfinite_run >= training.config.max_nonfinite_steps:
        give_up(
            training, state, nonfinite_run, alarms.nonfinite_counts(training.metrics, steps), before
        )


def give_up(
    training: Training,
    state: TrainState,
    steps: int,
    terms: dict[str, int],
    before: dict[str, float],
) -> None:
    """Keeps the last good state and a report, and ends the run.

    Args:
      training: the run.
      state: unchanged since `steps` steps.
      steps: that were not finite, without a break.
      terms: see `alarms.nonfinite_counts`, of the steps since the last log.
      before: metrics of the log before.
    """
    step = int(state.step)
    report = {"step": step, "nonfinite_steps": steps, "terms": terms}
    training.report.document("nonfinite.json", report | {"metrics_before": finite(before)})
    save(training, state)
    training.checkpoints.wait()
    raise TrainingError(
        f"none of the last {steps} steps had a finite loss and gradient (step {step}; not finite: "
        f"{', '.join(terms)}). Student, teacher and optimiser of step {step - steps}, the last "
        f"finite one, are kept in the checkpoint of step {step}, and nonfinite.json says more. "
        "Lower learning_rate or unsup_weight, or use dtype = 'float32', with "
        "--allow_config_change"
    )


def save(training: Training, state: TrainState) -> None:
    """Starts to write a checkpoint, unless there is one of this step."""
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


def evaluate_run(training: Training, state: TrainState, batch: Batch) -> None:
    """Evaluates student and teacher; writes scores, figures and results.json."""
    step = int(state.step)
    networks = {
        "student": {"params": state.params, "batch_stats": state.batch_stats},
        "teacher": {"params": state.teacher_params, "batch_stats": state.teacher_batch_stats},
    }
    if not training.has_evaluated:
        say(EVALUATION_COMPILES)
    evaluation = evaluate_networks(
        training.model, networks, training.config, training.data.evaluation, training.stop
    )
    training.has_evaluated = True
    scores, report = evaluation.scores, training.report
    training.best = better(training.best, step, scores)
    training.owes_evaluation = False
    class_names = training.data.dataset.class_names
    write_figures(report, step, evaluation, training.config, class_names)
    report.picture(step, "unlabeled", picture_unlabeled(training, state, batch))
    if training.pseudo_labels is not None:
        report.picture(step, "pseudo_labels", training.pseudo_labels.picture(state), of_run=True)
    report.evaluation(step, scores, training.metrics)
    write_curves(report, step, training.config)
    report.results(
        build_results(training.config, step, scores, training.best, losses_of(training.metrics))
    )
    if training.after_evaluation is not None:
        training.after_evaluation(step)


def picture_unlabeled(training: Training, state: TrainState, batch: Batch) -> np.ndarray | None:
    """Shows the unlabelled images of the first device as the next step would see them.

    With `accumulate_steps` above 1 the step draws CutMix's partners within each part instead.
    """
    if not training.config.num_pictures or not batch.unlabeled_image.shape[1]:
        return None
    shown = [np.asarray(x.addressable_shards[0].data)[0] for x in training.views(state, batch)]
    shown.append(batch.unlabeled_label[0])
    return unlabeled_picture(*(x[: training.config.num_pictures] for x in shown))
