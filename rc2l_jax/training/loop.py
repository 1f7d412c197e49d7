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
from rc2l_jax.input_pipeline import train_batches
from rc2l_jax.input_pipeline.bad_examples import BadExamples
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
class Run:
    """What the loop carries besides the `TrainState`.

    Attributes:
      config: see `configs/base.py`.
      model: of student and teacher.
      class_names: K names.
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
    class_names: tuple[str, ...]
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


def resume(run: Run, template: TrainState) -> TrainState:
    """Returns the newest checkpoint's state, and puts `run` back to where it was."""
    state, metadata = run.checkpoints.restore(template)
    run.best, run.metrics = metadata["best"], metadata["metrics"]
    run.owes_evaluation, run.saved_step = metadata["owes_evaluation"], int(state.step)
    if metadata["total"]:
        run.total = {name: tuple(map(np.float32, x)) for name, x in metadata["total"].items()}
    say(f"resuming from the checkpoint of step {run.saved_step}")
    return state


def train(
    run: Run,
    state: TrainState,
    step_fn: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]],
) -> TrainState:
    """Takes the steps from `state.step` to `config.num_steps`; logs, evaluates and saves.

    Between two logged steps nothing waits for the device: metrics are summed there.

    Raises:
      Interrupted: `run.stop` asked for it; the state is saved.
      StorageError, TrainingError, DataError: see `train_and_evaluate`.
    """
    config, first = run.config, int(state.step)
    clock = Clock(first, config.num_steps)
    try:
        if run.owes_evaluation:
            with run.stop.at_once():
                batch = next(train_batches.train_batches(config, first - 1, *topology()))
            evaluate_run(run, state, batch)
        batches = train_batches.train_batches(config, first, *topology())
        run.bad = batches.bad
        for step in range(first + 1, config.num_steps + 1):
            run.stop.check()
            with kept_on_error(run, state), run.stop.at_once():  # a disk may let us wait for long
                batch = next(batches)
            if step == first + 1:
                say("compiling the training step (a minute or two on a CPU)")
            began = time.perf_counter()
            state, metrics = step_fn(state, batch)
            if step == first + 1:
                jax.block_until_ready(metrics)
                say(f"first step, with compilation: {time.perf_counter() - began:.1f} s")
                clock.restart(step)
                if run.total is not None and run.total.keys() != metrics.keys():
                    run.total = None  # kept by another config, or version: its means are others
            run.total = accumulate(run.total, metrics)
            finish_step(run, step, state, batch, clock)
    except Interrupted:
        save(run, state)
        run.checkpoints.wait()
        say(f"checkpoint of step {int(state.step)} saved; the same command goes on from there")
        raise
    return state


@contextlib.contextmanager
def kept_on_error(run: Run, state: TrainState) -> Iterator[None]:
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
                save(run, state)
                run.checkpoints.wait()
                say(f"checkpoint of step {int(state.step)} saved before the run ends by an error")
        raise


def finish_step(run: Run, step: int, state: TrainState, batch: Batch, clock: Clock) -> None:
    """Logs, evaluates and saves after a step, where one of these is due."""
    config = run.config
    evaluates = step == config.num_steps or step % config.eval_every_steps == 0
    logs = evaluates or step % config.log_every_steps == 0
    if logs:
        log(run, step, state, clock)
    if evaluates:
        run.owes_evaluation = True
        with kept_on_error(run, state):
            evaluate_run(run, state, batch)
    if evaluates or step % config.checkpoint_every_steps == 0:
        save(run, state)
    if logs:
        clock.restart(step)


def log(run: Run, step: int, state: TrainState, clock: Clock) -> None:
    """Reports the mean of the metrics since the last log.

    Raises:
      TrainingError: no step was finite for too long.
    """
    steps = int(run.total["nonfinite_steps"][1])
    before, run.metrics, run.total = run.metrics, alarms.without_zeros(summarize(run.total)), None
    say(clock.line(step, run.metrics.get("loss/total", np.nan)))
    rate = clock.rate(step)
    extra = {"data/bad_examples": run.bad.count} | ({"steps_per_second": rate} if rate else {})
    run.report.scalars(step, run.metrics | extra)
    for warning in (
        alarms.nonfinite_warning(run.metrics, steps),
        alarms.collapse_warning(run.metrics, run.config.data.num_classes),
    ):
        if warning:
            say(warning)
    nonfinite_run = int(state.nonfinite_run)
    if nonfinite_run >= run.config.max_nonfinite_steps:
        give_up(run, state, nonfinite_run, alarms.nonfinite_counts(run.metrics, steps), before)


def give_up(
    run: Run, state: TrainState, steps: int, terms: dict[str, int], before: dict[str, float]
) -> None:
    """Keeps the last good state and a report, and ends the run.

    Args:
      run: the run.
      state: unchanged since `steps` steps.
      steps: that were not finite, without a break.
      terms: see `alarms.nonfinite_counts`, of the steps since the last log.
      before: metrics of the log before.
    """
    step = int(state.step)
    report = {"step": step, "nonfinite_steps": steps, "terms": terms}
    run.report.document("nonfinite.json", report | {"metrics_before": finite(before)})
    save(run, state)
    run.checkpoints.wait()
    raise TrainingError(
        f"none of the last {steps} steps had a finite loss and gradient (step {step}; not finite: "
        f"{', '.join(terms)}). Student, teacher and optimiser of step {step - steps}, the last "
        f"finite one, are kept in the checkpoint of step {step}, and nonfinite.json says more. "
        "Lower learning_rate or unsup_weight, or use dtype = 'float32', with "
        "--allow_config_change"
    )


def save(run: Run, state: TrainState) -> None:
    """Starts to write a checkpoint, unless there is one of this step."""
    step = int(state.step)
    if step == run.saved_step:
        return
    with storage_errors(run.report.workdir):
        check_still_there(run.report.workdir)
    total = jax.device_get(run.total) or {}
    metadata = {
        "config": run.config.to_dict(),
        "best": run.best,
        "metrics": finite(run.metrics),
        "total": {name: [float(x) for x in pair] for name, pair in total.items()},
        "owes_evaluation": run.owes_evaluation,
    }
    run.checkpoints.save(state, metadata)
    run.saved_step = step


def evaluate_run(run: Run, state: TrainState, batch: Batch) -> None:
    """Evaluates student and teacher; writes scores, figures and results.json."""
    step = int(state.step)
    networks = {
        "student": {"params": state.params, "batch_stats": state.batch_stats},
        "teacher": {"params": state.teacher_params, "batch_stats": state.teacher_batch_stats},
    }
    if not run.has_evaluated:
        say(EVALUATION_COMPILES)
    evaluation = evaluate_networks(run.model, networks, run.config, run.class_names, run.stop)
    run.has_evaluated = True
    scores, report = evaluation.scores, run.report
    run.best = better(run.best, step, scores)
    run.owes_evaluation = False
    write_figures(report, step, evaluation, run.config, run.class_names)
    report.picture(step, "unlabeled", picture_unlabeled(run, state, batch))
    if run.pseudo_labels is not None:
        report.picture(step, "pseudo_labels", run.pseudo_labels.picture(state), of_run=True)
    report.evaluation(step, scores, run.metrics)
    write_curves(report, step, run.config)
    report.results(build_results(run.config, step, scores, run.best, losses_of(run.metrics)))
    if run.after_evaluation is not None:
        run.after_evaluation(step)


def picture_unlabeled(run: Run, state: TrainState, batch: Batch) -> np.ndarray | None:
    """Shows the unlabelled images of the first device as the next step would see them.

    With `accumulate_steps` above 1 the step draws CutMix's partners within each part instead.
    """
    if not run.config.num_pictures or not batch.unlabeled_image.shape[1]:
        return None
    shown = [np.asarray(x.addressable_shards[0].data)[0] for x in run.views(state, batch)]
    shown.append(batch.unlabeled_label[0])
    return unlabeled_picture(*(x[: run.config.num_pictures] for x in shown))
