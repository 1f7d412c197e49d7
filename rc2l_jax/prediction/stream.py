"""Images of any sizes in, predictions out: a stream in which little waits in memory.

Images are prepared, batched and scored as in evaluation: what is predicted is what `--mode=eval`
counts. They are read when their batch is due, so that any number of them can be predicted.
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

_BATCH_BYTES = 1 << 27  # of a batch's images and results; beyond it a batch has fewer images
# Of images that wait for the network, and of results that wait to be written: a few of 20
# megapixels each. On many cores their number alone would be no limit.
WAITING_BYTES = 1 << 29


class _Job(NamedTuple):
    """A batch: examples `positions`, padded to the shapes of `group`, on `devices` devices.

    While it is prepared and waits it takes `weight` bytes.
    """

    group: Group
    positions: np.ndarray
    size: int
    devices: int
    weight: int


class _Ready(NamedTuple):
    """A batch on the host: the images it shows, and why others of the job could not be read."""

    batch: EvalBatch
    images: dict[int, np.ndarray]
    failed: dict[int, str]


class Result(NamedTuple):
    """An example's position, its image and prediction; or why there is none."""

    position: int
    image: np.ndarray | None
    prediction: Prediction | None
    error: str

    @property
    def weight(self) -> int:
        """Its bytes."""
        arrays = (self.image, *(self.prediction or ()))
        return sum(array.nbytes for array in arrays if array is not None)


def predict_stream(
    network: Network,
    sizes: Sequence[tuple[int, int]],
    read: Callable[[int], np.ndarray],
    probabilities: bool,
) -> Iterator[Result]:
    """Predicts examples, a group of similar sizes after the other.

    Args:
      network: the network.
      sizes: (H, W) of each example.
      read: position -> uint8 [H, W, 3]; called in threads, when it is due.
      probabilities: also say every class's share at every pixel.
    """
    jobs = _plan(network, sizes, probabilities)
    pending: tuple[_Ready, Outputs] | None = None

    def prepare(job: _Job) -> _Ready:
        return _prepare(network, job, read)

    for ready in ahead(prepare, jobs, lambda job: job.weight, WAITING_BYTES):
        yield from (Result(i, None, None, error) for i, error in ready.failed.items())
        outputs = network.run(ready.batch, probabilities) if ready.images else ()
        # Fetching the batch before keeps the device busy, and at most two batches in its memory.
        if pending is not None:
            yield from _results(*pending)
        pending = ready, outputs
        if sum(array.nbytes for array in outputs) > WAITING_BYTES:  # two of it are too much
            del ready, outputs
            yield from _results(*pending)
            pending = None
    if pending is not None:
        yield from _results(*pending)


def _plan(network: Network, sizes: Sequence[tuple[int, int]], probabilities: bool) -> list[_Job]:
    """Divides examples into batches of a few shapes; one batch size for each."""
    if not sizes:
        return []
    known = np.array(sizes)
    jobs = []
    for group in group_sizes(known, network.resizes, network.batch_size, network.max_shapes):
        count = len(group.positions)
        devices = min(jax.local_device_count(), count)
        # Of a pixel: its colours, id and confidence; float16 for each class.
        cost = 6 + 2 * len(network.class_names) * probabilities
        most = min(network.batch_size, _BATCH_BYTES // (cost * group.label[0] * group.label[1]))
        size = devices * max(min(most // devices, -(-count // devices)), 1)
        planes = size * sum(3 * h * w for h, w in _shapes(network, group))
        for start in range(0, count, size):
            positions = group.positions[start : start + size]
            # An image twice: while it is read it is decoded, and turned or converted.
            weight = planes + 6 * int(known[positions].prod(1).sum())
            jobs.append(_Job(group, positions, size, devices, weight))
    return jobs


def _shapes(network: Network, group: Group) -> Sequence[tuple[int, int]]:
    """(H, W) of each view of a batch."""
    return group.views if network.shape is None else (network.shape,)


def _prepare(network: Network, job: _Job, read: Callable[[int], np.ndarray]) -> _Ready:
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
    # Only the shape of the labels counts.
    label = np.broadcast_to(np.uint8(0), (job.size, *job.group.label))
    batch = EvalBatch(tuple(EvalView(*view) for view in views), label, label_size, index)
    batch = jax.tree.map(lambda array: split_devices(array, job.devices), batch)
    return _Ready(batch, images, failed)


def _results(ready: _Ready, outputs: Outputs) -> Iterator[Result]:
    """Brings a batch's results to the host, cut to the images' sizes."""
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
