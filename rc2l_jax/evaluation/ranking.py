"""Finds the images of an evaluation split on which a network does best and worst."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rc2l_jax.evaluation.confusion import image_miou
from rc2l_jax.evaluation.evaluate import evaluate
from rc2l_jax.input_pipeline.eval_batches import eval_batches
from rc2l_jax.input_pipeline.subsets import open_split
from rc2l_jax.input_pipeline.unpadded import Unpadded, unpadded
from rc2l_jax.reports.log import say
from rc2l_jax.run.classes import check_same_ids
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.restore import NETWORKS, restore_run
from rc2l_jax.run.startup import start, topology
from rc2l_jax.run.stored_config import stored_class_names
from rc2l_jax.structs import EvalBatch


@dataclasses.dataclass(frozen=True)
class ScoredImage:
    """An evaluated image.

    Attributes:
      index: its position in the split.
      miou: mean IoU over the classes that its label or its prediction shows.
      image: uint8 [H, W, 3], at the first of `eval.scales`.
      label: uint8 [Hl, Wl], class ids or 255 (void).
      prediction: uint8 [Hl, Wl], class ids.
      id: its id in the data set.
    """

    index: int
    miou: float
    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    id: str = ""


class Ranking:
    """Collects the best and the worst images while one network is evaluated.

    All others are dropped, since a large split would not fit into memory.

    Attributes:
      best: images of the highest mIoU, the highest first.
      worst: images of the lowest mIoU, the lowest first.
    """

    def __init__(self, count: int, num_classes: int):
        """Keeps up to `count` of the best and up to `count` of the worst images."""
        self._count, self._num_classes = count, num_classes
        self.best: list[ScoredImage] = []
        self.worst: list[ScoredImage] = []

    def observe(self, batch: EvalBatch, predictions: Mapping[str, np.ndarray]) -> bool:
        """Ranks the images of one batch (see `evaluate.Observer`), but not those that are all void.

        Args:
          batch: a batch of NumPy arrays [D, B, ...].
          predictions: {network: uint8 [D, B, Hl, Wl]}, of a single network.

        Returns:
          True: every batch is wanted.
        """
        (labels,) = predictions.values()
        for example in unpadded(batch):
            prediction = example.cropped(labels)
            miou = image_miou(example.label, prediction, self._num_classes)
            if not math.isnan(miou):
                self._add(example, prediction, miou)
        return True

    def _add(self, example: Unpadded, prediction: np.ndarray, miou: float) -> None:
        # Copies, since a view of the batch would keep the whole batch in memory.
        arrays = (array.copy() for array in (example.image, example.label, prediction))
        scored = ScoredImage(example.position, miou, *arrays)

        def order(x: ScoredImage) -> tuple[float, int]:
            return (x.miou, x.index)

        self.best = sorted([*self.best, scored], key=order, reverse=True)[: self._count]
        self.worst = sorted([*self.worst, scored], key=order)[: self._count]


def best_and_worst(
    config: ConfigDict,
    workdir: epath.PathLike,
    count: int = 4,
    *,
    network: str = NETWORKS[0],
    step: int | None = None,
) -> tuple[list[ScoredImage], list[ScoredImage]]:
    """Finds the images of `data.eval_split` on which a run's network does best and worst.

    With several processes, each ranks only the images that it evaluates.

    Args:
      config: the run's config; how and on what to evaluate may differ from the run's.
      workdir: the run directory; nothing in it changes.
      count: how many of the best and how many of the worst images to return, at most.
      network: "teacher" or "student".
      step: the checkpoint's step; None for the newest.

    Returns:
      The best images, the best one first; and the worst images, the worst one first.

    Raises:
      ConfigError: the config is not valid, or does not fit this machine's devices.
      DataError: the data set or the split cannot be used.
      CheckpointError: there is no such checkpoint, it cannot be read, or it is of another model or
        other classes.
    """
    start(config, trains=False)
    split, workdir = open_split(config), run_path(workdir)
    if note := check_same_ids(stored_class_names(workdir), split.dataset.class_names, str(workdir)):
        say(f"note: {note}")
    ranking = Ranking(count, config.data.num_classes)
    model, _, networks, _ = restore_run(config, workdir, step)
    batches = eval_batches(config, split, *topology())
    evaluate(model, {network: networks[network]}, batches, config, ranking.observe)
    best, worst = (
        [dataclasses.replace(image, id=split.id(image.index)) for image in images]
        for images in (ranking.best, ranking.worst)
    )
    return best, worst
