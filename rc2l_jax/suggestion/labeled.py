"""The photos that have masks already, and how often these show each class."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from data import splits
from data.catalog import open_dataset
from data.dataset import Dataset
from data.errors import DataError
from data.host_tf import tf
from data.splits import Key
from rc2l_jax.input_pipeline import decode
from rc2l_jax.input_pipeline.class_sampling import pixel_counts


@dataclasses.dataclass(frozen=True)
class Labeled:
    """Photos with masks.

    Attributes:
      dataset: the data set.
      training: the examples of `data.labeled_split` that have masks.
      measuring: those of `data.eval_split`, if it is there.
    """

    dataset: Dataset
    training: Sequence[Key]
    measuring: Sequence[Key]

    @property
    def keys(self) -> list[Key]:
        """All examples, those for training first."""
        return [*self.training, *self.measuring]

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each of `keys`."""
        return [(x.height, x.width) for x in map(self.dataset.example, self.keys)]

    def reader(self) -> Callable[[int], np.ndarray]:
        """Returns a function from a position in `keys` to the image uint8 [H, W, 3]."""
        keys = self.keys

        def read(position: int) -> np.ndarray:
            (encoded,), _ = self.dataset.fetch([keys[position]], labels=False)
            return decode.decode_image(tf.constant(encoded)).numpy()

        return read

    def photos_with(self) -> np.ndarray:
        """How many photos for training show each class, int64 [K]."""
        shown = np.zeros(len(self.dataset.class_names), np.int64)
        for counts in pixel_counts(self.dataset, self.training):
            shown += counts[: len(shown)] > 0
        return shown


def open_labeled(data: ConfigDict) -> Labeled:
    """Opens the photos that have masks.

    Args:
      data: `config.data`; it stays as it is. Its number of classes is not read.

    Raises:
      DataError: the data set or its `labeled_split` cannot be used.
    """
    data = data.copy_and_resolve_references()
    data.num_classes, data.unlabeled_split = 0, ""
    dataset = open_dataset(data)

    def with_masks(key: str) -> list[Key]:
        named = splits.resolve(data[key], dataset.ids, f"config.data.{key}")
        return [x for x in named if not dataset.example(x).error]

    training = with_masks("labeled_split")
    measuring: list[Key] = []
    with contextlib.suppress(DataError):  # the first few photos may be too few to hold any back
        measuring = with_masks("eval_split")
    taken = set(training)
    return Labeled(dataset, training, [key for key in measuring if key not in taken])
