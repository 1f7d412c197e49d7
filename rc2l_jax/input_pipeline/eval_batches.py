"""Host side of evaluation: example -> decode -> resize to each scale -> uint8 batches.

Images of mixed sizes are padded to a few shapes. So the evaluation step is compiled only a few
times, and little of what it computes is padding. Which examples share a shape follows from their
sizes, which are known before any record is read. So all processes form the same batches without
talking to each other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np
from ml_collections import ConfigDict

from data.host_tf import tf
from rc2l_jax.input_pipeline import decode, geometry
from rc2l_jax.input_pipeline.geometry import Resize, Size
from rc2l_jax.input_pipeline.loading import (
    Arrays,
    batched,
    check_usable,
    load,
    split_devices,
)
from rc2l_jax.input_pipeline.shape_groups import group_examples
from rc2l_jax.input_pipeline.subsets import OpenSplit
from rc2l_jax.input_pipeline.threads import ahead
from rc2l_jax.structs import IMAGE_PAD, VOID, EvalBatch, EvalView


def eval_batches(
    config: ConfigDict,
    split: OpenSplit,
    num_devices: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    first: int | None = None,
) -> Iterator[EvalBatch]:
    """One pass over a split, in batches over all processes.

    They have `config.eval_batch_size` images, or as many more as make each device's share equal.

    Args:
      config: the run's.
      split: the data set and the examples to evaluate on, from `subsets.open_split`.
      num_devices: D, local devices.
      process_index, process_count: which of how many contiguous parts of each global batch to make.
      first: makes only the batches that hold one of the split's first `first` examples. They are
        the same, padding included, as without this argument. None for all batches.

    Returns:
      Batches of NumPy arrays [D, B, ...] of at most `eval.max_shapes` shapes, B for each of this
      process's D devices. Every process makes equally many, in the same order of shapes.

    Raises:
      DataError: images or masks cannot be used; or, while iterating, an example broke after it was
        prepared. It is not left out, because the score would then be of fewer examples.
    """
    local = num_devices * -(-config.eval_batch_size // (num_devices * process_count))
    dataset, keys = split
    check_usable(dataset, {"config.data.eval_split": keys})
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
        if first is None or group.positions[start] < first  # the least one of the batch
    ]

    def make(number: int) -> EvalBatch:
        group, view, start = plan[number]
        places = start + process_index * local + np.arange(local)
        fill = places >= len(group.positions)
        positions = group.positions[np.where(fill, 0, places)]  # the first one fills up
        chosen = [keys[position] for position in positions]
        arrays = load(view, dataset, chosen, labels=True)
        return _eval_batch(arrays, np.where(fill, -1, positions), num_devices)

    return ahead(make, range(len(plan)))


@functools.lru_cache(maxsize=32)  # tracing takes a second
def _evaluation_view(
    resizes: tuple[Resize, ...], shapes: tuple[Size, ...], label_shape: Size
) -> Callable[..., tuple[tf.Tensor, ...]]:
    """The view: (encoded images, masks, sizes [B, 2]) -> (label, label_size, image, size, ...)."""

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
    """Builds a batch from the arrays of `_evaluation_view`, with blanks where `index` is -1."""
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
