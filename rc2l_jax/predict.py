"""`--mode=predict`: a trained network on anybody's images.

    network = open_network(workdir="runs/shapes")
    for prediction in predict_images(network, [np.asarray(Image.open("photo.jpg").convert("RGB"))]):
        prediction.ids  # uint8 [H, W]

Images are prepared, batched and scored as in evaluation: what is predicted is what `--mode=eval`
counts. They are decoded when their batch is due, so that any number of them can be predicted.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from rc2l_jax import host_augment, photos, visualize
from rc2l_jax.eval_pipeline import Group, group_sizes
from rc2l_jax.host_augment import IMAGE_PAD
from rc2l_jax.host_loader import ahead, split_devices
from rc2l_jax.networks import Network, Outputs, open_network
from rc2l_jax.open_frames import OpenFrames
from rc2l_jax.photos import PhotoError
from rc2l_jax.prediction_files import Prediction, write_prediction
from rc2l_jax.report import say
from rc2l_jax.structs import EvalBatch, EvalView

_BATCH_BYTES = 1 << 27  # of a batch's images and results; beyond it a batch has fewer images


class PredictError(ValueError):
    """Inputs or an output folder that cannot be used; says what to do."""


class _Job(NamedTuple):
    """A batch: examples `positions`, padded to the shapes of `group`, on `devices` devices."""

    group: Group
    positions: np.ndarray
    size: int
    devices: int


class _Ready(NamedTuple):
    """A batch on the host: the images it shows, and why others of the job could not be read."""

    batch: EvalBatch
    images: dict[int, np.ndarray]
    failed: dict[int, str]


class _Result(NamedTuple):
    """An example's position, its image and prediction; or why there is none."""

    position: int
    image: np.ndarray | None
    prediction: Prediction | None
    error: str


def predict_folder(
    source: str,
    output: str | Path,
    *,
    model: str | Path = "",
    workdir: str | Path = "",
    config: ConfigDict | None = None,
    network: str = "teacher",
    step: int | None = None,
    probabilities: bool = False,
    overwrite: bool = False,
) -> int:
    """Predicts images on disk and writes, in `output`, what the README says.

    Args:
      source: see `photos.find`.
      output: the folder to make.
      model, workdir, config, network, step: see `open_network`.
      probabilities: also write every class's share at every pixel.
      overwrite: let there be files in `output`; those of the same name are replaced, and no other
        is touched.

    Returns:
      How many images were predicted.

    Raises:
      PredictError: there is nothing to predict, or something in `output`.
      CheckpointError, WeightsError, ConfigError, DataError: see `open_network`.
    """
    if jax.process_count() > 1:
        raise PredictError("--mode=predict runs in one process: start it on one host")
    output = Path(output).expanduser().absolute()
    _check_output(output, overwrite)
    try:
        found = photos.find(source, output)
    except PhotoError as error:
        raise PredictError(str(error)) from error
    if not found.photos:
        raise _nothing(found, source)
    opened = open_network(model, workdir=workdir, config=config, network=network, step=step)
    try:
        count = _write_all(found, opened, output, probabilities)
    except OSError as error:
        raise PredictError(f"{error.filename or output}: {error.strerror or error}") from error
    if not count:
        raise _nothing(found, source)
    _warn_of(found)
    say(f"{opened.title}: {count} images -> {output}")
    return count


def predict_images(
    network: Network, images: Sequence[np.ndarray], *, probabilities: bool = False
) -> list[Prediction]:
    """Predicts images in memory.

    Args:
      network: see `networks.open_network`.
      images: uint8 [H, W, 3] each, RGB, of any sizes.
      probabilities: also return every class's share at every pixel.

    Returns:
      Their predictions, in the order of the images.

    Raises:
      ValueError: an array of another type or shape.
    """
    for i, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"image {i} is {image.dtype} {image.shape}, not uint8 [H, W, 3]")
    sizes = [image.shape[:2] for image in images]
    results = list(_predict(network, sizes, lambda i: images[i], probabilities))
    return [result.prediction for result in sorted(results, key=lambda result: result.position)]


def _write_all(found: photos.Photos, network: Network, output: Path, probabilities: bool) -> int:
    """Predicts and writes what was found; adds to `found.skipped` what could not be read."""
    items, frames = found.photos, OpenFrames()
    sizes = [photo.size for photo in items]
    results = _predict(network, sizes, lambda i: photos.read(items[i], frames), probabilities)

    def write(result: _Result) -> _Result:
        if result.prediction is not None:
            name, names = items[result.position].name, network.class_names
            write_prediction(output, name, result.image, result.prediction, names)
        return result._replace(image=None, prediction=None)

    count = 0
    with contextlib.closing(frames), tqdm(total=len(items), unit="image") as progress:
        for result in ahead(write, results):
            progress.update()
            if result.error:
                photo = items[result.position]
                where = "" if photo.frame is None else f"frame {photo.frame}: "
                found.skipped.setdefault(photo.path, where + result.error)
                continue
            if not count:
                visualize.save_png(output / "legend.png", visualize.legend(network.class_names))
            count += 1
    return count


def _predict(
    network: Network,
    sizes: Sequence[tuple[int, int]],
    read: Callable[[int], np.ndarray],
    probabilities: bool,
) -> Iterator[_Result]:
    """Predicts examples, a group of similar sizes after the other.

    Args:
      network: the network.
      sizes: (H, W) of each example.
      read: position -> uint8 [H, W, 3]; called in threads, when it is due.
      probabilities: see `predict_images`.
    """
    jobs = _plan(network, sizes, probabilities)
    pending: tuple[_Ready, Outputs] | None = None
    for ready in ahead(lambda i: _prepare(network, jobs[i], read), range(len(jobs))):
        yield from (_Result(i, None, None, error) for i, error in ready.failed.items())
        outputs = network.run(ready.batch, probabilities) if ready.images else ()
        # Fetching the batch before keeps the device busy, and at most two batches in its memory.
        if pending is not None:
            yield from _results(*pending)
        pending = ready, outputs
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
        for start in range(0, count, size):
            jobs.append(_Job(group, group.positions[start : start + size], size, devices))
    return jobs


def _prepare(network: Network, job: _Job, read: Callable[[int], np.ndarray]) -> _Ready:
    """Reads and resizes the images of a batch, as evaluation does."""
    shapes = job.group.views if network.shape is None else (network.shape,)
    views = [
        (np.full((job.size, *shape, 3), IMAGE_PAD, np.uint8), np.zeros((job.size, 2), np.int32))
        for shape in shapes
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
            resized = host_augment.resample_image(image, extent, np.zeros(2, np.int32), extent)
            plane[place, : extent[0], : extent[1]] = resized.numpy()
    # Only the shape of the labels counts.
    label = np.broadcast_to(np.uint8(0), (job.size, *job.group.label))
    batch = EvalBatch(tuple(EvalView(*view) for view in views), label, label_size, index)
    batch = jax.tree.map(lambda array: split_devices(array, job.devices), batch)
    return _Ready(batch, images, failed)


def _results(ready: _Ready, outputs: Outputs) -> Iterator[_Result]:
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
            yield _Result(position, ready.images[position], prediction, "")


def _check_output(output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise PredictError(f"--output={output} is a file: choose a folder")
    if not overwrite and output.is_dir() and any(output.iterdir()):
        raise PredictError(
            f"--output={output} is not empty: choose another folder, or --overwrite to replace "
            "files of the same name in it"
        )


def _nothing(found: photos.Photos, source: str) -> PredictError:
    """What to say if no image could be predicted."""
    reasons = [f"{path}: {reason}" for path, reason in found.skipped.items()]
    return PredictError("\n".join([f"--input={source}: holds no image to predict", *reasons]))


def _warn_of(found: photos.Photos) -> None:
    if found.skipped:
        print(f"warning: {len(found.skipped)} file(s) were skipped", file=sys.stderr)
        for path, reason in found.skipped.items():
            print(f"  {path}: {reason}", file=sys.stderr)
