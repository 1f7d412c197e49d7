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
import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from data.errors import counted
from rc2l_jax.input_pipeline.threads import ahead
from rc2l_jax.prediction import inputs, photos
from rc2l_jax.prediction.annotations import FORMATS, Annotator, forget_parts
from rc2l_jax.prediction.files import (
    Prediction,
    ResultError,
    write_prediction,
)
from rc2l_jax.prediction.frames import OpenFrames
from rc2l_jax.prediction.network import Network, Outputs, open_network
from rc2l_jax.prediction.output_folder import (
    PredictError,
    check_output,
    check_place,
    leave_out_written,
    warn_of,
)
from rc2l_jax.prediction.photos import Photo, PhotoError
from rc2l_jax.prediction.regions import REGION_BYTES
from rc2l_jax.prediction.report import PhotoReport
from rc2l_jax.prediction.stream import WAITING_BYTES, Result, predict_stream
from rc2l_jax.reports import pictures
from rc2l_jax.reports.gallery import Card
from rc2l_jax.reports.log import say
from rc2l_jax.reports.page import PAGE
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


class _Written(NamedTuple):
    """A photo whose results are written, or that has none.

    Attributes:
      position: its position among the photos.
      error: why it has none; "" if it has.
      description: its list of segments.
      card: what the report shows of it.
    """

    position: int
    error: str
    description: dict[str, Any] | None = None
    card: Card | None = None


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
    annotations: str | None = None,
) -> int:
    """Predicts images on disk, and writes to `output` the files that docs/predict.md lists.

    Args:
      source: an image, a folder (searched with all folders in it) or a glob.
      output: the folder to make.
      model, workdir, config, network, step: name the trained network, as for `open_network`.
      probabilities: whether to write every class's share at every pixel, too.
      overwrite: allow files in `output`. Those of the same names are replaced, others stay.
      resume: go on in `output`: images whose results are complete there are left out.
      annotations: a key of `annotations.FORMATS`, to write what a labelling tool opens, too.

    Returns:
      How many images were predicted.

    Raises:
      PredictError: there is no image to predict, or `output` cannot be used or written.
      CheckpointError, WeightsError, ConfigError, DataError: the network cannot be opened, see
        `open_network`.
    """
    if jax.process_count() > 1:
        raise PredictError("--mode=predict runs in one process: start it on one host")
    if annotations not in (None, *FORMATS):
        raise PredictError(f"--annotations={annotations}: choose one of {', '.join(FORMATS)}")
    output = Path(output).expanduser().absolute()
    try:
        check_output(source, output, overwrite, resume)
        found = inputs.find(source, output)
        if not found.photos:
            raise _nothing(found, source)
        check_place(output)
    except PhotoError as error:
        raise PredictError(str(error)) from error
    opened = open_network(model, workdir=workdir, config=config, network=network, step=step)
    done = leave_out_written(found, output, probabilities, opened.title) if resume else []
    try:
        count = predict_photos(found, opened, output, probabilities, annotations, done)
    except ResultError as error:
        raise PredictError(str(error)) from error
    except OSError as error:
        warn_of(found)
        # What is still to be overwritten may be by another network, which --resume refuses.
        again = "begins anew" if overwrite else "with --resume goes on"
        raise PredictError(
            f"{error.filename or output}: {error.strerror or error}. What is whole stays there: "
            f"mend that, and the same command {again}"
        ) from error
    if not count and not done:
        raise _nothing(found, source)
    warn_of(found)
    say(f"{opened.title}: {counted(count, 'image')} -> {output}; look at {output / PAGE}")
    return count


def predict_photos(
    found: inputs.Photos,
    network: Network,
    output: Path,
    probabilities: bool = False,
    annotations: str | None = None,
    done: Sequence[tuple[Photo, str]] = (),
) -> int:
    """Predicts the photos that were found, and writes to `output` as `predict_folder` does.

    Args:
      found: the photos. Those that fail are added to its `skipped`.
      network: the trained network.
      output: the folder of all results.
      probabilities, annotations: as for `predict_folder`.
      done: photos whose results are there already, and the names of these.

    Returns:
      How many photos were predicted.

    Raises:
      ResultError: results that are there already cannot be used.
      OSError: a file cannot be written.
    """
    annotator = annotations and Annotator(output, annotations, network.class_names, network.title)
    report = PhotoReport(output, network.class_names, network.title)
    report.add_former(done)
    if annotator:
        _annotate_former(done, annotator)
    count = _write_all(found, network, output, probabilities, annotator, report)
    if annotator:
        annotator.finish()
    if count or done:
        report.finish()
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


def _annotate_former(done: Sequence[tuple[Photo, str]], annotator: Annotator) -> None:
    """Writes the annotations of photos that were predicted without, from their masks."""
    lacking = [(photo, name) for photo, name in done if not annotator.path(name).is_file()]
    steps = ahead(
        lambda item: annotator.write_former(*item),
        lacking,
        lambda item: REGION_BYTES * math.prod(item[0].size),
        WAITING_BYTES,
    )
    for _ in tqdm(steps, "annotations", len(lacking), unit="image", disable=not lacking):
        pass


def _write_all(
    found: inputs.Photos,
    network: Network,
    output: Path,
    probabilities: bool,
    annotator: Annotator | None,
    report: PhotoReport,
) -> int:
    """Predicts and writes all photos; adds those that fail to `found.skipped`.

    Returns:
      How many were written.
    """
    items, frames, count = found.photos, OpenFrames(), 0

    def read(i: int) -> np.ndarray:
        return photos.read(items[i], frames)

    def write(result: Result) -> _Written:
        photo = items[result.position]
        if result.error:
            return _Written(result.position, result.error)
        about = {"image": os.path.abspath(photo.path), "model": network.title}
        annotate = annotator and functools.partial(annotator.write, photo, photo.name)
        try:
            forget_parts(output, photo.name)
            prediction, names = result.prediction, network.class_names
            arguments = photo.name, result.image, prediction, names, about, annotate
            description = write_prediction(output, *arguments)
        except OSError as failure:
            if failure.errno not in _OF_A_NAME:
                raise
            error = f"its results cannot be written ({failure.strerror}); rename it"
            return _Written(result.position, error)
        card = report.card(result.image, prediction.ids)
        return _Written(result.position, "", description, card)

    def weigh(result: Result) -> int:
        pixels = 0 if result.image is None else math.prod(result.image.shape[:2])
        return result.weight + (REGION_BYTES * pixels if annotator else 0)

    with contextlib.closing(frames), tqdm(total=len(items), unit="image") as progress:
        sizes, announced = [photo.size for photo in items], _announced(network, progress)
        results = predict_stream(announced, sizes, read, probabilities)
        for written in ahead(write, results, weigh, WAITING_BYTES):
            progress.update()
            photo = items[written.position]
            if written.error:
                where = "" if photo.frame is None else f"frame {photo.frame}: "
                found.skipped.setdefault(photo.path, where + written.error)
                continue
            report.add(photo, written.description, written.card)
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


def _nothing(found: inputs.Photos, source: str) -> PredictError:
    """Returns the error for the case that no image can be predicted."""
    reasons = [f"{path}: {reason}" for path, reason in found.skipped.items()]
    return PredictError("\n".join([f"--input={source}: holds no image to predict", *reasons]))
