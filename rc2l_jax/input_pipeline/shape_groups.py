"""Divides images of mixed sizes into a few groups, each of which is padded to one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from data.dataset import Dataset
from data.host_tf import tf
from data.splits import Key
from rc2l_jax.input_pipeline.geometry import Resize, Size
from rc2l_jax.structs import STRIDE

_MOST_SHAPES = 1000  # that `merge_shapes` is given, which takes it two seconds


class Group(NamedTuple):
    """Examples whose batches are padded to one shape.

    Attributes:
      views: padded size (He, We) of each view.
      label: padded size (Hl, Wl) of the labels.
      positions: int64, positions of the examples in the split, ascending.
    """

    views: tuple[Size, ...]
    label: Size
    positions: np.ndarray


def group_examples(
    dataset: Dataset,
    keys: Sequence[Key],
    resizes: Sequence[Resize],
    batch_size: int,
    max_shapes: int,
) -> list[Group]:
    """Divides a split into at most `max_shapes` groups, in the order of their first examples.

    Args:
      dataset: supplies every example's size.
      keys: the examples of the split.
      resizes: how each view resizes images.
      batch_size: examples in a batch, over all devices and processes.
      max_shapes: largest number of groups.

    Returns:
      The groups; every example is in exactly one.
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
    """As `group_examples`, for label sizes int [examples, 2] of one or more examples."""
    views = [_round_up(resize(labels).numpy()) for resize in resizes]
    sizes = np.stack([*views, labels], axis=1)  # [examples, views + 1, 2]
    # Sizes are compared in steps of some pixels. To the pixel almost every label has a size of its
    # own, and to tell such sizes apart would save hardly any padding.
    step = STRIDE
    while True:
        shapes, which = np.unique(_round_up(sizes, step), axis=0, return_inverse=True)
        if len(shapes) <= _MOST_SHAPES:
            break
        step *= 2
    which = which.ravel()  # NumPy 2.0.0 does not return it flat
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
    """Decides which shapes are padded to a common one.

    Pairs of groups are merged, the one that adds the least cost first, until at most `max_shapes`
    groups are left and every further merge would add cost. A group costs the area of its common
    shape times the examples in its batches, including those that only fill up the last batch.

    Args:
      shapes: int [S, planes, 2], height and width of each plane (views and label) of an example.
      counts: int [S], number of examples of each shape.
      batch_size: examples in a batch.
      max_shapes: largest number of groups.

    Returns:
      int64 [S], the group of each shape.
    """
    shapes, counts, group_of = shapes.copy(), counts.copy(), np.arange(len(shapes))
    left = set(range(len(shapes)))

    def cost(shapes: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return shapes.prod(-1).sum(-1) * (-(-counts // batch_size) * batch_size)

    def added(i: int, others: np.ndarray) -> np.ndarray:
        """The cost that merging group i with each of the others adds."""
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


def _round_up(sizes: np.ndarray, step: int = STRIDE) -> np.ndarray:
    return -(-sizes // step) * step
