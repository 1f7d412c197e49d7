"""The training loop, and evaluation of a checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import metric_writers
from ml_collections import ConfigDict

from rc2l_jax import eval_pipeline, input_pipeline
from rc2l_jax.check import describe_subset, describe_subsets, warnings
from rc2l_jax.checkpoints import Checkpoints
from rc2l_jax.compilation import keep_compiled_programs
from rc2l_jax.config import validate
from rc2l_jax.evaluate import better, build_results, evaluate, score
from rc2l_jax.metrics import accumulate, summarize
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.profiling import ProfiledStep
from rc2l_jax.report import Clock, Report, describe, describe_run, finite, losses_of, say
from rc2l_jax.rundir import check_run_config, write_json, write_run_config
from rc2l_jax.structs import Batch, TrainState
from rc2l_jax.train_state import create_train_state, pretrained_state
from rc2l_jax.train_step import parallel_train_step, replicate
from rc2l_jax.trained import restore_run
from rc2l_jax.views import parallel_views
from rc2l_jax.visualize import EvaluationPictures, unlabeled_picture

# So many steps in a row without a finite loss and gradient end the run.
MAX_NONFINITE_STEPS = 100


class TrainingError(ValueError):
    """A run that cannot go on."""


@dataclasses.dataclass
class Run:
    """What the loop carries besides the `TrainState`.

    Attributes:
      config: see `configs/base.py`.
      model: of student and teacher.
      class_names: K names.
      views: see `views.parallel_views`.
      checkpoints, report: of the run directory.
      best: see `evaluate.better`; None before the first evaluation.
      metrics: of the last logged steps.
      nonfinite_steps: how many of the last steps, without a break, were not finite.
    """

    config: ConfigDict
    model: MaskFormer
    class_names: tuple[str, ...]
    views: Callable[[TrainState, Batch], tuple[jax.Array, ...]]
    checkpoints: Checkpoints
    report: Report
    best: dict[str, Any] | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    nonfinite_steps: int = 0


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains from the newest checkpoint of `workdir`, or from the start, to `config.num_steps`.

    Args:
      config: see `configs/base.py`.
      workdir: the run directory (DESIGN: config.json, results.json, checkpoints/, figures/, ...).

    Returns:
      What results.json holds.

    Raises:
      ConfigError: the config cannot be run.
      DataError: the data set cannot be used.
      WeightsError: the weights that `init_from` names cannot be used.
      CheckpointError: the directory belongs to another config, or its checkpoint cannot be read.
      TrainingError: the loss is not finite any more.
    """
    workdir = Path(workdir).expanduser().absolute()
    start(config)
    # What is wrong with the data must show before anything is written.
    data, subsets = input_pipeline.open_subsets(config)
    used = describe_subsets(config, data, subsets)
    for change in check_run_config(workdir, config, used):
        say(f"note: {change}")
    with Checkpoints(workdir, config.keep_checkpoints) as checkpoints:
        step = checkpoints.latest_step()
        if step is not None and step >= config.num_steps:
            return finished_run(config, workdir, step)
        model, optimizer, state = create_train_state(config)
        init = None
        if step is None and config.init_from:
            state, init = pretrained_state(state, config)
        if jax.process_index() == 0:
            write_run_config(workdir, config, used)
            if init is not None:
                write_json(workdir / "init.json", dataclasses.asdict(init))
        with contextlib.closing(create_writer(workdir)) as writer:
            report = Report(workdir, writer)
            report.rewind(step or 0)
            describe_run(config, workdir, state)
            for name, entry in used.items():
                say(f"{config.data.name} {name}: {describe_subset(entry)}")
            for warning in warnings(subsets):
                say(f"warning: {warning}")
            for line in init.lines() if init else ():
                say(line)
            views = parallel_views(model, config)
            run = Run(config, model, data.class_names, views, checkpoints, report)
            if step is not None:
                state = resume(run, state)
            step_fn = parallel_train_step(model, optimizer, config)
            if config.profile:
                step_fn = ProfiledStep(step_fn, workdir, step or 0, config.num_steps)
            train(run, replicate(state), step_fn)
    return json.loads((workdir / "results.json").read_text())


def start(config: ConfigDict) -> None:
    """Validates a config, and lets JAX keep what it compiles."""
    validate(config, jax.device_count())
    keep_compiled_programs(config.compilation_cache)


def create_writer(workdir: Path) -> metric_writers.MetricWriter:
    """Returns a TensorBoard writer on process 0, and one that writes nothing elsewhere."""
    if jax.process_index():
        return metric_writers.MultiWriter([])
    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir)))


def finished_run(config: ConfigDict, workdir: Path, step: int) -> dict[str, Any]:
    """Says that there is nothing to do; evaluates only if results.json is gone."""
    say(f"{workdir} is finished: step {step} of {config.num_steps}. Nothing to do.")
    path = workdir / "results.json"
    return json.loads(path.read_text()) if path.is_file() else evaluate_checkpoint(config, workdir)


def resume(run: Run, template: TrainState) -> TrainState:
    """Returns the newest checkpoint's state, and puts `run` back to where it was."""
    state, metadata = run.checkpoints.restore(template)
    run.best, run.metrics = metadata["best"], metadata["metrics"]
    say(f"resuming from the checkpoint of step {int(state.step)}")
    return state


def train(
    run: Run,
    state: TrainState,
    step_fn: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]],
) -> TrainState:
    """Takes the steps from `state.step` to `config.num_steps`; logs, evaluates and saves.

    Between two logged steps nothing waits for the device: metrics are summed there.
    """
    config, first = run.config, int(state.step)
    clock, total = Clock(first, config.num_steps), None
    batches = input_pipeline.train_batches(config, first, *topology())
    for step, batch in zip(range(first + 1, config.num_steps + 1), batches):
        start = time.perf_counter()
        state, metrics = step_fn(state, batch)
        if step == first + 1:
            jax.block_until_ready(metrics)
            say(f"first step, with compilation: {time.perf_counter() - start:.1f} s")
            clock.restart(step)
        total = accumulate(total, metrics)

        last = step == config.num_steps
        evaluates = last or step % config.eval_every_steps == 0
        if evaluates or step % config.log_every_steps == 0:
            log(run, step, total, clock)
            total = None
        if evaluates:
            evaluate_run(run, state, batch)
        if evaluates or step % config.checkpoint_every_steps == 0:
            save(run, state)
        if total is None:
            clock.restart(step)
    return state


def topology() -> tuple[int, int, int]:
    """Returns local devices, this process's index and the number of processes."""
    return jax.local_device_count(), jax.process_index(), jax.process_count()


def log(run: Run, step: int, total: dict[str, Any], clock: Clock) -> None:
    """Reports the mean of the metrics since the last log.

    Raises:
      TrainingError: no step was finite for too long.
    """
    steps = int(total["nonfinite_steps"][1])
    run.metrics = summarize(total)
    say(clock.line(step, run.metrics["loss/total"]))
    rate = clock.rate(step)
    run.report.scalars(step, run.metrics | ({"steps_per_second": rate} if rate else {}))

    share = run.metrics["nonfinite_steps"]
    run.nonfinite_steps = run.nonfinite_steps + steps if share == 1.0 else 0
    if share:
        say(f"warning: {round(share * steps)} of the last {steps} steps not finite, and skipped")
    if run.nonfinite_steps >= MAX_NONFINITE_STEPS:
        raise TrainingError(
            f"none of the last {run.nonfinite_steps} steps had a finite loss and gradient "
            f"(step {step}): lower learning_rate or unsup_weight, or use dtype = 'float32'"
        )


def save(run: Run, state: TrainState) -> None:
    """Starts to write a checkpoint."""
    metadata = {
        "config": run.config.to_dict(),
        "best": run.best,
        "metrics": finite(run.metrics),
    }
    run.checkpoints.save(state, metadata)


def evaluate_run(run: Run, state: TrainState, batch: Batch) -> None:
    """Evaluates student and teacher; writes scores, pictures and results.json."""
    step = int(state.step)
    networks = {
        "student": {"params": state.params, "batch_stats": state.batch_stats},
        "teacher": {"params": state.teacher_params, "batch_stats": state.teacher_batch_stats},
    }
    scores, picture = evaluate_networks(run.model, networks, run.config, run.class_names)
    run.best = better(run.best, step, scores)
    run.report.picture(step, "evaluation", picture)
    run.report.picture(step, "unlabeled", picture_unlabeled(run, state, batch))
    run.report.evaluation(step, scores, run.metrics)
    run.report.results(build_results(run.config, step, scores, run.best, losses_of(run.metrics)))


def evaluate_networks(
    model: MaskFormer, networks: dict[str, Any], config: ConfigDict, class_names: tuple[str, ...]
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Returns {network: see `evaluate.score`} on `data.eval_split`, and a picture of examples."""
    pictures = EvaluationPictures(config.num_pictures)
    observe = pictures.observe if config.num_pictures else None
    batches = eval_pipeline.eval_batches(config, config.data.eval_split, *topology())
    confusions = evaluate(model, networks, batches, config, observe)
    return {name: score(x, class_names) for name, x in confusions.items()}, pictures.picture()


def picture_unlabeled(run: Run, state: TrainState, batch: Batch) -> np.ndarray | None:
    """Shows the unlabelled images of the first device as the next step would see them."""
    if not run.config.num_pictures or not batch.unlabeled_image.shape[1]:
        return None
    shown = [np.asarray(x.addressable_shards[0].data)[0] for x in run.views(state, batch)]
    shown.append(batch.unlabeled_label[0])
    return unlabeled_picture(*(x[: run.config.num_pictures] for x in shown))


def evaluate_checkpoint(
    config: ConfigDict, workdir: str | Path, step: int | None = None
) -> dict[str, Any]:
    """Evaluates student and teacher of one checkpoint and writes results.json.

    Args:
      config: the run's; how and on what to evaluate may differ.
      workdir: the run directory.
      step: which checkpoint; the newest if None.

    Returns:
      What results.json holds.

    Raises:
      ConfigError, DataError: see `train_and_evaluate`.
      CheckpointError: there is no such checkpoint, or it is of another model.
    """
    workdir = Path(workdir).expanduser().absolute()
    start(config)
    model, step, networks, metadata = restore_run(config, workdir, step)
    report = Report(workdir, writer=None)
    class_names = input_pipeline.dataset_info(config).class_names
    scores, picture = evaluate_networks(model, networks, config, class_names)
    report.picture(step, "evaluation", picture)
    best = metadata["best"] or better(None, step, scores)
    results = build_results(config, step, scores, best, losses_of(metadata["metrics"]))
    report.results(results)
    say(f"{workdir}, step {step}, {config.data.name} {config.data.eval_split}: {describe(scores)}")
    return results
