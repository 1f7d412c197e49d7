"""The training loop: takes the steps, and logs, evaluates and saves when that is due."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from rc2l_jax.evaluation.evaluate_run import (
    EVALUATION_COMPILES,
    evaluate_networks,
    write_curves,
    write_figures,
)
from rc2l_jax.evaluation.scores import better, build_results, losses_of
from rc2l_jax.input_pipeline.train_batches import TrainBatches, train_batches
from rc2l_jax.reports import alarms
from rc2l_jax.reports.examples import unlabeled_picture
from rc2l_jax.reports.log import Clock, say
from rc2l_jax.run.interruption import Interrupted
from rc2l_jax.run.startup import topology
from rc2l_jax.run.storage import StorageError, finite
from rc2l_jax.structs import Batch, TrainState
from rc2l_jax.training.averages import accumulate, summarize
from rc2l_jax.training.session import Training, save


class TrainingError(ValueError):
    """Too many steps in a row were not finite. The last good state is in a checkpoint."""


def train(
    training: Training,
    state: TrainState,
    step_fn: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]],
) -> TrainState:
    """Takes the steps from `state.step` to `config.num_steps`; logs, evaluates and saves.

    Metrics are summed on the device, so that between two logs nothing waits for it.

    Args:
      training: what the loop needs besides the state.
      state: the state to start from, replicated over devices.
      step_fn: maps a state and a batch to the next state and metrics.

    Returns:
      The state after the last step.

    Raises:
      Interrupted: a signal asked the run to stop; the state is saved.
      StorageError: the run directory cannot be written.
      TrainingError: too many steps in a row were not finite.
      DataError: an example cannot be used (see `config.on_bad_example`).
    """
    config, first = training.config, int(state.step)
    clock = Clock(first, config.num_steps)
    try:
        if training.owes_evaluation:
            with training.stop.at_once():
                batch = next(batches_from(training, first - 1))
            evaluate_state(training, state, batch)
        batches = batches_from(training, first)
        training.bad = batches.bad
        for step in range(first + 1, config.num_steps + 1):
            training.stop.check()
            # Waiting for the disk may take long, so a signal may end it at once.
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
                    training.total = None  # another config or version has other metrics
            training.total = accumulate(training.total, metrics)
            finish_step(training, step, state, batch, clock)
    except Interrupted:
        save_now(training, state, "saved; the same command goes on from there")
        raise
    return state


def batches_from(training: Training, step: int) -> TrainBatches:
    """Returns this process's training batches; the first is the one that step `step + 1` takes."""
    return train_batches(training.config, training.data, step, *topology())


@contextlib.contextmanager
def kept_on_error(training: Training, state: TrainState) -> Iterator[None]:
    """Saves the state if an error is raised while the context is open, so that no steps are lost.

    With several processes it does not: all of them must save together, and only one has the error.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception:
        if jax.process_count() == 1:
            with contextlib.suppress(Exception):  # the first error is the one to report
                save_now(training, state, "saved before the run ends by an error")
        raise


def save_now(training: Training, state: TrainState, said: str) -> None:
    """Saves the state, waits until it is written, and says so; nothing before the first step."""
    save(training, state)
    training.checkpoints.wait()
    if step := training.saved_step:
        say(f"checkpoint of step {step} {said}")


def finish_step(
    training: Training, step: int, state: TrainState, batch: Batch, clock: Clock
) -> None:
    """Logs, evaluates and saves after a step, each if it is due."""
    config = training.config
    evaluates = step == config.num_steps or step % config.eval_every_steps == 0
    logs = evaluates or step % config.log_every_steps == 0
    if logs:
        log(training, step, state, clock)
    if evaluates:
        training.owes_evaluation = True
        with kept_on_error(training, state):
            evaluate_state(training, state, batch)
    if evaluates or step % config.checkpoint_every_steps == 0:
        save(training, state)
    if logs:
        clock.restart(step)


def log(training: Training, step: int, state: TrainState, clock: Clock) -> None:
    """Reports the means of the metrics since the last log, and warnings about them.

    Raises:
      TrainingError: the last `config.max_nonfinite_steps` steps, or more, were not finite.
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
    """Ends the run after saving the last good state and writing nonfinite.json.

    Args:
      training: what the loop needs besides the state.
      state: the state; the last `steps` steps changed only its step number.
      steps: how many steps in a row, up to now, were not finite.
      terms: {term: number of steps since the last log in which it was not finite}.
      before: metrics of the log before.

    Raises:
      TrainingError: always.
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


def evaluate_state(training: Training, state: TrainState, batch: Batch) -> None:
    """Evaluates student and teacher of `state`; writes scores, figures and results.json.

    The unlabelled images of `batch` are shown.
    """
    step = int(state.step)
    networks = {
        "student": {"params": state.params, "batch_stats": state.batch_stats},
        "teacher": state.teacher,
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
    """Shows the first device's unlabelled images as a step that starts from `state` would see them.

    With `accumulate_steps` above 1 this is not exact: for CutMix, a step pairs the images of each
    part, but the picture pairs those of the whole batch. None if there are no unlabelled images or
    `num_pictures` is 0.
    """
    if not training.config.num_pictures or not batch.unlabeled_image.shape[1]:
        return None
    shown = [np.asarray(x.addressable_shards[0].data)[0] for x in training.views(state, batch)]
    shown.append(batch.unlabeled_label[0])
    shown = [x[: training.config.num_pictures] for x in shown]
    return unlabeled_picture(*shown, training.data.dataset.class_names)
