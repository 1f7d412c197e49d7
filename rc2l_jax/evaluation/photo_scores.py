"""Ranks the photos of an evaluation: those first on which the network does worst.

The truth is known, so photos are ranked by their own mIoU rather than by confidence: evaluation
predicts classes alone, and confidence would need another compiled program, for a guess at what is
known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rc2l_jax.evaluation.confusion import image_confusion, iou, mean_of
from rc2l_jax.input_pipeline.unpadded import unpadded
from rc2l_jax.reports.gallery import Cards, make_card
from rc2l_jax.reports.painting import Painter
from rc2l_jax.reports.photo_ranking import Row
from rc2l_jax.structs import VOID, EvalBatch

COLUMNS = (
    "photo", "miou", "pixel_accuracy", "disagreement",
    "lowest_class", "lowest_class_iou", "classes",
)  # fmt: skip


def photo_row(
    name: str,
    label: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    class_names: tuple[str, ...],
) -> dict[str, Any]:
    """Scores one photo.

    Args:
      name: the photo's name.
      label: uint8 [H, W], class ids; 255 is not counted.
      predictions: {network: uint8 [H, W]}; the last one is scored.
      class_names: K names.

    Returns:
      A value for each of `COLUMNS`. Disagreement is the share of all pixels at which the networks
      differ, None of a single one. What has no annotated pixel to count is None, too.
    """
    *others, prediction = predictions.values()
    count = len(class_names)
    confusion = image_confusion(label, prediction, count)
    per_class = iou(confusion)[1]
    miou = accuracy = lowest = lowest_iou = disagreement = None
    if confusion.any():
        worst = int(np.nanargmin(per_class))
        miou, lowest, lowest_iou = _round(mean_of(per_class)), class_names[worst], per_class[worst]
        accuracy = _round(np.trace(confusion) / confusion.sum())
        lowest_iou = _round(lowest_iou)
    if others:
        disagreement = _round(np.mean(others[0] != prediction))
    present = confusion.sum(1) + np.bincount(prediction.ravel(), minlength=count) > 0
    names = [class_names[i] for i in np.flatnonzero(present)]
    return dict(zip(COLUMNS, (name, miou, accuracy, disagreement, lowest, lowest_iou, names)))


def order(row: Row) -> tuple[Any, ...]:
    """What photos are sorted by: the lowest mIoU first, and last those that nobody annotated.

    Of these and of equal ones, those come first on which the networks differ most.
    """
    miou = row["miou"]
    return (miou is None, miou or 0.0, -(row["disagreement"] or 0.0), row["photo"])


class PhotoScores:
    """Scores each photo while networks are evaluated, and keeps cards of the worst ones.

    Attributes:
      rows: of all photos that this process has seen, in no order; see `photo_row`.
      cards: what a page shows of the worst of them.
      painter: has the colours of the classes.
    """

    def __init__(self, class_names: tuple[str, ...], name_of: Callable[[int], str]):
        """Takes K names, and a function from positions in the split to photos' names."""
        self._class_names, self._name_of = class_names, name_of
        self.painter = Painter(class_names)
        self.rows: list[dict[str, Any]] = []
        self.cards = Cards(order)

    def observe(self, batch: EvalBatch, predictions: Mapping[str, np.ndarray]) -> bool:
        """Scores the photos of one batch (see `evaluate.Observer`): True, every batch is wanted."""
        for example in unpadded(batch):
            found = {name: example.cropped(labels) for name, labels in predictions.items()}
            name = self._name_of(example.position)
            row = photo_row(name, example.label, found, self._class_names)
            self.rows.append(row)
            if self.cards.wants(row):
                *_, last = found.values()
                layers = dict(reversed(found.items())) | {"truth": example.label}
                wrong = (last != example.label) & (example.label != VOID)
                self.cards.add(row, make_card(example.image, layers, self.painter, wrong))
        return True


def _round(value: float) -> float:
    return round(float(value), 4)
