"""Pictures of examples that a run writes at each evaluation: grids made with `pictures`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from rc2l_jax.input_pipeline.unpadded import unpadded
from rc2l_jax.reports.pictures import cells, grid
from rc2l_jax.structs import VOID, EvalBatch

_SIDE_OF_MANY = 256  # pixels; a row of many images shows them this small


class EvaluationPictures:
    """Collects the first examples of an evaluation: image, ground truth, each network's prediction.

    Images are shown at the first of `eval.scales`.
    """

    def __init__(self, num_pictures: int):
        """Collects up to `num_pictures` examples, a row for each."""
        self._num_pictures = num_pictures
        self._rows: list[list[np.ndarray]] = []
        self._captions = ["image", "ground truth"]

    def observe(self, batch: EvalBatch, predictions: Mapping[str, np.ndarray]) -> bool:
        """Takes examples from one batch (see `evaluate.Observer`).

        Args:
          batch: a batch of NumPy arrays [D, B/D, ...].
          predictions: {network: uint8 [D, B/D, Hl, Wl]}.

        Returns:
          Whether more examples are wanted.
        """
        self._captions = ["image", "ground truth", *predictions]
        for example in itertools.islice(unpadded(batch), self._num_pictures - len(self._rows)):
            labels = [example.label, *map(example.cropped, predictions.values())]
            self._rows.append(cells(example.image, labels))
        return len(self._rows) < self._num_pictures

    def picture(self) -> np.ndarray | None:
        """Returns the grid of all rows, uint8 [H, W, 3], or None if there are none."""
        return grid(self._rows, self._captions) if self._rows else None


def unlabeled_picture(
    weak: np.ndarray,
    weak_label: np.ndarray,
    strong: np.ndarray,
    strong_label: np.ndarray,
    truth: np.ndarray,
) -> np.ndarray:
    """Draws a row for each unlabelled image: its views, and the pseudo segments of both.

    Args:
      weak: the weak views x^w, [B, H, W, 3] in 0..255.
      weak_label: the teacher's pseudo segments of `weak` as label maps, [B, h, w].
      strong: the strong views x^s, like `weak`.
      strong_label: the segments that the student learns on `strong`, like `weak_label`.
      truth: label maps [B, H, W] of the weak views; if they are 255 everywhere (unknown), there is
        no column for them.

    Returns:
      uint8 [H', W', 3].
    """
    known = bool((truth != VOID).any())
    captions = ["weak view", *(["ground truth"] if known else []), "pseudo segments"]
    captions += ["strong view", "strong segments"]
    rows = []
    for x, x_label, s, s_label, t in zip(weak, weak_label, strong, strong_label, truth):
        x, s = (np.clip(np.rint(image), 0, 255).astype(np.uint8) for image in (x, s))
        rows.append([*cells(x, [*([t] if known else []), x_label]), *cells(s, [s_label])])
    return grid(rows, captions)


def pseudo_label_picture(
    images: np.ndarray,
    truth: np.ndarray,
    labels: Mapping[int, Sequence[np.ndarray | None]],
) -> np.ndarray:
    """Draws how pseudo labels change over the steps: a row for each image, a column for each step.

    Args:
      images: uint8 [B, H, W, 3].
      truth: label maps uint8 [B, H, W]; if they are 255 everywhere (unknown), there is no column
        for them.
      labels: {step: B label maps, uint8 [h, w], 255 where no segment lies}; None in place of a
        label map leaves its cell empty.

    Returns:
      uint8 [H', W', 3].
    """
    known = bool((truth != VOID).any())
    captions = ["image", *(["ground truth"] if known else []), *(f"step {x}" for x in labels)]
    rows = []
    for place, image in enumerate(images):
        row = [*([truth[place]] if known else []), *(column[place] for column in labels.values())]
        rows.append(cells(image, row, _SIDE_OF_MANY))
    return grid(rows, captions)
