"""Evaluation of a run's networks: scores, figures and results.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rc2l_jax.evaluation.evaluate import evaluate
from rc2l_jax.evaluation.scores import better, build_evaluation, build_results, losses_of, score
from rc2l_jax.input_pipeline import eval_batches
from rc2l_jax.input_pipeline.subsets import OpenSplit, open_split
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.reports.examples import EvaluationPictures
from rc2l_jax.reports.history import read_evaluations
from rc2l_jax.reports.log import say
from rc2l_jax.reports.pictures import legend
from rc2l_jax.reports.tables import describe, iou_table
from rc2l_jax.reports.writer import Report, create_writer
from rc2l_jax.run.config import dotted
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.interruption import StopRequest
from rc2l_jax.run.restore import restore_run
from rc2l_jax.run.startup import start, topology
from rc2l_jax.structs import EvalBatch

EVALUATION_COMPILES = "compiling the evaluation (up to a minute on a CPU)"
# What scores depend on beside the networks and the images; and all of `eval`.
_OPTIONS = ("data.eval_short_edge", "data.max_long_edge")


class Evaluation(NamedTuple):
    """What one pass over a split says about some networks.

    Attributes:
      scores: {network: see `evaluate.score`}.
      confusions: {network: int64 [K, K]}, rows are true classes, columns predicted ones.
      picture: uint8 [H, W, 3], examples; None if none were asked for.
    """

    scores: dict[str, Any]
    confusions: dict[str, np.ndarray]
    picture: np.ndarray | None


def evaluate_networks(
    model: MaskFormer,
    networks: dict[str, Any],
    config: ConfigDict,
    split: OpenSplit,
    stop: StopRequest | None = None,
) -> Evaluation:
    """Scores several networks in one pass over a split.

    Args:
      model: of all of them.
      networks: {"student": {"params": ..., "batch_stats": ...}, "teacher": ...}.
      config: see `configs/base.py`.
      split: of the data set of `config`.
      stop: ends the evaluation, between two batches or in the wait for one.

    Raises:
      Interrupted: `stop` asked for it.
    """
    pictures = EvaluationPictures(config.num_pictures)
    observe = pictures.observe if config.num_pictures else None
    batches = eval_batches.eval_batches(config, split, *topology())
    if stop is not None:
        batches = _stoppable(batches, stop)
    confusions = evaluate(model, networks, batches, config, observe)
    names = split.dataset.class_names
    scores = {name: score(confusion, names) for name, confusion in confusions.items()}
    return Evaluation(scores, confusions, pictures.picture())


def write_figures(
    report: Report,
    step: int,
    evaluation: Evaluation,
    config: ConfigDict,
    class_names: tuple[str, ...],
) -> None:
    """Writes examples, confusion matrices and IoU bars of one evaluation; and matrices as numbers.

    The first time, figures/legend.png is written, too: which colour is which class.

    Args:
      report: of the run directory.
      step: steps done.
      evaluation: of the networks after them.
      config: with `num_pictures = 0` only the numbers are written.
      class_names: K names.
    """
    data, split = config.data.name, config.data.eval_split
    report.confusions(step, evaluation.confusions, class_names, dataset=data, split=split)
    if not _draws(config):
        return
    from rc2l_jax.reports import (
        class_charts,  # here, because a run need not wait for matplotlib to start
    )

    if not (report.workdir / "figures" / "legend.png").exists():
        report.picture(step, "legend", legend(class_names), of_run=True)
    title = f"{data} {split}, step {step}"
    report.picture(step, "evaluation", evaluation.picture)
    matrices = class_charts.confusion_chart(evaluation.confusions, class_names, title)
    report.picture(step, "confusion", matrices)
    report.picture(step, "iou", class_charts.iou_chart(evaluation.scores, title))


def write_curves(report: Report, step: int, config: ConfigDict) -> None:
    """Draws all of a run's evaluations so far, `step` the last; nothing if `num_pictures = 0`."""
    evaluations = read_evaluations(report.workdir)
    if not _draws(config) or not evaluations:
        return
    from rc2l_jax.reports import run_curves  # see `write_figures`

    title = f"{config.data.name}, {config.data.labeled_split} labelled"
    picture = run_curves.curves_chart(evaluations, title)
    report.picture(step, "curves", picture, of_run=True)


def _draws(config: ConfigDict) -> bool:
    return config.num_pictures > 0 and jax.process_index() == 0


def _stoppable(batches: Iterator[EvalBatch], stop: StopRequest) -> Iterator[EvalBatch]:
    while True:
        stop.check()
        with stop.at_once():  # a disk may let us wait for long
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def evaluate_checkpoint(
    config: ConfigDict, workdir: epath.PathLike, step: int | None = None
) -> dict[str, Any]:
    """Evaluates student and teacher of one checkpoint; writes results.json and figures.

    The scores are kept in eval/step_XXXXXXXX.json, too, with the options that they depend on: the
    next evaluation of another step replaces results.json, but not that file.

    The curves are those of the evaluations that training made, drawn again. The pseudo labels over
    the steps are left as they are: only training sees the teacher of each step.

    Args:
      config: the run's; how and on what to evaluate may differ.
      workdir: the run directory.
      step: which checkpoint; the newest if None.

    Returns:
      What results.json holds.

    Raises:
      ConfigError, DataError: see `train.train_and_evaluate`.
      CheckpointError: there is no such checkpoint, or it is of another model.
      StorageError: the run directory cannot be written.
      Interrupted: SIGTERM or Ctrl-C; nothing is written.
    """
    workdir = run_path(workdir)
    start(config, trains=False)
    model, step, networks, metadata = restore_run(config, workdir, step)
    split = open_split(config)
    say(EVALUATION_COMPILES)
    with StopRequest() as stop, stop.deferred():
        evaluation = evaluate_networks(model, networks, config, split, stop)
    scores = evaluation.scores
    # Events of its own folder: beside those of a run that still trains they would hide its own.
    with create_writer(workdir, "eval") as writer:
        report = Report(workdir, writer)
        write_figures(report, step, evaluation, config, split.dataset.class_names)
        write_curves(report, step, config)
    best = metadata["best"]
    if best is None or metadata["owes_evaluation"]:  # it does not know of its own score
        best = better(best, step, scores)
    results = build_results(config, step, scores, best, losses_of(metadata["metrics"]))
    report.results(results)
    file = f"eval/step_{step:08d}.json"
    report.document(file, build_evaluation(config, step, scores) | {"config": _options(config)})
    where = f"{config.data.name} {config.data.eval_split}"
    say(f"{workdir}, step {step}, {where}: {describe(scores)} -> {file}\n{iou_table(scores)}")
    return results


def _options(config: ConfigDict) -> dict[str, Any]:
    """How is evaluated: {dotted key: value}."""
    values = dotted(config.to_dict())
    return {k: v for k, v in values.items() if k.startswith("eval.") or k in _OPTIONS}
