"""A run from its config to its results: makes or reads back what training needs, then trains."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from data.whole_files import write_text
from rc2l_jax.evaluation.evaluate_run import restore_results
from rc2l_jax.evaluation.pages import write_run_page
from rc2l_jax.input_pipeline.subsets import (
    check_examples,
    describe_subset,
    describe_subsets,
    listed,
    open_subsets,
)
from rc2l_jax.method.state import create_train_state
from rc2l_jax.reports.history import read_evaluations
from rc2l_jax.reports.log import say, say_run
from rc2l_jax.reports.photo_ranking import printable
from rc2l_jax.reports.writer import Report, create_writer
from rc2l_jax.run import distributed
from rc2l_jax.run.checkpoints import Checkpoints
from rc2l_jax.run.directory import only_job, progress, results_step, run_path
from rc2l_jax.run.interruption import StopRequest
from rc2l_jax.run.restore import teacher_of_run
from rc2l_jax.run.startup import start
from rc2l_jax.run.storage import storage_errors, write_json
from rc2l_jax.run.stored_config import check_run_config, keep_former_config, write_run_config
from rc2l_jax.training import pseudo_label_history
from rc2l_jax.training.check import config_warnings
from rc2l_jax.training.devices import parallel_train_step, parallel_views, replicate
from rc2l_jax.training.loop import train
from rc2l_jax.training.profiling import ProfiledStep
from rc2l_jax.training.session import Training, resume
from rc2l_jax.weights.load import pretrained_state


def train_and_evaluate(
    config: ConfigDict,
    workdir: epath.PathLike,
    *,
    allow_config_change: bool = False,
    after_evaluation: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Trains from the newest checkpoint of `workdir`, or from the start, to `config.num_steps`.

    Args:
      config: the run's, with the keys of `configs/base.py`.
      workdir: the run directory: config.json, results.json, checkpoints/, figures/, ...
      allow_config_change: go on even if the run's config or images have changed.
      after_evaluation: called with the step after an evaluation's scores and figures are written,
        so that a notebook can show them while the run goes on.

    Returns:
      What results.json holds; {} on all processes but 0.

    Raises:
      ConfigError: the config cannot be run.
      DataError: the data set cannot be used.
      WeightsError: the weights that `init_from` names cannot be used.
      CheckpointError: the directory belongs to a run of another config or on other images, or is
        in use, or its checkpoint cannot be read.
      DistributedError: the processes do not see the same run directory.
      StorageError: the directory cannot be written.
      TrainingError: too many steps in a row had no finite loss and gradient.
      Interrupted: SIGTERM or Ctrl-C; all steps taken so far are saved.
    """
    workdir = run_path(workdir)
    with StopRequest() as stop, contextlib.ExitStack() as stack:
        start(config, trains=True)
        # Before anything is written, so that wrong data leave no run directory behind.
        data = open_subsets(config)
        check_examples(data)
        used = describe_subsets(config, *data)
        names = data.dataset.class_names
        changes = check_run_config(workdir, config, used, allow_config_change, names)
        for change in changes:
            say(f"note: {change}")
        if jax.process_index() == 0:
            with storage_errors(workdir):
                stack.enter_context(only_job(workdir))
        checkpoints = stack.enter_context(Checkpoints(workdir, config.keep_checkpoints, owned=True))
        distributed.check_same(workdir, lambda: progress(workdir))
        step = checkpoints.latest_step()
        if is_finished(config, workdir, checkpoints, step):
            return finished_run(config, workdir, step)
        model, optimizer, state = create_train_state(config)
        init = None
        if step is None and config.init_from:
            former = teacher_of_run(config.init_from)
            state, init = pretrained_state(state, config, former, names)
        if jax.process_index() == 0:
            with storage_errors(workdir):
                if step is not None and changes:
                    keep_former_config(workdir, step)
                write_run_config(workdir, config, used, names)
                for name, text in listed(data).items():
                    write_text(workdir / "lists" / f"{name}.txt", printable(text))
                if init is not None:
                    write_json(workdir / "init.json", dataclasses.asdict(init))
        report = Report(workdir, stack.enter_context(create_writer(workdir)))
        say_run(config, workdir, state)
        for name, entry in used.items():
            say(f"{config.data.name} {name}: {describe_subset(entry)}")
        for note in data.dataset.notes:
            say(f"note: {note}")
        for warning in config_warnings(config, *data):
            say(f"warning: {warning}")
        for line in init.lines() if init else ():
            say(line)
        views = parallel_views(model, config)
        training = Training(config, model, data, views, checkpoints, report, stop)
        training.after_evaluation = after_evaluation
        if step is not None:
            state = resume(training, state)
        # Of evaluations up to this step, all there is is complete; later ones are made again.
        complete = int(state.step) - (1 if training.owes_evaluation else 0)
        report.rewind(complete)
        training.pseudo_labels = pseudo_label_history.open_history(
            workdir, model, config, data, complete
        )
        step_fn = parallel_train_step(model, optimizer, config)
        if config.profile:
            step_fn = ProfiledStep(step_fn, workdir, step or 0, config.num_steps)
        with stop.deferred():
            train(training, replicate(state), step_fn)
            checkpoints.wait()
            write_run_page(report, config)
    say_where(workdir)
    return read_results(workdir)


def say_where(workdir: epath.Path) -> None:
    """Prints where a finished run's results are, and the command that predicts with them."""
    command = f"python main.py --workdir={shlex.quote(str(workdir))} --mode=predict"
    say(
        f"report.html, results.json, figures/, checkpoints/ are in {workdir}. To predict photos:\n"
        f"{command} --input=PHOTOS --output=OUT"
    )


def is_finished(
    config: ConfigDict, workdir: epath.Path, checkpoints: Checkpoints, step: int | None
) -> bool:
    """Returns whether the newest checkpoint is of the run's last step, and that was evaluated.

    Args:
      config: the run's config.
      workdir: the run directory.
      checkpoints: the run's checkpoints.
      step: the newest checkpoint's step; None if there is none.
    """
    if step is None or step < config.num_steps:
        return False
    if not checkpoints.metadata(step)["owes_evaluation"]:
        return True
    # Its evaluation was interrupted, but may have been made since the checkpoint was written.
    history = read_evaluations(workdir)
    return results_step(workdir) == step and bool(history) and history[-1]["step"] == step


def read_results(workdir: epath.Path) -> dict[str, Any]:
    """Returns what results.json holds; {} on all processes but 0, which wrote it."""
    return {} if jax.process_index() else json.loads((workdir / "results.json").read_text())


def finished_run(config: ConfigDict, workdir: epath.Path, step: int) -> dict[str, Any]:
    """Prints that there is nothing left to do. Evaluates only if results.json is missing."""
    say(f"{workdir} is finished: step {step} of {config.num_steps}. Nothing to do.")
    if (workdir / "results.json").exists():
        results = read_results(workdir)
    else:
        results = restore_results(config, workdir)
    say_where(workdir)
    return results
