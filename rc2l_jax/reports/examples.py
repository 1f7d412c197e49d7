"""Pictures of examples that a run writes at each evaluation: grids made with `pictures`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rc2l_jax.input_pipeline.unpadded import unpadded
from rc2l_jax.reports.painting import Painter
from rc2l_jax.reports.pictures import grid, with_key
from rc2l_jax.structs import VOID, EvalBatch

_SIDE_OF_MANY = 256  # pixels; a row of many images shows them this small
_NOT_SURE = "no pseudo segment"  # padding, or the teacher is not sure


class EvaluationPictures:
    """Collects the first examples of an evaluation: image, truth, predictions and errors.

    Images are shown at the first of `eval.scales`.
    """

    def __init__(
        self,
        num_pictures: int,
        class_names: Sequence[str],
        miou: Callable[[np.ndarray, np.ndarray], float],
    ):
        """Collects examples.

        Args:
          num_pictures: how many, a row for each.
          class_names: K names.
          miou: the score of one image, from label and prediction; NaN if nothing is annotated.
        """
        self._num_pictures, self._miou = num_pictures, miou
        self._painter = Painter(class_names)
        self._rows: list[list[np.ndarray]] = []
        self._notes: list[list[str]] = []
        self._captions: list[str] = []
        self._seen: set[int] = set()

    def observe(self, batch: EvalBatch, predictions: Mapping[str, np.ndarray]) -> bool:
        """Takes examples from one batch (see `evaluate.Observer`).

        Args:
          batch: a batch of NumPy arrays [D, B, ...].
          predictions: {network: uint8 [D, B, Hl, Wl]}.

        Returns:
          Whether more examples are wanted.
        """
        last = list(predictions)[-1]
        self._captions = ["image", "ground truth", *predictions, f"errors of the {last}"]
        for example in itertools.islice(unpadded(batch), self._num_pictures - len(self._rows)):
            found = [example.cropped(labels) for labels in predictions.values()]
            row = self._painter.cells(example.image, [example.label, *found])
            self._rows.append([*row, self._painter.errors(row[0], example.label, found[-1])])
            scores = [self._miou(example.label, x) for x in found]
            self._notes.append(["", "", *(f"mIoU {x:.2f}" for x in scores), ""])
            self._seen.update(*(np.unique(x).tolist() for x in (example.label, *found)))
        return len(self._rows) < self._num_pictures

    def picture(self) -> np.ndarray | None:
        """Returns the grid of all rows with its legend, uint8 [H, W, 3]; None if there are none."""
        if not self._rows:
            return None
        return with_key(grid(self._rows, self._captions, self._notes), self._painter, self._seen)


def unlabeled_picture(
    weak: np.ndarray,
    weak_label: np.ndarray,
    strong: np.ndarray,
    strong_label: np.ndarray,
    truth: np.ndarray,
    class_names: Sequence[str],
) -> np.ndarray:
    """Draws a row for each unlabelled image: its views, and the pseudo segments of both.

    Args:
      weak: the weak views x^w, [B, H, W, 3] in 0..255.
      weak_label: the teacher's pseudo segments of `weak` as label maps, [B, h, w].
      strong: the strong views x^s, like `weak`.
      strong_label: the segments that the student learns on `strong`, like `weak_label`.
      truth: label maps [B, H, W] of the weak views; if they are 255 everywhere (unknown), there is
        no column for them.
      class_names: K names.

    Returns:
      uint8 [H', W', 3]. Pixels of which the teacher is not sure are hatched.
    """
    painter, known = Painter(class_names), bool((truth != VOID).any())
    captions = ["weak view", *(["ground truth"] if known else []), "pseudo segments"]
    captions += ["strong view", "strong segments"]
    rows = []
    for x, x_label, s, s_label, t in zip(weak, weak_label, strong, strong_label, truth):
        x, s = (np.clip(np.rint(image), 0, 255).astype(np.uint8) for image in (x, s))
        row = painter.cells(x, [*([t] if known else []), x_label])
        rows.append([*row, *painter.cells(s, [s_label])])
    shown = np.unique([weak_label, strong_label]).tolist()
    return with_key(grid(rows, captions), painter, shown, _NOT_SURE)


def pseudo_label_picture(
    images: np.ndarray,
    truth: np.ndarray,
    labels: Mapping[int, Sequence[np.ndarray | None]],
    class_names: Sequence[str],
) -> np.ndarray:
    """Draws how pseudo labels change over the steps: a row for each image, a column for each step.

    Args:
      images: uint8 [B, H, W, 3].
      truth: label maps uint8 [B, H, W]; if they are 255 everywhere (unknown), there is no column
        for them.
      labels: {step: B label maps, uint8 [h, w], 255 where no segment lies}; None in place of a
        label map leaves its cell empty.
      class_names: K names.

    Returns:
      uint8 [H', W', 3]. Pixels of which the teacher is not sure are hatched.
    """
    painter, known = Painter(class_names), bool((truth != VOID).any())
    captions = ["image", *(["ground truth"] if known else []), *(f"step {x}" for x in labels)]
    rows, seen = [], set()
    for place, image in enumerate(images):
        row = [*([truth[place]] if known else []), *(column[place] for column in labels.values())]
        rows.append(painter.cells(image, row, _SIDE_OF_MANY))
        seen.update(*(np.unique(x).tolist() for x in row if x is not None))
    return with_key(grid(rows, captions), painter, seen, _NOT_SURE)
