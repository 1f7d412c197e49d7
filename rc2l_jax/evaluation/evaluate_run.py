"""Evaluation of a run's networks: scores, figures and results.json."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from data import records
from rc2l_jax.evaluation.confusion import image_miou
from rc2l_jax.evaluation.evaluate import Observer, evaluate
from rc2l_jax.evaluation.pages import write_answer_page, write_run_page
from rc2l_jax.evaluation.photo_scores import PhotoScores
from rc2l_jax.evaluation.scores import better, build_evaluation, build_results, losses_of, score
from rc2l_jax.input_pipeline import eval_batches
from rc2l_jax.input_pipeline.subsets import OpenSplit, describe_split, open_split
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.reports.examples import EvaluationPictures
from rc2l_jax.reports.history import read_evaluations
from rc2l_jax.reports.log import say
from rc2l_jax.reports.painting import Painter
from rc2l_jax.reports.pictures import legend
from rc2l_jax.reports.tables import describe, measures_table
from rc2l_jax.reports.writer import Report, create_writer
from rc2l_jax.run.classes import check_same_ids
from rc2l_jax.run.config import dotted
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.interruption import StopRequest
from rc2l_jax.run.restore import restore_run
from rc2l_jax.run.startup import start, topology
from rc2l_jax.run.stored_config import stored_class_names
from rc2l_jax.structs import EvalBatch

EVALUATION_COMPILES = "compiling the evaluation (up to a minute on a CPU)"
# Besides `eval`, the keys on which the scores of the same networks and images depend.
_OPTIONS = ("data.eval_short_edge", "data.max_long_edge", "dtype", "matmul_precision")


class Evaluation(NamedTuple):
    """The result of one pass over a split.

    Attributes:
      scores: {network: {"miou", "iou"}}, as `scores.score` returns them.
      confusions: {network: int64 [K, K]}, rows are true classes, columns predicted ones.
      picture: uint8 [H, W, 3], the first examples with the predictions; None with
        `num_pictures = 0`.
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
    photos: PhotoScores | None = None,
) -> Evaluation:
    """Scores several networks in one pass over a split.

    Args:
      model: the architecture of all of them.
      networks: {"student": {"params": ..., "batch_stats": ...}, "teacher": ...}.
      config: see `configs/base.py`.
      split: the opened split, of the config's data set.
      stop: if given, a signal ends the evaluation between two batches, or while it waits for one.
      photos: if given, it scores each photo. Then all predictions are fetched from the device.

    Raises:
      Interrupted: a signal asked the run to stop.
      DataError: an example cannot be used.
    """
    names = split.dataset.class_names
    miou = functools.partial(image_miou, num_classes=len(names))
    pictures = EvaluationPictures(config.num_pictures, names, miou)
    observers = [pictures.observe] if config.num_pictures else []
    if photos is not None:
        observers.append(photos.observe)
    observe = functools.partial(_observe, observers) if observers else None
    batches = eval_batches.eval_batches(config, split, *topology())
    if stop is not None:
        batches = _stoppable(batches, stop)
    confusions = evaluate(model, networks, batches, config, observe)
    scores = {name: score(confusion, names) for name, confusion in confusions.items()}
    return Evaluation(scores, confusions, pictures.picture())


def _observe(
    observers: list[Observer], batch: EvalBatch, predictions: dict[str, np.ndarray]
) -> bool:
    """Shows a batch to all observers, and drops those that want no more."""
    observers[:] = [observe for observe in observers if observe(batch, predictions)]
    return bool(observers)


def write_figures(
    report: Report,
    step: int,
    evaluation: Evaluation,
    config: ConfigDict,
    class_names: tuple[str, ...],
) -> None:
    """Writes an evaluation's examples, IoU bars and confusion matrices (picture and numbers).

    The first time it also writes figures/legend.png, which shows each class's colour.

    Args:
      report: writes into the run directory.
      step: the evaluated step.
      evaluation: the result of that step's networks.
      config: see `configs/base.py`; with `num_pictures = 0` only the numbers are written.
      class_names: K names.
    """
    data, split = config.data.name, config.data.eval_split
    report.confusions(step, evaluation.confusions, class_names, dataset=data, split=split)
    if not _draws(config):
        return
    from rc2l_jax.reports import (
        class_charts,  # here, so that a run starts without waiting for matplotlib
    )

    if not (report.workdir / "figures" / "legend.png").exists():
        report.picture(step, "legend", legend(Painter(class_names)), of_run=True)
    title = f"{data} {split}, step {step}"
    report.picture(step, "evaluation", evaluation.picture)
    matrices = class_charts.confusion_chart(evaluation.confusions, class_names, title)
    report.picture(step, "confusion", matrices)
    report.picture(step, "iou", class_charts.iou_chart(evaluation.scores, title))


def write_curves(report: Report, step: int, config: ConfigDict) -> None:
    """Draws curves over all of a run's evaluations so far; nothing with `num_pictures = 0`.

    Args:
      report: writes into the run directory.
      step: the step under which TensorBoard shows the picture.
      config: see `configs/base.py`.
    """
    evaluations = read_evaluations(report.workdir)
    if not _draws(config) or not evaluations:
        return
    from rc2l_jax.reports import run_curves  # here for the same reason as in `write_figures`

    title = f"{config.data.name}, {config.data.labeled_split} labelled"
    picture = run_curves.curves_chart(evaluations, title)
    report.picture(step, "curves", picture, of_run=True)


def _draws(config: ConfigDict) -> bool:
    return config.num_pictures > 0 and jax.process_index() == 0


def _stoppable(batches: Iterator[EvalBatch], stop: StopRequest) -> Iterator[EvalBatch]:
    while True:
        stop.check()
        with stop.at_once():  # waiting for the disk may take long
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def evaluate_checkpoint(
    config: ConfigDict, workdir: epath.PathLike, step: int | None = None
) -> dict[str, Any]:
    """Evaluates student and teacher of one checkpoint; writes a folder of `workdir`/eval.

    Every question has a folder of its own: the step, the images and the options that scores depend
    on. So nothing is replaced but the answer to the same question. It gets results.json, figures,
    TensorBoard events, ranking.csv and report.html. What training wrote stays as it is.

    Args:
      config: the run's config; how and on what to evaluate may differ from the run's.
      workdir: the run directory.
      step: the checkpoint's step; None for the newest.

    Returns:
      What the folder's results.json holds, and under "folder" its path below `workdir`.

    Raises:
      ConfigError: the config is not valid, or does not fit this machine's devices.
      DataError: the data set or the split cannot be used.
      CheckpointError: there is no such checkpoint, it cannot be read, or it is of another model or
        other classes.
      StorageError: the run directory cannot be written.
      Interrupted: SIGTERM or Ctrl-C during the evaluation, before anything is written.
    """
    workdir = run_path(workdir)
    split, step, evaluation, _, photos = _evaluate(config, workdir, step, photos=True)
    scores = evaluation.scores
    asked = {
        "images": describe_split(config.data.eval_split, *split),
        "config": scoring_options(config),
    }
    results = build_evaluation(config, step, scores) | asked
    folder = f"eval/{_name(results)}"
    # TensorBoard events go there, too: in the folder of a run that still trains, they would hide
    # the run's later ones.
    with create_writer(workdir, folder) as writer:
        report = Report(workdir / folder, writer)
        # First, since other processes wait for process 0 there, which alone draws figures.
        write_answer_page(report, results, photos)
        write_figures(report, step, evaluation, config, split.dataset.class_names)
        report.results(results)
    where = f"{config.data.name} {config.data.eval_split}"
    tables = "\n\n".join(measures_table(name, entry) for name, entry in scores.items())
    say(f"{workdir}, step {step}, {where}: {describe(scores)} -> {folder}\n{tables}")
    return results | {"folder": folder}


def restore_results(config: ConfigDict, workdir: epath.PathLike) -> dict[str, Any]:
    """Writes results.json and figures of a finished run anew, as training does after the last step.

    Args:
      config: the run's config.
      workdir: the run directory.

    Returns:
      What results.json holds.

    Raises:
      ConfigError, DataError, CheckpointError, StorageError, Interrupted: as `evaluate_checkpoint`.
    """
    workdir = run_path(workdir)
    split, step, evaluation, metadata, _ = _evaluate(config, workdir, None)
    scores, best, report = evaluation.scores, metadata["best"], Report(workdir, None)
    write_figures(report, step, evaluation, config, split.dataset.class_names)
    write_curves(report, step, config)
    if best is None or metadata["owes_evaluation"]:  # it was saved without its own score
        best = better(best, step, scores)
    results = build_results(config, step, scores, best, losses_of(metadata["metrics"]))
    report.results(results)
    write_run_page(report, config)
    say(f"{workdir}, step {step}: {describe(scores)} -> results.json")
    return results


def _evaluate(
    config: ConfigDict, workdir: epath.Path, step: int | None, *, photos: bool = False
) -> tuple[OpenSplit, int, Evaluation, dict[str, Any], PhotoScores | None]:
    """Returns the split, the checkpoint's step, the evaluation, and the checkpoint's metadata.

    And the scores of each photo, if they are asked for.
    """
    start(config, trains=False)
    split = open_split(config)  # first, since its mistakes are found in seconds
    stored, names = stored_class_names(workdir), split.dataset.class_names
    if note := check_same_ids(stored, names, str(workdir)):
        say(f"note: {note}")
    model, step, networks, metadata = restore_run(config, workdir, step)
    say(EVALUATION_COMPILES)
    with StopRequest() as stop, stop.deferred():
        scored = PhotoScores(names, split.id) if photos else None
        evaluation = evaluate_networks(model, networks, config, split, stop, scored)
    return split, step, evaluation, metadata, scored


def _name(results: Mapping[str, Any]) -> str:
    """Names a question: its step, its split, and a checksum of its images and options."""
    split = re.sub(r"[^\w.-]+", "-", results["split"])[-40:].strip("-.")
    asked = json.dumps([results["dataset"], results["images"], results["config"]], sort_keys=True)
    return f"step_{results['step']:08d}_{split}_{records.digest(asked)[:8]}"


def scoring_options(config: ConfigDict) -> dict[str, Any]:
    """Returns the options that scores depend on: {dotted key: value}."""
    values = dotted(config.to_dict())
    return {k: v for k, v in values.items() if k.startswith("eval.") or k in _OPTIONS}
