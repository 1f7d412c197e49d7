"""Host side of training: example -> decode -> geometry -> uint8 batches.

The training batch of a step is a pure function of (config, step, process, number of processes) and
the data set's files. Step s covers the positions s * batch .. (s + 1) * batch - 1 of an endless
sequence of examples. A position determines the epoch, the example (by a permutation drawn from
seed and epoch) and the seed of its geometry. So a run can start at any step, exactly and at no
cost. With `config.on_bad_example = "skip"` the next usable example of the epoch replaces one that
cannot be used. The position's seed stays, so that this, too, follows from position and files.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict

from data.dataset import Dataset
from data.errors import DataError
from data.host_tf import tf
from data.splits import Key
from rc2l_jax.input_pipeline.bad_examples import BadExamples
from rc2l_jax.input_pipeline.class_sampling import repeated
from rc2l_jax.input_pipeline.geometry import Geometry, training_view
from rc2l_jax.input_pipeline.loading import (
    Arrays,
    Instead,
    batched,
    check_usable,
    load,
    split_devices,
)
from rc2l_jax.input_pipeline.order import Order
from rc2l_jax.input_pipeline.subsets import RunData
from rc2l_jax.input_pipeline.threads import ahead
from rc2l_jax.structs import Batch

# Numbers of the two streams of examples, which have separate random numbers.
_LABELED, _UNLABELED = 0, 1
_NUM_STREAMS = 2


@dataclasses.dataclass(frozen=True)
class TrainBatches(Iterator[Batch]):
    """Endless training batches.

    Attributes:
      batches: the batches, of NumPy arrays [D, B, ...].
      bad: the examples that could not be used so far.
    """

    batches: Iterator[Batch]
    bad: BadExamples

    def __next__(self) -> Batch:
        return next(self.batches)


@dataclasses.dataclass(frozen=True)
class _Stream:
    """One process's part of the labelled or the unlabelled examples.

    Attributes:
      dataset: the examples' data set.
      order: their endless sequence.
      view: turns encoded images and masks, sizes and seeds into a part of a batch
        (`_training_view`).
      labels: whether masks are read.
      size: examples in this process's part of a batch.
      bad: counts the examples that cannot be used.
      key: the config key that names the examples, for messages.
    """

    dataset: Dataset
    order: Order
    view: Callable[..., tuple[tf.Tensor, ...]]
    labels: bool
    size: int
    bad: BadExamples
    key: str

    def batch(self, part: int) -> Arrays:
        """Returns (image, label, valid) of positions part * size .. (part + 1) * size - 1."""
        positions = part * self.size + np.arange(self.size)
        keys = self.order.keys_at(positions)
        seeds = np.stack([np.full(self.size, self.order.seed), positions], axis=1)

        def instead(place: int, error: DataError) -> Arrays:
            return self._replacement(keys[place], error, seeds[place])

        return self._load(keys, seeds, instead)

    def _replacement(self, key: Key, error: DataError, seed: np.ndarray) -> Arrays:
        """Returns (image, label, valid), [1, ...] each, of the epoch's next usable example."""
        self.bad.add(key, error)
        for other in self.order.others(int(seed[1])):
            try:
                return self._load([other], seed[None])
            except DataError as error:
                self.bad.add(other, error)
        raise self.bad.failure(f"{self.key}: none of its examples can be used:")

    def _load(
        self, keys: Sequence[Key], seeds: np.ndarray, instead: Instead | None = None
    ) -> Arrays:
        return load(self.view, self.dataset, keys, [seeds], labels=self.labels, instead=instead)


def train_batches(
    config: ConfigDict,
    data: RunData,
    start_step: int,
    num_devices: int,
    process_index: int = 0,
    process_count: int = 1,
) -> TrainBatches:
    """Endless training batches of one process.

    Args:
      config: the run's.
      data: the data set and its subsets, from `subsets.open_subsets`.
      start_step: step of the first batch.
      num_devices: D, local devices.
      process_index, process_count: which of how many contiguous parts of each global batch to make.

    Returns:
      Batches of NumPy arrays [D, B, ...], B for each of this process's D devices. With
      `config.unsup_weight == 0` the unlabelled fields hold 0 images.

    Raises:
      DataError: images or masks cannot be used; or, while iterating, an example broke after it was
        prepared and `config.on_bad_example` is "error", or more broke than
        `config.max_bad_examples`.
      ValueError: batch sizes cannot be divided over devices and processes, or the geometry's sizes
        or scales are impossible.
    """
    # Only the batches are made lazily, so that all checks below fail at once.
    dataset, subsets = data
    check_usable(dataset, {"config.data.labeled_split": subsets.labeled})
    view = _training_view(Geometry.from_config(config.data))
    bad = BadExamples(config.on_bad_example, config.max_bad_examples, process_index)

    def stream(size: str, number: int, split: str, keys: Sequence[Key], labels: bool) -> _Stream:
        local = _local_size(config, size, num_devices, process_count)
        order = Order(tuple(keys), config.seed * _NUM_STREAMS + number)
        return _Stream(dataset, order, view, labels, local, bad, f"config.data.{split}")

    often = repeated(dataset, subsets.labeled, config.data.class_sampling)
    labeled = stream("batch_size", _LABELED, "labeled_split", often, True).batch
    unlabeled = _no_images(config.data.crop_size)
    if config.unsup_weight > 0:
        split, read = "unlabeled_split", config.data.diagnostic_labels
        unlabeled = stream("unlabeled_batch_size", _UNLABELED, split, subsets.unlabeled, read).batch

    def make(step: int) -> Batch:
        part = step * process_count + process_index
        arrays = [split_devices(a, num_devices) for a in (*labeled(part), *unlabeled(part))]
        fields = ("image", "label", "valid")
        return Batch(**dict(zip((*fields, *(f"unlabeled_{f}" for f in fields)), arrays)))

    return TrainBatches(ahead(make, itertools.count(start_step)), bad)


def first_unlabeled(config: ConfigDict, data: RunData, count: int) -> Arrays:
    """The first unlabelled images as the run's first epoch shows them, whatever its step is.

    Args:
      config: the run's.
      data: the data set and its subsets, from `subsets.open_subsets`.
      count: how many images; there may be fewer.

    Returns:
      Image uint8 [B, S, S, 3], label uint8 [B, S, S] (255 everywhere without
      `data.diagnostic_labels`) and valid bool [B, S, S], with S the crop size.

    Raises:
      DataError: an example broke after it was prepared and `config.on_bad_example` is "error", or
        more than `config.max_bad_examples` broke.
    """
    dataset, subsets = data
    order = Order(tuple(subsets.unlabeled), config.seed * _NUM_STREAMS + _UNLABELED)
    view = _training_view(Geometry.from_config(config.data))
    bad = BadExamples(config.on_bad_example, config.max_bad_examples)
    labels, size = config.data.diagnostic_labels, min(count, len(order.keys))
    key = "config.data.unlabeled_split"
    return _Stream(dataset, order, view, labels, size, bad, key).batch(0)


@functools.lru_cache(maxsize=4)  # tracing takes a second
def _training_view(geometry: Geometry) -> Callable[..., tuple[tf.Tensor, ...]]:
    """The view: (encoded images, masks, sizes [B, 2], seeds [B, 2]) -> (image, label, valid)."""

    def view(
        image: tf.Tensor, label: tf.Tensor, size: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        return training_view(image, label, size, seed, geometry)

    return batched(view)


def _no_images(crop: int) -> Callable[[int], Arrays]:
    """The unlabelled stream of a supervised run, whose batches hold 0 images."""
    shape = (0, crop, crop)
    return lambda step: (
        np.zeros((*shape, 3), np.uint8),
        np.zeros(shape, np.uint8),
        np.zeros(shape, bool),
    )


def _local_size(config: ConfigDict, name: str, num_devices: int, process_count: int) -> int:
    """Returns how many of the `config[name]` examples of a global batch one process makes.

    Raises:
      ValueError: the number cannot be divided over the devices of all processes.
    """
    size, parts = config[name], num_devices * process_count
    if size < 1 or size % parts:
        raise ValueError(
            f"config.{name} = {size} cannot be divided over {parts} devices; "
            f"use a multiple of {parts}."
        )
    return size // process_count
