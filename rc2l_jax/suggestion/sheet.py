"""The contact sheet: the suggested photos in one picture, each with its number and name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rc2l_jax.input_pipeline.threads import ahead
from rc2l_jax.prediction import photos
from rc2l_jax.prediction.photos import Photo, PhotoError
from rc2l_jax.prediction.stream import WAITING_BYTES
from rc2l_jax.reports import pictures

MOST = 400  # photos on the sheet: with more it would become too large to open
_COLUMNS = 8
_SIDE = 200  # pixels of each photo's longest side
_NAME = 24  # characters of a name that fit; of longer ones the end is shown
_NOTHING = np.full((1, 1, 3), 255, np.uint8)
_QUALITY = 85
_READ_BYTES = 6  # memory for each pixel while a photo is read


def write_sheet(path: Path, suggested: Sequence[Photo]) -> None:
    """Draws the first `MOST` photos, in their order."""
    shown = suggested[:MOST]
    cells = list(ahead(_thumbnail, shown, _weight, WAITING_BYTES))
    notes = [f"{i} {_short(photo.file_name)}" for i, photo in enumerate(shown, 1)]
    columns = min(_COLUMNS, len(cells))
    missing = -len(cells) % columns
    cells += [_NOTHING] * missing
    notes += [""] * missing
    rows = range(0, len(cells), columns)
    picture = pictures.grid(
        [cells[i : i + columns] for i in rows],
        [""] * columns,
        [notes[i : i + columns] for i in rows],
    )
    pictures.save_image(path, Image.fromarray(picture), quality=_QUALITY)


def _weight(photo: Photo) -> int:
    return _READ_BYTES * math.prod(photo.size)


def _thumbnail(photo: Photo) -> np.ndarray:
    try:
        small = Image.fromarray(photos.read(photo))
    except PhotoError:  # it has changed since its features were computed
        return _NOTHING
    small.thumbnail((_SIDE, _SIDE), reducing_gap=2.0)
    narrower = _SIDE - small.width  # than the names are
    return np.pad(np.asarray(small), ((0, 0), (0, narrower), (0, 0)), constant_values=255)


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"
