"""Predicts a stream of images of any sizes, with few of them in memory at a time.

Images are prepared, batched and predicted as in evaluation, so that predictions are those that
`--mode=eval` counts. They are read when their batch is due, so that there may be any number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from rc2l_jax.input_pipeline import geometry
from rc2l_jax.input_pipeline.loading import split_devices
from rc2l_jax.input_pipeline.shape_groups import Group, group_sizes
from rc2l_jax.input_pipeline.threads import ahead
from rc2l_jax.prediction.files import Prediction
from rc2l_jax.prediction.network import Network, Outputs
from rc2l_jax.prediction.photos import PhotoError
from rc2l_jax.structs import IMAGE_PAD, EvalBatch, EvalView

_BATCH_BYTES = 1 << 27  # limit for a batch's images and results; large images make smaller batches
# Limit for images that wait for the network, and for results that wait to be written: enough for a
# few of 20 megapixels. On many cores, a limit on their number alone would let them fill the memory.
WAITING_BYTES = 1 << 29


class _Job(NamedTuple):
    """A batch to prepare.

    Attributes:
      group: has the shapes that the batch is padded to.
      positions: the examples in the batch, int64, at most `size`.
      size: how many places the batch has, over all devices.
      devices: how many devices share it.
      weight: the bytes that it takes while it is prepared and waits.
    """

    group: Group
    positions: np.ndarray
    size: int
    devices: int
    weight: int


class Ready(NamedTuple):
    """A prepared batch on the host.

    Attributes:
      batch: the batch, of NumPy arrays [D, B, ...].
      images: {position: image} of the examples in it.
      failed: {position: reason} of the job's examples that could not be read.
    """

    batch: EvalBatch
    images: dict[int, np.ndarray]
    failed: dict[int, str]


class Result(NamedTuple):
    """The result of one example.

    Attributes:
      position: its position among the sizes that `predict_stream` was given.
      image: uint8 [H, W, 3]; None if there is no prediction.
      prediction: its prediction, or None.
      error: why there is no prediction; "" if there is one.
    """

    position: int
    image: np.ndarray | None
    prediction: Prediction | None
    error: str

    @property
    def weight(self) -> int:
        """How many bytes image and prediction take."""
        arrays = (self.image, *(self.prediction or ()))
        return sum(array.nbytes for array in arrays if array is not None)


def predict_stream(
    network: Network,
    sizes: Sequence[tuple[int, int]],
    read: Callable[[int], np.ndarray],
    probabilities: bool,
) -> Iterator[Result]:
    """Predicts examples, and yields a result for each. Examples of similar sizes come together.

    Args:
      network: the trained network.
      sizes: (H, W) of each example.
      read: maps a position to its image, uint8 [H, W, 3], or raises PhotoError. It is called in
        threads, when the image's batch is due.
      probabilities: whether predictions have every class's share at every pixel.
    """
    pending: tuple[Ready, Outputs] | None = None
    for ready in prepared_batches(network, sizes, read, probabilities):
        yield from (Result(i, None, None, error) for i, error in ready.failed.items())
        outputs = network.run(ready.batch, probabilities) if ready.images else ()
        # The results fetched here are those of the batch before: so the device stays busy, and at
        # most two batches are in its memory.
        if pending is not None:
            yield from _results(*pending)
        pending = ready, outputs
        if sum(array.nbytes for array in outputs) > WAITING_BYTES:  # keep no others beside them
            del ready, outputs
            yield from _results(*pending)
            pending = None
    if pending is not None:
        yield from _results(*pending)


def prepared_batches(
    network: Network,
    sizes: Sequence[tuple[int, int]],
    read: Callable[[int], np.ndarray],
    probabilities: bool = False,
) -> Iterator[Ready]:
    """Yields batches of all examples, read and resized in threads; arguments as `predict_stream`'s.

    Of the network, `run` is not used.
    """

    def prepare(job: _Job) -> Ready:
        return _prepare(network, job, read)

    jobs = _plan(network, sizes, probabilities)
    yield from ahead(prepare, jobs, lambda job: job.weight, WAITING_BYTES)


def _plan(network: Network, sizes: Sequence[tuple[int, int]], probabilities: bool) -> list[_Job]:
    """Divides examples into batches of a few shapes, with one batch size for each shape."""
    if not sizes:
        return []
    known = np.array(sizes)
    jobs = []
    for group in group_sizes(known, network.resizes, network.batch_size, network.max_shapes):
        count = len(group.positions)
        devices = min(jax.local_device_count(), count)
        # Bytes per pixel: 3 for colours, 1 for the id, 2 for confidence, 2 for each class's share.
        cost = 6 + 2 * len(network.class_names) * probabilities
        most = min(network.batch_size, _BATCH_BYTES // (cost * group.label[0] * group.label[1]))
        size = devices * max(min(most // devices, -(-count // devices)), 1)
        planes = size * sum(3 * h * w for h, w in _shapes(network, group))
        for start in range(0, count, size):
            positions = group.positions[start : start + size]
            # 6 bytes per pixel, an image twice: as decoded, and as turned or converted.
            weight = planes + 6 * int(known[positions].prod(1).sum())
            jobs.append(_Job(group, positions, size, devices, weight))
    return jobs


def _shapes(network: Network, group: Group) -> Sequence[tuple[int, int]]:
    """Returns (H, W) of each view of a batch."""
    return group.views if network.shape is None else (network.shape,)


def _prepare(network: Network, job: _Job, read: Callable[[int], np.ndarray]) -> Ready:
    """Reads and resizes the images of a batch, as evaluation does."""
    views = [
        (np.full((job.size, *shape, 3), IMAGE_PAD, np.uint8), np.zeros((job.size, 2), np.int32))
        for shape in _shapes(network, job.group)
    ]
    label_size, index = np.zeros((job.size, 2), np.int32), np.full(job.size, -1, np.int32)
    images, failed = {}, {}
    for place, position in enumerate(map(int, job.positions)):
        try:
            image = read(position)
        except PhotoError as error:
            failed[position] = str(error)
            continue
        images[position] = image
        label_size[place], index[place] = image.shape[:2], position
        for resize, (plane, size) in zip(network.resizes, views):
            size[place] = extent = resize(np.array(image.shape[:2])).numpy()
            resized = geometry.resample_image(image, extent, np.zeros(2, np.int32), extent)
            plane[place, : extent[0], : extent[1]] = resized.numpy()
    # There are no labels: only their shape is used, as the resolution of the prediction.
    label = np.broadcast_to(np.uint8(0), (job.size, *job.group.label))
    batch = EvalBatch(tuple(EvalView(*view) for view in views), label, label_size, index)
    batch = jax.tree.map(lambda array: split_devices(array, job.devices), batch)
    return Ready(batch, images, failed)


def _results(ready: Ready, outputs: Outputs) -> Iterator[Result]:
    """Fetches a batch's results to the host, and yields them cropped to the images' sizes."""
    if not outputs:
        return
    arrays = [np.asarray(array) for array in outputs]
    for at in np.ndindex(ready.batch.index.shape):
        position = int(ready.batch.index[at])
        if position >= 0:
            height, width = ready.batch.label_size[at]
            parts = [array[at][..., :height, :width] for array in arrays]
            prediction = Prediction(*parts, *([None] if len(parts) == 2 else []))
            yield Result(position, ready.images[position], prediction, "")
