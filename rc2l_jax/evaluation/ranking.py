"""The images of an evaluation on which a network does best and worst."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rc2l_jax.evaluation.confusion import confusion_matrix, iou
from rc2l_jax.evaluation.evaluate import evaluate
from rc2l_jax.input_pipeline.eval_batches import eval_batches
from rc2l_jax.input_pipeline.subsets import open_split
from rc2l_jax.input_pipeline.unpadded import Unpadded, unpadded
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.restore import NETWORKS, restore_run
from rc2l_jax.run.startup import start, topology
from rc2l_jax.structs import EvalBatch


@dataclasses.dataclass(frozen=True)
class ScoredImage:
    """An evaluated image.

    Attributes:
      index: position in the split.
      miou: mean IoU over the classes that its label or its prediction shows.
      image: uint8 [H, W, 3], at the first of `eval.scales`.
      label: uint8 [Hl, Wl], 255 is void.
      prediction: uint8 [Hl, Wl].
      id: of the example, as in the data set.
    """

    index: int
    miou: float
    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    id: str = ""


class Ranking:
    """Collects the best and the worst images of an evaluation of one network.

    Only they are kept: all images of a large split would not fit into memory.

    Attributes:
      best: by falling mIoU.
      worst: by rising mIoU.
    """

    def __init__(self, count: int, num_classes: int):
        """Keeps up to `count` images of each kind."""
        self._count, self._num_classes = count, num_classes
        self.best: list[ScoredImage] = []
        self.worst: list[ScoredImage] = []

    def observe(self, batch: EvalBatch, predictions: Mapping[str, np.ndarray]) -> bool:
        """Ranks one batch (see `evaluate.Observer`); images that are all void have no rank.

        Args:
          batch: of NumPy arrays [D, B/D, ...].
          predictions: {network: uint8 [D, B/D, Hl, Wl]} of one network.
        """
        (labels,) = predictions.values()
        for example in unpadded(batch):
            # With its padding, which is void, so that a shape of batches is compiled once.
            at = example.at
            confusion = confusion_matrix(labels[at], batch.label[at], self._num_classes)
            miou, _ = iou(np.asarray(confusion))
            if not math.isnan(miou):
                self._add(example, example.cropped(labels), miou)
        return True

    def _add(self, example: Unpadded, prediction: np.ndarray, miou: float) -> None:
        # Copies, since a part of an array keeps all of it in memory.
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

    Args:
      config: the run's; how and on what to evaluate may differ.
      workdir: the run directory; nothing in it changes.
      count: of images of each kind, at most; of many processes each finds its own.
      network: one of `NETWORKS`.
      step: which checkpoint; the newest if None.

    Returns:
      The best, the best of them first, and the worst, the worst of them first.

    Raises:
      ConfigError, DataError, CheckpointError: see `evaluate_run.evaluate_checkpoint`.
    """
    start(config, trains=False)
    model, _, networks, _ = restore_run(config, run_path(workdir), step)
    split, ranking = open_split(config), Ranking(count, config.data.num_classes)
    batches = eval_batches(config, split, *topology())
    evaluate(model, {network: networks[network]}, batches, config, ranking.observe)
    best, worst = (
        [dataclasses.replace(image, id=split.id(image.index)) for image in images]
        for images in (ranking.best, ranking.worst)
    )
    return best, worst
