"""Writes predicted/: what --mode=predict --annotations writes of two masks, in each format.

    PYTHONPATH=.:tests python -m exports.predicted

test_exports.py fails when the annotations would be written otherwise, until they are written anew
by this command and opened by the formats' own libraries: read_back.py.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import shapely
from exports import scene
from PIL import Image

from rc2l_jax.prediction import annotations
from rc2l_jax.prediction.annotations import FORMATS, Annotator
from rc2l_jax.prediction.files import Prediction, write_prediction
from rc2l_jax.prediction.photos import Photo
from rc2l_jax.prediction.regions import find_regions

PREDICTED = scene.HERE / "predicted"
CLASSES = ("background", "road", 'a "b" & <c>', "tree: 3")


def nested() -> np.ndarray:
    """A region with a hole; in it background, and a region with a hole with a third region."""
    ids = np.zeros((48, 64), np.uint8)
    for inset, index in ((3, 1), (9, 0), (13, 2), (17, 3), (20, 1)):
        ids[inset : 48 - inset, 2 * inset : 64 - inset] = index
    ids[30:44, 8:13] = 3  # notches the first region's side
    return ids


def touching() -> np.ndarray:
    """A region with three holes, two of which touch at a corner, and one with a peninsula."""
    ids = np.full((50, 40), 2, np.uint8)
    ids[5:20, 5:20], ids[25:35, 5:20], ids[35:45, 20:35] = 0, 1, 3
    ids[10:15, 12:20] = 2
    return ids


MASKS = {"nested": nested(), "b c/touching & 2": touching()}


def _regions(*of: np.ndarray) -> list:
    """The regions, whose rings begin at a corner that does not depend on GEOS's version."""
    return [
        dataclasses.replace(region, outline=shapely.normalize(region.outline))
        for region in find_regions(*of)
    ]


def write(folder: Path) -> None:
    """Writes photos/, out/masks/ and out/annotations/."""
    output = folder / "out"
    annotators = [Annotator(output, kind, CLASSES, "net") for kind in FORMATS]
    with mock.patch.object(annotations, "find_regions", _regions):
        for name, ids in MASKS.items():
            photo = Photo(
                folder / "photos" / f"{name}.png", None, ids.shape, 1, name, f"{name}.png"
            )
            image = np.full((*ids.shape, 3), 128, np.uint8)
            photo.path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(photo.path)
            prediction = Prediction(ids, np.full(ids.shape, 0.75, np.float16), None)
            about = {"image": photo.file_name, "model": "net"}
            write_prediction(output, name, image, prediction, CLASSES, about)
            for annotator in annotators:
                annotator.write(photo, name, prediction)
        for annotator in annotators:
            annotator.finish()
    for made in output.iterdir():  # the rest is not for labelling tools
        if made.name not in ("masks", "segments", "annotations"):
            shutil.rmtree(made) if made.is_dir() else made.unlink()
    for parts in output.glob("annotations/*/parts"):
        shutil.rmtree(parts)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        write(Path(made))
        for part in ("photos", "out"):
            shutil.rmtree(PREDICTED / part, ignore_errors=True)
            shutil.copytree(Path(made, part), PREDICTED / part)
