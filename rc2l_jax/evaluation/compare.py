"""Compares runs: their newest or best evaluations, and their predictions on the same images.

The images and masks are those that the first run evaluates on. Each network predicts them as in its
own run's evaluation, with the same sizes and options, so that the masks shown are those that would
be scored.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rc2l_jax.evaluation.confusion import image_miou
from rc2l_jax.evaluation.evaluate import evaluate
from rc2l_jax.evaluation.scores import better
from rc2l_jax.input_pipeline.eval_batches import eval_batches
from rc2l_jax.input_pipeline.subsets import OpenSplit, open_split
from rc2l_jax.input_pipeline.unpadded import Unpadded, unpadded
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.reports.history import read_evaluations
from rc2l_jax.reports.log import say
from rc2l_jax.reports.painting import Painter
from rc2l_jax.reports.pictures import grid, with_key
from rc2l_jax.run.checkpoints import CheckpointError, Checkpoints
from rc2l_jax.run.classes import check_same_ids
from rc2l_jax.run.config import ConfigError, validate
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.restore import restore_run
from rc2l_jax.run.startup import prepare_devices
from rc2l_jax.run.stored_config import run_config, stored_class_names
from rc2l_jax.structs import VOID, EvalBatch

Evaluations = Sequence[Mapping[str, Any]]


class Opened(NamedTuple):
    """A run's network, ready to predict.

    Attributes:
      name: what the comparison calls the run.
      config: the run's config.
      model: the network.
      variables: its "params" and "batch_stats".
      step: the checkpoint's.
      class_names: those that the run keeps; none if it keeps none.
    """

    name: str
    config: ConfigDict
    model: MaskFormer
    variables: Any
    step: int
    class_names: Sequence[str]


class Masks:
    """Label maps, uint8 [Hl, Wl], by position in the split. They are kept compressed."""

    def __init__(self) -> None:
        """Starts without label maps."""
        self._kept: dict[int, tuple[tuple[int, ...], bytes]] = {}

    def __setitem__(self, position: int, label: np.ndarray) -> None:
        # This takes a few percent of their size, which is a gigabyte for a split of Cityscapes.
        self._kept[position] = label.shape, zlib.compress(label.tobytes(), 1)

    def __getitem__(self, position: int) -> np.ndarray:
        shape, content = self._kept[position]
        return np.frombuffer(zlib.decompress(content), np.uint8).reshape(shape)


def evaluation_of(evaluations: Evaluations, which: str) -> Mapping[str, Any]:
    """Returns a run's newest or best evaluation.

    Args:
      evaluations: lines of evaluations.jsonl, by ascending step.
      which: "newest"; or "best", as `scores.better` decides.
    """
    if which == "newest":
        return evaluations[-1]
    best: dict[str, Any] | None = None
    for line in evaluations:
        scores = {name: {"miou": line[f"{name}_miou"]} for name in ("student", "teacher")}
        best = better(best, line["step"], scores)
    return next(line for line in evaluations if line["step"] == best["step"])


def open_run(
    name: str,
    workdir: epath.PathLike,
    network: str = "teacher",
    which: str = "newest",
    data_dir: str = "",
) -> Opened:
    """Opens a run's network.

    Args:
      name: what to call the run.
      workdir: the run directory.
      network: "teacher" or "student".
      which: "newest" or "best": which evaluation's checkpoint. If that of the newest evaluation is
        not kept, the newest checkpoint.
      data_dir: where the data set lies now; "" if that has not changed since the run was trained.

    Raises:
      CheckpointError: there is no such checkpoint, or it cannot be read.
      ConfigError: the run's config is not valid any more.
    """
    workdir = run_path(workdir)
    config = run_config(workdir)
    validate(config, num_devices=1)
    if data_dir:
        config.data.dir = data_dir
    model, step, networks, _ = restore_run(config, workdir, _step(workdir, which))
    names = stored_class_names(workdir)
    return Opened(name, config, model, networks[network], step, names)


def _step(workdir: epath.Path, which: str) -> int | None:
    """Returns the step of the checkpoint to open; None for the newest."""
    evaluations = read_evaluations(workdir)
    if which == "best" and not evaluations:
        raise CheckpointError(f"{workdir} has no evaluation, and so no best one")
    step = evaluation_of(evaluations, which)["step"] if evaluations else None
    if which == "best":
        return step
    with Checkpoints(workdir) as checkpoints:  # they may be saved without an evaluation
        return step if step in checkpoints.steps() else None


def open_images(runs: Sequence[Opened]) -> OpenSplit:
    """Opens the first run's evaluation split; checks that its classes are those of all runs.

    Raises:
      ConfigError: the runs do not have the same data set and number of classes.
      CheckpointError: a class has another id than in a run.
      DataError: the split cannot be read.
    """
    for run in runs[1:]:
        check_same_classes(runs[0], run)
    split = open_split(runs[0].config)
    for run in runs:
        if note := check_same_ids(run.class_names, split.dataset.class_names, run.name):
            say(f"note: {note}")
    return split


def comparison_grid(
    runs: Sequence[Opened],
    count: int = 4,
    *,
    differing: bool = False,
    split: OpenSplit | None = None,
) -> np.ndarray:
    """Draws a row for each image: image, ground truth, each run's prediction; below, the classes.

    Args:
      runs: one or more runs; images are those of the first run's evaluation split.
      count: how many images.
      differing: False for the first images of the split. True for the images on which the runs
        differ most (a single run: from the ground truth), the most different image first.
      split: what `open_images` returned for these runs; None to open it.

    Returns:
      uint8 [H, W, 3].

    Raises:
      ConfigError, CheckpointError, DataError: as `open_images`.
    """
    split, number = split or open_images(runs), None if differing else count
    masks = [predict_split(run, split, number) for run in runs]
    examples = split_examples(runs[0].config, split, number)
    if differing:
        examples = most_different(examples, masks, count)
    else:
        examples = sorted(examples, key=lambda example: example.position)
    class_names = split.dataset.class_names
    painter, rows, notes, seen = Painter(class_names), [], [], set()
    for example in examples:
        found = [of_run[example.position] for of_run in masks]
        seen.update(*(np.unique(x).tolist() for x in (example.label, *found)))
        rows.append(painter.cells(example.image, [example.label, *found]))
        scores = (image_miou(example.label, x, len(class_names)) for x in found)
        notes.append(["", "", *(f"mIoU {x:.2f}" for x in scores)])
    captions = ["image", "ground truth", *(f"{run.name}, step {run.step}" for run in runs)]
    return with_key(grid(rows, captions, notes), painter, seen)


def check_same_classes(one: Opened, other: Opened) -> None:
    """Raises ConfigError if two runs differ in their data set or its number of classes."""
    for key in ("name", "num_classes"):
        first, second = one.config.data[key], other.config.data[key]
        if first != second:
            differing = f"{one.name} has data.{key} = {first!r} and {other.name} {second!r}"
            remedy = "runs are compared on one data set's images; leave one of them out"
            raise ConfigError([f"{differing}: {remedy}"])


def predict_split(run: Opened, split: OpenSplit, count: int | None = None) -> Masks:
    """Predicts an evaluation split as the run's own evaluation would.

    Args:
      run: the run whose network, image sizes and evaluation options are used.
      split: the opened split, of any run with the same classes.
      count: leave out batches that have none of the first `count` examples; None for all batches.

    Returns:
      Predicted label maps, by position in the split.
    """
    masks = Masks()

    def observe(batch: EvalBatch, predictions: dict[str, np.ndarray]) -> bool:
        for example in unpadded(batch):
            masks[example.position] = example.cropped(predictions[run.name])
        return True

    batches = eval_batches(run.config, split, 1, first=count)
    former = jax.config.jax_default_matmul_precision
    prepare_devices(run.config)
    try:
        evaluate(run.model, {run.name: run.variables}, batches, run.config, observe)
    finally:  # the next run may leave the precision as it is
        jax.config.update("jax_default_matmul_precision", former)
    return masks


def split_examples(
    data: ConfigDict, split: OpenSplit, count: int | None = None
) -> Iterator[Unpadded]:
    """Yields the first `count` examples of a run's evaluation split, in any order.

    Args:
      data: the config of the run that the split is from.
      split: the opened split.
      count: how many; None for all.
    """
    for batch in eval_batches(data, split, 1, first=count):
        for example in unpadded(batch):
            if count is None or example.position < count:
                yield example


def most_different(
    examples: Iterator[Unpadded], masks: Sequence[Masks], count: int
) -> list[Unpadded]:
    """Returns the `count` examples with the largest `difference` of predictions, largest first.

    Args:
      examples: all examples of the split.
      masks: each run's predictions.
      count: how many to return.
    """

    def share(example: Unpadded) -> float:
        return difference(example.label, [of_run[example.position] for of_run in masks])

    # Ties go to the earlier example. nlargest keeps only `count` images in memory.
    return heapq.nlargest(count, examples, key=lambda x: (share(x), -x.position))


def difference(label: np.ndarray, predictions: Sequence[np.ndarray]) -> float:
    """Returns the share of annotated pixels on which predictions are not all the same.

    Args:
      label: uint8 [H, W], class ids or 255; pixels of 255 are not counted.
      predictions: uint8 [H, W] each; a single one is compared with `label`.
    """
    known = label != VOID
    first, *others = [*predictions, *([label] if len(predictions) == 1 else [])]
    differs = np.any([first != other for other in others], axis=0)
    return float((differs & known).sum() / max(known.sum(), 1))
