"""The examples of an evaluation batch without their padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rc2l_jax.structs import EvalBatch


class Unpadded(NamedTuple):
    """An example of a batch, without padding.

    Attributes:
      position: of the example in the split.
      at: index of the example in the batch's arrays, which are [D, B, ...].
      image: uint8 [H, W, 3], at the first of `eval.scales`.
      label: uint8 [Hl, Wl], class ids or 255.
    """

    position: int
    at: tuple[int, ...]
    image: np.ndarray
    label: np.ndarray

    def cropped(self, labels: np.ndarray) -> np.ndarray:
        """This example's part, [Hl, Wl], of predictions [D, B, Hl', Wl'] at the padded size."""
        height, width = self.label.shape
        return labels[self.at][:height, :width]


def unpadded(batch: EvalBatch) -> Iterator[Unpadded]:
    """Yields the examples of a batch, except those that only fill it up.

    Args:
      batch: of NumPy arrays [D, B, ...].
    """
    view = batch.views[0]
    for at in np.ndindex(batch.index.shape):
        if batch.index[at] >= 0:
            image, label = (
                array[at][tuple(map(slice, size[at]))]
                for array, size in ((view.image, view.size), (batch.label, batch.label_size))
            )
            yield Unpadded(int(batch.index[at]), at, image, label)
