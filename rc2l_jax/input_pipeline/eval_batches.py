"""Host side of evaluation: example -> decode -> resize to each scale -> uint8 batches.

Images of mixed sizes are padded to a few shapes, so that the evaluation step compiles a few times
and little of what it computes is padding. Which examples share a shape follows from sizes that are
known before any record is read: every process comes to the same batches on its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from data import splits
from data.catalog import open_dataset
from data.dataset import Dataset
from data.host_tf import tf
from data.splits import Key
from rc2l_jax.input_pipeline import decode, geometry
from rc2l_jax.input_pipeline.geometry import IMAGE_PAD
from rc2l_jax.input_pipeline.loading import (
    Arrays,
    ahead,
    batched,
    check_labels,
    load,
    local_size,
    split_devices,
)
from rc2l_jax.structs import STRIDE, VOID, EvalBatch, EvalView

Size = tuple[int, int]
_MOST_SHAPES = 1000  # that `merge_shapes` begins with: two seconds


class Resize(NamedTuple):
    """To what size a view resizes an image: see `host_augment.resized_size`."""

    short_edge: int
    max_long_edge: int
    scale: float

    def __call__(self, size: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Maps image sizes [..., 2] to int32 [..., 2]."""
        return geometry.resized_size(size, self.short_edge, self.max_long_edge, self.scale)


class Group(NamedTuple):
    """Examples whose batches are padded to one shape.

    Attributes:
      views: (He, We) of each view.
      label: (Hl, Wl).
      positions: of the examples in the split, int64, ascending.
    """

    views: tuple[Size, ...]
    label: Size
    positions: np.ndarray


def eval_batches(
    config: ConfigDict,
    split: str,
    num_devices: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    first: int | None = None,
) -> Iterator[EvalBatch]:
    """One pass over a split, `config.eval_batch_size` examples a batch over all processes.

    Args:
      config: the run's.
      split: a split text; see `data.splits`.
      num_devices: D, local devices.
      process_index, process_count: which contiguous part of each global batch to make.
      first: leaves out batches without any of the first so many examples; the others stay as they
        are, shapes and all.

    Returns:
      Batches of NumPy arrays [D, B / D, ...] of at most `eval.max_shapes` shapes; equally many on
      every process, in the same order of shapes.

    Raises:
      DataError: files, masks or the split cannot be used; also while iterating, for an example
        that broke after it was prepared: without it the score would be another one.
      ValueError: a batch size that devices and processes do not divide.
    """
    local = local_size(config, "eval_batch_size", num_devices, process_count)
    dataset = open_dataset(config.data)
    keys = splits.resolve(split, dataset.ids, "config.data.eval_split")
    check_labels(dataset, keys, "config.data.eval_split")
    data = config.data
    resizes = tuple(
        Resize(data.eval_short_edge, data.max_long_edge, scale) for scale in config.eval.scales
    )
    size = local * process_count
    groups = group_examples(dataset, keys, resizes, size, config.eval.max_shapes)
    plan = [
        (group, _evaluation_view(resizes, group.views, group.label), start)
        for group in groups
        for start in range(0, len(group.positions), size)
        if first is None or group.positions[start] < first  # positions ascend
    ]

    def make(number: int) -> EvalBatch:
        group, view, start = plan[number]
        places = start + process_index * local + np.arange(local)
        fill = places >= len(group.positions)
        positions = group.positions[np.where(fill, 0, places)]  # any of the group can fill up
        chosen = [keys[position] for position in positions]
        arrays = load(view, dataset, chosen, labels=True)
        return _eval_batch(arrays, np.where(fill, -1, positions), num_devices)

    return ahead(make, range(len(plan)))


def group_examples(
    dataset: Dataset,
    keys: Sequence[Key],
    resizes: Sequence[Resize],
    batch_size: int,
    max_shapes: int,
) -> list[Group]:
    """Divides a split into at most `max_shapes` groups, in the order of their first examples.

    Args:
      dataset: knows every example's size.
      keys: the split.
      resizes: one a view.
      batch_size: B, over all devices and processes.
      max_shapes: see `merge_shapes`.

    Returns:
      The groups; every example is in one of them.
    """
    examples = [dataset.example(key) for key in keys]
    labels = np.array([(example.height, example.width) for example in examples])
    return group_sizes(labels, resizes, batch_size, max_shapes)


def group_sizes(
    labels: np.ndarray,
    resizes: Sequence[Callable[[np.ndarray], tf.Tensor]],
    batch_size: int,
    max_shapes: int,
) -> list[Group]:
    """As `group_examples`, of sizes int [examples, 2], at least one."""
    views = [_round_up(resize(labels).numpy()) for resize in resizes]
    sizes = np.stack([*views, labels], axis=1)  # [examples, views + 1, 2]
    # To the pixel almost every label size is another; that fine a difference is worth no shape.
    step = STRIDE
    while True:
        shapes, which = np.unique(_round_up(sizes, step), axis=0, return_inverse=True)
        if len(shapes) <= _MOST_SHAPES:
            break
        step *= 2
    which = which.ravel()  # NumPy 2.0.0 keeps its dimensions
    group_of = merge_shapes(shapes, np.bincount(which), batch_size, max_shapes)[which]
    groups = []
    for group in dict.fromkeys(group_of):
        (positions,) = np.nonzero(group_of == group)
        *view_sizes, label = (tuple(map(int, size)) for size in sizes[positions].max(0))
        groups.append(Group(tuple(view_sizes), label, positions))
    return groups


def merge_shapes(
    shapes: np.ndarray, counts: np.ndarray, batch_size: int, max_shapes: int
) -> np.ndarray:
    """Decides which shapes are padded to a common one: greedily, the cheapest pair first.

    A shape costs its area times the examples in its batches, those that fill up the last batch
    included. Pairs are also merged as long as that costs nothing.

    Args:
      shapes: int [S, planes, 2], height and width of each plane of an example.
      counts: int [S], examples of each shape.
      batch_size: examples a batch.
      max_shapes: groups to end with, at most.

    Returns:
      int64 [S], the group of each shape.
    """
    shapes, counts, group_of = shapes.copy(), counts.copy(), np.arange(len(shapes))
    left = set(range(len(shapes)))

    def cost(shapes: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return shapes.prod(-1).sum(-1) * (-(-counts // batch_size) * batch_size)

    def added(i: int, others: np.ndarray) -> np.ndarray:
        """What it costs to merge group i with each of the others."""
        merged = cost(np.maximum(shapes[i], shapes[others]), counts[i] + counts[others])
        return merged - cost(shapes[i], counts[i]) - cost(shapes[others], counts[others])

    price = np.full((len(shapes), len(shapes)), np.inf)
    for i in range(1, len(shapes)):
        price[i, :i] = added(i, np.arange(i))
    while len(left) > 1:
        j, i = np.unravel_index(price.argmin(), price.shape)  # i < j
        if len(left) <= max_shapes and price[j, i] > 0:
            break
        shapes[i], counts[i] = np.maximum(shapes[i], shapes[j]), counts[i] + counts[j]
        group_of[group_of == j] = i
        left.remove(j)
        price[j], price[:, j] = np.inf, np.inf
        others = np.array(sorted(left - {i}), int)
        price[np.maximum(i, others), np.minimum(i, others)] = added(i, others)
    return group_of


@functools.lru_cache(maxsize=32)  # tracing takes a second
def _evaluation_view(
    resizes: tuple[Resize, ...], shapes: tuple[Size, ...], label_shape: Size
) -> Callable[..., tuple[tf.Tensor, ...]]:
    """(encoded images, encoded labels, sizes [B, 2]) -> (label, label_size, image, size, ...)."""

    def view(image: tf.Tensor, label: tf.Tensor, extent: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels = decode.decode_image(image)
        pixels = decode.with_size(pixels, tf.shape(pixels)[:2], extent)
        ids = decode.decode_label(label, extent)
        parts = [geometry.pad_to(ids, label_shape, VOID), extent]
        for resize, shape in zip(resizes, shapes):
            size = resize(extent)
            resized = geometry.resample_image(pixels, size, tf.zeros([2], tf.int32), size)
            parts += [geometry.pad_to(resized, shape, IMAGE_PAD), size]
        return tuple(parts)

    return batched(view)


def _eval_batch(arrays: Arrays, index: np.ndarray, num_devices: int) -> EvalBatch:
    """Puts what `_evaluation_view` made in its place; examples with index -1 show nothing."""
    fill = index < 0
    label, label_size, *views = arrays
    label = np.where(fill[:, None, None], np.uint8(VOID), label)
    views[::2] = [np.where(fill[:, None, None, None], np.uint8(IMAGE_PAD), x) for x in views[::2]]
    label, label_size, index, *views = (
        split_devices(array, num_devices)
        for array in (label, label_size, index.astype(np.int32), *views)
    )
    return EvalBatch(
        views=tuple(EvalView(*pair) for pair in zip(views[::2], views[1::2])),
        label=label,
        label_size=label_size,
        index=index,
    )


def _round_up(sizes: np.ndarray, step: int = STRIDE) -> np.ndarray:
    return -(-sizes // step) * step
