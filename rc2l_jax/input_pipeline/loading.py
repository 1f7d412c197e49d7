"""What the training and evaluation pipelines share: order, records, threads, parts of a batch.

Each thread reads its batch's records in Python and hands them to one tf.data pipeline. No Python
runs inside tf.data: a process that ends while TensorFlow waits for Python may hang for ever.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from ml_collections import ConfigDict

from data.dataset import Dataset
from data.errors import DataError
from data.host_tf import reason, tf
from data.images import ImageError, check_claims
from data.splits import Key

_MAX_THREADS = 8
_AHEAD = 2  # batches in preparation, besides one a thread

S, T = TypeVar("S"), TypeVar("T")
Arrays = tuple[np.ndarray, ...]
Instead = Callable[[int, DataError], Arrays]


@dataclasses.dataclass(frozen=True)
class Order:
    """The endless sequence of one stream's examples: every epoch in an order of its own.

    Attributes:
      keys: the examples of an epoch.
      seed: two streams with different seeds have unrelated orders.
    """

    keys: tuple[Key, ...]
    seed: int

    def keys_at(self, positions: np.ndarray) -> list[Key]:
        """The examples at some positions of the sequence, int64 [B]."""
        epochs, places = np.divmod(positions, len(self.keys))
        return [self.keys[self._epoch(int(e))[p]] for e, p in zip(epochs, places)]

    def others(self, position: int) -> Iterator[Key]:
        """The other examples of a position's epoch, from there on and then from its beginning."""
        epoch, place = divmod(position, len(self.keys))
        for index in np.roll(self._epoch(epoch), -place)[1:]:
            yield self.keys[index]

    def _epoch(self, epoch: int) -> np.ndarray:
        return _permutation(len(self.keys), self.seed, epoch)


@functools.lru_cache(maxsize=16)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """int64 [count]. Philox's raw output is fixed for ever, unlike Generator's methods."""
    key = np.array([seed, epoch], np.int64).view(np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable")


def batched(view: Callable[..., tuple[tf.Tensor, ...]]) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Turns a function of one example's tensors into one of a batch; examples run in parallel."""

    @tf.function(reduce_retracing=True)
    def apply(*batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        examples = tf.data.Dataset.from_tensor_slices(batch)
        views = examples.map(view, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        size = tf.shape(batch[0], tf.int64)[0]
        return views.batch(size).get_single_element()

    return apply


def ahead(
    make: Callable[[S], T],
    items: Iterable[S],
    weigh: Callable[[S], int] = lambda item: 0,
    most: int = 0,
) -> Iterator[T]:
    """Yields make(item) for each item, in order, while threads work on the next ones.

    What `make` raises is raised in place of its result.

    Args:
      make: called in threads.
      items: taken one by one: as many as there are threads, and two, are begun and not yet yielded.
      weigh: what an item takes while it is begun and not yet yielded, in bytes.
      most: fewer items are begun where together they take more. What takes more alone is waited
        for before another item is taken.
    """
    threads = min(_num_cores(), _MAX_THREADS)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="input")
    pending: collections.deque = collections.deque()
    weight = 0
    # No clean-up: a pool that is dropped ends its threads, even while Python shuts down.
    for item in items:
        pending.append((pool.submit(make, item), weigh(item)))
        weight += pending[-1][1]
        del item  # it may be large, and the next one may be long in coming
        while len(pending) >= threads + _AHEAD or weight > most:
            future, freed = pending.popleft()
            weight -= freed
            yield future.result()
            del future
    while pending:
        yield pending.popleft()[0].result()


def _num_cores() -> int:
    """Cores that this process may use: a batch system may lend fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load(
    view: Callable[..., tuple[tf.Tensor, ...]],
    dataset: Dataset,
    keys: Sequence[Key],
    extra: Sequence[np.ndarray] = (),
    *,
    labels: bool,
    instead: Instead | None = None,
) -> Arrays:
    """Reads some examples' records and applies a `batched` view to them.

    If that fails, it is done again one by one: only so it shows which example it was.

    Args:
      view: of encoded images, encoded masks, sizes (int32 [B, 2]) and `extra`.
      dataset: of the examples.
      keys: the examples.
      extra: arrays [B, ...].
      labels: whether to read the masks; if not, they are empty.
      instead: (place in `keys`, what is wrong with that example) -> the view's arrays, [1, ...]
        each, to take in its place.

    Returns:
      The view's arrays, [B, ...] each.

    Raises:
      DataError: an example cannot be read or decoded, and there is no `instead`.
    """
    try:
        return _apply(view, dataset, keys, extra, labels)
    except (DataError, ImageError, tf.errors.OpError) as error:
        if len(keys) == 1:
            named = _named(dataset, keys[0], error)
            if instead is None:
                raise named from error
            return instead(0, named)
    singles = []
    for place, key in enumerate(keys):
        alone = [array[place : place + 1] for array in extra]
        mend = instead and (lambda _, error, place=place: instead(place, error))
        singles.append(load(view, dataset, [key], alone, labels=labels, instead=mend))
    return tuple(np.concatenate(fields) for fields in zip(*singles))


def _apply(
    view: Callable[..., tuple[tf.Tensor, ...]],
    dataset: Dataset,
    keys: Sequence[Key],
    extra: Sequence[np.ndarray],
    labels: bool,
) -> Arrays:
    images, masks = dataset.fetch(keys, labels=labels)
    for encoded in (*images, *masks):
        check_claims(encoded)
    examples = [dataset.example(key) for key in keys]
    sizes = np.array([(example.height, example.width) for example in examples], np.int32)
    fields = view(tf.constant(images), tf.constant(masks), sizes, *extra)
    return tuple(np.asarray(field) for field in fields)  # `.numpy()` would copy


def _named(dataset: Dataset, key: Key, error: Exception) -> DataError:
    """What is wrong with one example, with its name."""
    name = f"{key[0]}/{dataset.ids.id(key)}"
    if isinstance(error, DataError):  # its record cannot be read
        return DataError(f"{name}: {error}")
    folder = dataset.records(key[0]).path
    why = reason(error) if isinstance(error, tf.errors.OpError) else error
    return DataError(
        f"{name} cannot be decoded ({why}): the records in {folder} are damaged; delete "
        "that folder and run --mode=prepare."
    )


def split_devices(array: np.ndarray, num_devices: int) -> np.ndarray:
    """Brings [D * B, ...] to [D, B, ...]."""
    return array.reshape(num_devices, len(array) // num_devices, *array.shape[1:])


def local_size(config: ConfigDict, name: str, num_devices: int, process_count: int) -> int:
    """Returns how many examples of the global batch `config[name]` one process makes.

    Raises:
      ValueError: devices and processes do not divide it.
    """
    size, parts = config[name], num_devices * process_count
    if size < 1 or size % parts:
        raise ValueError(
            f"config.{name} = {size} cannot be divided over {parts} devices; "
            f"use a multiple of {parts}."
        )
    return size // process_count


def check_labels(dataset: Dataset, keys: Sequence[Key], key: str) -> None:
    """Refuses examples whose masks cannot be used; `key` of the config names them.

    Raises:
      DataError: with every such mask.
    """
    if errors := dataset.label_errors(keys):
        raise DataError([f"{key}: {error}" for error in errors])
