"""`--mode=predict`: predicts images, on disk or in memory, with a trained network.

    network = open_network(workdir="runs/shapes")
    for prediction in predict_images(network, [np.asarray(Image.open("photo.jpg").convert("RGB"))]):
        prediction.ids  # uint8 [H, W]

`prediction.stream` makes the batches.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from data.errors import counted
from rc2l_jax.input_pipeline.threads import ahead
from rc2l_jax.prediction import photos
from rc2l_jax.prediction.files import (
    Prediction,
    is_written,
    list_path,
    origin_of,
    write_prediction,
)
from rc2l_jax.prediction.frames import OpenFrames
from rc2l_jax.prediction.network import Network, Outputs, open_network
from rc2l_jax.prediction.photos import Photo, PhotoError
from rc2l_jax.prediction.stream import WAITING_BYTES, Result, predict_stream
from rc2l_jax.reports import pictures
from rc2l_jax.reports.log import say
from rc2l_jax.reports.painting import Painter
from rc2l_jax.structs import EvalBatch

# Errors that concern one file's name only: it is too long, has characters that the disk does not
# allow, or is taken by a folder. That image is skipped; after any other error prediction ends.
_OF_A_NAME = {
    errno.ENAMETOOLONG,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
}


class PredictError(ValueError):
    """Inputs or an output folder that cannot be used. Says what to do."""


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
    resume: bool = False,
) -> int:
    """Predicts images on disk, and writes to `output` the files that docs/predict.md lists.

    Args:
      source: an image, a folder (searched with all folders in it) or a glob.
      output: the folder to make.
      model, workdir, config, network, step: name the trained network, as for `open_network`.
      probabilities: whether to write every class's share at every pixel, too.
      overwrite: allow files in `output`. Those of the same names are replaced, others stay.
      resume: go on in `output`: images whose results are complete there are left out.

    Returns:
      How many images were predicted.

    Raises:
      PredictError: there is no image to predict, or `output` cannot be used or written.
      CheckpointError, WeightsError, ConfigError, DataError: the network cannot be opened, see
        `open_network`.
    """
    if jax.process_count() > 1:
        raise PredictError("--mode=predict runs in one process: start it on one host")
    output = Path(output).expanduser().absolute()
    try:
        _check_output(source, output, overwrite, resume)
        found = photos.find(source, output)
    except PhotoError as error:
        raise PredictError(str(error)) from error
    if not found.photos:
        raise _nothing(found, source)
    _check_place(output)
    opened = open_network(model, workdir=workdir, config=config, network=network, step=step)
    done = _leave_out_written(found, output, probabilities, opened.title) if resume else 0
    try:
        count = _write_all(found, opened, output, probabilities)
    except OSError as error:
        _warn_of(found)
        raise PredictError(
            f"{error.filename or output}: {error.strerror or error}. What is whole stays there: "
            "mend that, and the same command with --resume goes on"
        ) from error
    if not count and not done:
        raise _nothing(found, source)
    _warn_of(found)
    say(f"{opened.title}: {counted(count, 'image')} -> {output}")
    return count


def predict_images(
    network: Network, images: Sequence[np.ndarray], *, probabilities: bool = False
) -> list[Prediction]:
    """Predicts images in memory.

    Args:
      network: the trained network, as `open_network` returns it.
      images: uint8 [H, W, 3] each, RGB, of any sizes.
      probabilities: whether to return every class's share at every pixel, too.

    Returns:
      The predictions, in the order of the images.

    Raises:
      ValueError: an image is of another type or shape, or empty.
    """
    for i, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"image {i} is {image.dtype} {image.shape}, not uint8 [H, W, 3]")
    sizes = [image.shape[:2] for image in images]
    results = list(predict_stream(network, sizes, lambda i: images[i], probabilities))
    return [result.prediction for result in sorted(results, key=lambda result: result.position)]


def _write_all(found: photos.Photos, network: Network, output: Path, probabilities: bool) -> int:
    """Predicts and writes all photos; adds those that fail to `found.skipped`.

    Returns:
      How many were written.
    """
    items, frames, count = found.photos, OpenFrames(), 0

    def read(i: int) -> np.ndarray:
        return photos.read(items[i], frames)

    def write(result: Result) -> Result:
        photo, error = items[result.position], result.error
        about = {"image": os.path.abspath(photo.path), "model": network.title}
        try:
            if not error:
                prediction, names = result.prediction, network.class_names
                write_prediction(output, photo.name, result.image, prediction, names, about)
        except OSError as failure:
            if failure.errno not in _OF_A_NAME:
                raise
            error = f"its results cannot be written ({failure.strerror}); rename it"
        return Result(result.position, None, None, error)

    with contextlib.closing(frames), tqdm(total=len(items), unit="image") as progress:
        sizes, announced = [photo.size for photo in items], _announced(network, progress)
        results = predict_stream(announced, sizes, read, probabilities)
        for result in ahead(write, results, lambda result: result.weight, WAITING_BYTES):
            progress.update()
            if result.error:
                photo = items[result.position]
                where = "" if photo.frame is None else f"frame {photo.frame}: "
                found.skipped.setdefault(photo.path, where + result.error)
                continue
            if not count:
                pictures.save_png(
                    output / "legend.png", pictures.legend(Painter(network.class_names))
                )
            count += 1
    return count


def _announced(network: Network, progress: tqdm) -> Network:
    """Returns the network, made to say in the progress bar when it compiles.

    It compiles at the first batch of each shape.
    """
    seen = set()

    def run(batch: EvalBatch, shares: bool) -> Outputs:
        shapes = tuple(array.shape for array in jax.tree.leaves(batch))
        if shapes in seen:
            return network.run(batch, shares)
        seen.add(shapes)
        height, width = batch.label.shape[-2:]
        progress.set_description(f"compiling for {height}x{width}")
        outputs = network.run(batch, shares)
        progress.set_description(None)
        return outputs

    return dataclasses.replace(network, run=run)


def _leave_out_written(found: photos.Photos, output: Path, probabilities: bool, model: str) -> int:
    """Removes from `found` the photos whose results are complete; returns how many these are."""
    total = len(found.photos)
    found.photos = [x for x in found.photos if not _is_done(x, output, probabilities, model)]
    done = total - len(found.photos)
    say(f"{done} of {counted(total, 'image')} already in {output}")
    return done


def _is_done(photo: Photo, output: Path, probabilities: bool, model: str) -> bool:
    """Returns whether a photo's results are complete, under either of its names.

    A photo's name depends on the other photos (see `Photo`), and these may have changed since its
    results were written.

    Raises:
      PredictError: results of this name are of another photo, or by another network.
    """
    name, written = photo.name, origin_of(output, photo.name)
    if written.image and not _is_same_file(written.image, photo):
        raise PredictError(
            f"{list_path(output, name)} is of {written.image}, and not of {photo.path}, "
            "which has the same name here: choose another --output, or --overwrite to replace it"
        )
    if not is_written(output, name, probabilities):
        name, written = photo.other_name, origin_of(output, photo.other_name)
        if not written.image or not _is_same_file(written.image, photo):
            return False
        if not is_written(output, name, probabilities):
            return False
    if written.model not in ("", model):  # the results must not be of two networks
        raise PredictError(
            f"{list_path(output, name)} is by {written.model}, and --resume would go on with "
            f"{model}: give the one it began with (of a run, --step and --network), choose another "
            "--output, or --overwrite to begin anew"
        )
    return True


def _is_same_file(path: str, photo: Photo) -> bool:
    return os.path.abspath(path) == os.path.abspath(photo.path)


def _check_output(source: str, output: Path, overwrite: bool, resume: bool) -> None:
    if overwrite and resume:
        raise PredictError("--overwrite does again what --resume leaves out: give one of them")
    photos.check_apart(source, output)  # first, as other advice does not help then
    if output.exists() and not output.is_dir():
        raise PredictError(f"--output={output} is a file: choose a folder")
    if not (overwrite or resume) and output.is_dir() and any(output.iterdir()):
        raise PredictError(
            f"--output={output} is not empty: choose another folder, --overwrite to replace files "
            "of the same name in it, or --resume to go on with what was stopped"
        )
    folder = Path(source).expanduser()
    if folder.is_dir() and folder.resolve() in output.resolve().parents:
        print(
            f"warning: {output} lies inside the input folder: a later run over the folder with "
            "another --output would take its overlays and masks for images",
            file=sys.stderr,
        )


def _check_place(output: Path) -> None:
    """Refuses a folder that cannot be made. Comes before opening the network, which takes long."""
    there = next(path for path in (output, *output.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "may not be written" if there.is_dir() else "is a file"
        raise PredictError(f"--output={output}: {there} {reason}; choose another folder")


def _nothing(found: photos.Photos, source: str) -> PredictError:
    """Returns the error for the case that no image can be predicted."""
    reasons = [f"{path}: {reason}" for path, reason in found.skipped.items()]
    return PredictError("\n".join([f"--input={source}: holds no image to predict", *reasons]))


def _warn_of(found: photos.Photos) -> None:
    if found.skipped:
        print(f"warning: {counted(len(found.skipped), 'file')} skipped", file=sys.stderr)
        for path, reason in found.skipped.items():
            print(f"  {path}: {reason}", file=sys.stderr)
