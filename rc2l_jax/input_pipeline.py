"""Host side of training: example -> decode -> geometry -> uint8 batches.

The training batch of a step is a pure function of (config, seed, step, process, number of
processes). Step s covers the example positions s * batch .. (s + 1) * batch - 1 of an endless
sequence; a position gives the epoch, the example (a permutation keyed by seed and epoch) and the
seed of its geometry. Starting at any step is therefore exact and costs nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict

from data import splits
from data.catalog import open_dataset
from data.dataset import Dataset
from data.errors import DataError
from data.host_tf import tf
from data.splits import Key
from rc2l_jax import host_augment
from rc2l_jax.host_augment import Geometry
from rc2l_jax.host_loader import (
    Arrays,
    Order,
    ahead,
    batched,
    check_labels,
    fetch,
    local_size,
    run_view,
    split_devices,
)
from rc2l_jax.structs import Batch

# Streams draw from separate random numbers.
_LABELED, _UNLABELED = 0, 1
_NUM_STREAMS = 2


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What the rest of the program must know about the data.

    Attributes:
      name: of the data set.
      class_names: K names, in the order of their ids.
      num_examples: split of the data set -> its number of examples.
    """

    name: str
    class_names: tuple[str, ...]
    num_examples: dict[str, int]


def dataset_info(config: ConfigDict) -> DatasetInfo:
    """Describes the data set.

    Raises:
      DataError: the data cannot be used.
    """
    dataset = open_dataset(config.data)
    counts = {split: len(ids) for split, ids in dataset.ids.splits.items()}
    return DatasetInfo(dataset.name, dataset.class_names, counts)


def split_ids(config: ConfigDict, split: str) -> list[str]:
    """Ids of a split's examples: entry i belongs to `EvalBatch.index == i`."""
    dataset = open_dataset(config.data)
    return [dataset.ids.id(key) for key in splits.resolve(split, dataset.ids, "split")]


def train_batches(
    config: ConfigDict,
    start_step: int,
    num_devices: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Endless training batches of one process.

    Args:
      config: the run's.
      start_step: step of the first batch.
      num_devices: D, local devices.
      process_index, process_count: which contiguous part of each global batch to make.

    Returns:
      Batches of NumPy arrays [D, B / D, ...]. With `config.unsup_weight == 0` the unlabelled
      fields hold 0 images.

    Raises:
      DataError: files, masks or splits that cannot be used; also while iterating, for a record
        that was damaged after it was prepared.
      ValueError: batch sizes that devices and processes do not divide, or wrong geometry.
    """
    # Only the batches are lazy: whatever can be checked fails here and now.
    semi = config.unsup_weight > 0
    crop = config.data.crop_size
    dataset, subsets = open_subsets(config)
    check_labels(dataset, subsets.labeled, "config.data.labeled_split")
    view = _training_view(Geometry.from_config(config.data))

    def stream(
        name: str, number: int, keys: Sequence[Key], labels: bool
    ) -> Callable[[int], Arrays]:
        size = local_size(config, name, num_devices, process_count)
        order = Order(tuple(keys), config.seed * _NUM_STREAMS + number)

        def make(step: int) -> Arrays:
            positions = (step * process_count + process_index) * size + np.arange(size)
            chosen = order.keys_at(positions)
            records = fetch(dataset, chosen, labels)
            examples = [dataset.example(key) for key in chosen]
            sizes = np.array([(e.height, e.width) for e in examples], np.int32)
            seeds = np.stack([np.full(size, order.seed), positions], axis=1)
            return run_view(view, dataset, chosen, (*records, sizes, seeds))

        return make

    labeled = stream("batch_size", _LABELED, subsets.labeled, True)
    unlabeled = _no_images(crop)
    if semi:
        read = config.data.diagnostic_labels
        unlabeled = stream("unlabeled_batch_size", _UNLABELED, subsets.unlabeled, read)

    def make(step: int) -> Batch:
        arrays = [split_devices(a, num_devices) for a in (*labeled(step), *unlabeled(step))]
        fields = ("image", "label", "valid")
        return Batch(**dict(zip((*fields, *(f"unlabeled_{f}" for f in fields)), arrays)))

    return ahead(make, itertools.count(start_step))


def open_subsets(config: ConfigDict) -> tuple[Dataset, splits.Subsets]:
    """The data set and the examples that a run labels, leaves unlabelled and evaluates on.

    Raises:
      DataError: see `splits.resolve_all`; also if `config.unsup_weight` is not 0 and no unlabelled
        split is named, or if an image is evaluated on whose copy is trained on.
    """
    data, semi = config.data, config.unsup_weight > 0
    if semi and not data.unlabeled_split:
        raise DataError(
            "config.data.unlabeled_split is empty, but config.unsup_weight is not 0; name the "
            "unlabelled images, or set config.unsup_weight = 0."
        )
    dataset = open_dataset(data)
    unlabeled = data.unlabeled_split if semi else ""
    texts = (data.labeled_split, unlabeled, data.eval_split)
    subsets = splits.resolve_all(*texts, dataset.ids, data.num_labeled)
    # A photo may lie in two folders, or under two names.
    return dataset, splits.separate(subsets, lambda k: dataset.example(k).digest, dataset.ids)


@functools.lru_cache(maxsize=4)  # tracing takes a second
def _training_view(geometry: Geometry) -> Callable[..., tuple[tf.Tensor, ...]]:
    """(encoded images, encoded labels, sizes [B, 2], seeds [B, 2]) -> (image, label, valid)."""

    def view(
        image: tf.Tensor, label: tf.Tensor, size: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        return host_augment.training_view(image, label, size, seed, geometry)

    return batched(view)


def _no_images(crop: int) -> Callable[[int], Arrays]:
    """The unlabelled stream of a supervised run."""
    shape = (0, crop, crop)
    return lambda step: (
        np.zeros((*shape, 3), np.uint8),
        np.zeros(shape, np.uint8),
        np.zeros(shape, bool),
    )
