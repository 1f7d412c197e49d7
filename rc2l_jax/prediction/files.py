"""The files that prediction writes for an image: mask, overlay, segments, probabilities."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data.whole_files import partial_name, whole_file
from rc2l_jax.reports import pictures
from rc2l_jax.reports.painting import Painter

_JPEG_SIDE = 65_500  # the most pixels of a side in JPEG; a larger overlay is written as PNG
_OVERLAY_QUALITY = 90


class Prediction(NamedTuple):
    """A network's prediction of an image, at the image's own resolution.

    Attributes:
      ids: uint8 [H, W], class ids 0..K-1; never void.
      confidence: float16 [H, W], the predicted class's share of the sum of all classes' scores.
      probabilities: float16 [K, H, W], every class's share; None unless asked for.
    """

    ids: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray | None


def write_prediction(
    output: Path,
    name: str,
    image: np.ndarray,
    prediction: Prediction,
    class_names: Sequence[str],
    about: Mapping[str, str],
    annotate: Callable[[Prediction], None] | None = None,
) -> dict[str, Any]:
    """Writes the files of one image, the list of segments last, which it returns.

    A former list of segments is deleted first, so that there is one only if all other files are
    complete (see `is_written`). Former probabilities are deleted, too: they may be of another
    network.

    Args:
      output: the folder for all images.
      name: the image's name: relative, with "/" and without a suffix.
      image: uint8 [H, W, 3].
      prediction: the prediction of `image`.
      class_names: K names.
      about: the first entries of the list: "image", the path of the image's file, and "model", the
        network's title.
      annotate: writes the image's annotations.

    Raises:
      OSError: a file cannot be written, for example because its name is too long.
    """
    segments = list_path(output, name)
    segments.parent.mkdir(parents=True, exist_ok=True)
    # NAME.json.partial is the longest name. If it is too long for the file system, that shows here,
    # before anything is written.
    shares = output / "probabilities" / f"{name}.npz"
    for former in (partial_name(segments, one_writer=True), segments, shares):
        former.unlink(missing_ok=True)
    save = pictures.save_image
    painter = Painter(class_names)
    save(output / "masks" / f"{name}.png", painter.indexed(prediction.ids))
    picture = Image.fromarray(painter.overlay(image, prediction.ids))
    overlay = overlay_path(output, name, image.shape[:2])
    save(overlay, picture, **({"quality": _OVERLAY_QUALITY} if overlay.suffix == ".jpg" else {}))
    if prediction.probabilities is not None:
        _save_probabilities(shares, prediction, class_names)
    if annotate is not None:
        annotate(prediction)
    description = {**about, **describe_segments(prediction, class_names)}
    with whole_file(segments, one_writer=True) as partial:
        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
        partial.write_text(text, encoding="utf-8")
    return description


def overlay_path(output: Path, name: str, size: tuple[int, int]) -> Path:
    """Returns the path of the overlay of an image of size (H, W)."""
    suffix = "png" if max(size) > _JPEG_SIDE else "jpg"
    return output / "overlays" / f"{name}.{suffix}"


def list_path(output: Path, name: str) -> Path:
    """Returns the path of an image's list of segments."""
    return output / "segments" / f"{name}.json"


def is_written(output: Path, name: str, probabilities: bool) -> bool:
    """Returns whether `write_prediction` has completed an image; if asked, with probabilities."""
    files = [list_path(output, name)]
    if probabilities:
        files.append(output / "probabilities" / f"{name}.npz")
    return all(os.path.isfile(file) for file in files)  # Path.is_file raises for long names


class Origin(NamedTuple):
    """The image and the network that a list of segments names; "" where it names none.

    Attributes:
      image: path of the image's file.
      model: the network's title.
    """

    image: str = ""
    model: str = ""


def origin_of(output: Path, name: str) -> Origin:
    """Reads which image and network a list of segments names; both "" if it cannot be read."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        known = json.loads(list_path(output, name).read_text(encoding="utf-8"))
        return Origin(str(known.get("image", "")), str(known.get("model", "")))
    return Origin()


class ResultError(ValueError):
    """Results that were written before and cannot be used. Says which, and what to do."""


def read_prediction(
    output: Path, name: str, size: tuple[int, int], num_classes: int
) -> tuple[np.ndarray, dict[int, float | None]]:
    """Reads an image's mask and its classes' scores.

    Args:
      output: the folder for all images.
      name: the image's name.
      size: (H, W) that it has.
      num_classes: how many classes there are.

    Returns:
      Class ids uint8 [H, W], and the score of each class that is present.

    Raises:
      ResultError: they cannot be read, or do not fit the image or the network.
    """
    mask, segments = output / "masks" / f"{name}.png", list_path(output, name)
    try:
        with Image.open(mask) as picture:
            ids = np.asarray(picture)
        known = json.loads(segments.read_text(encoding="utf-8"))["segments"]
        scores = {segment["id"]: segment["score"] for segment in known}
    except Exception:  # on damaged bytes Pillow can raise anything
        reason = "cannot be read"
    else:
        if ids.dtype == np.uint8 and ids.shape == tuple(size) and ids.max() < num_classes:
            return ids, scores
        reason = "does not fit the image or the network"
    raise ResultError(
        f"{mask} (or {segments.name}) {reason}: delete {segments}, and --resume predicts it again"
    )


def describe_segments(prediction: Prediction, class_names: Sequence[str]) -> dict[str, Any]:
    """Lists the predicted classes, each as one segment, however many parts it has.

    Returns:
      {"width", "height", "segments": [{"id", "class", "score" (mean `confidence` over its pixels;
      None if that is not finite), "area" (in pixels), "share" (of the image's pixels), "box" (the
      [x, y, width, height] around all of it)}, ...]}, by ascending id.
    """
    ids = prediction.ids
    height, width = ids.shape
    areas, scores = np.zeros(256, np.int64), np.zeros(256)
    rows, columns = (np.zeros((256, length), bool) for length in (height, width))
    for row, (line, confidence) in enumerate(zip(ids, prediction.confidence)):
        areas += np.bincount(line, minlength=256)
        scores += np.bincount(line, confidence, minlength=256)
        rows[line, row] = True
        columns[line, np.arange(width)] = True
    segments = []
    for index in np.flatnonzero(areas):
        area, score = int(areas[index]), float(scores[index] / areas[index])
        (top, bottom), (left, right) = (_ends(x[index]) for x in (rows, columns))
        segments.append(
            {
                "id": int(index),
                "class": class_names[index],
                "score": round(score, 4) if math.isfinite(score) else None,
                "area": area,
                "share": round(area / ids.size, 6),
                "box": [left, top, right - left, bottom - top],
            }
        )
    return {"width": width, "height": height, "segments": segments}


def _ends(used: np.ndarray) -> tuple[int, int]:
    """Returns the first place that is used, and the one after the last."""
    (places,) = np.nonzero(used)
    return int(places[0]), int(places[-1]) + 1


def _save_probabilities(path: Path, prediction: Prediction, class_names: Sequence[str]) -> None:
    with whole_file(path, one_writer=True) as partial, partial.open("wb") as file:
        names = np.array(class_names)
        np.savez(file, probabilities=prediction.probabilities, class_names=names)
