"""Says which predictions a person should look at first: ranking.csv and report.html."""

from __future__ import annotations

import contextlib
import math
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.errors import counted
from rc2l_jax.input_pipeline.threads import ahead
from rc2l_jax.prediction import photos
from rc2l_jax.prediction.files import ResultError, overlay_path, read_prediction
from rc2l_jax.prediction.photos import Photo, PhotoError
from rc2l_jax.prediction.ranking import COLUMNS, confidence_row, former_row, order
from rc2l_jax.prediction.stream import WAITING_BYTES
from rc2l_jax.reports.gallery import MOST_CARDS, Card, Cards, describe_gallery, make_card
from rc2l_jax.reports.page import PAGE, write_page
from rc2l_jax.reports.painting import Painter
from rc2l_jax.reports.photo_ranking import RANKING, Row, write_ranking

_LAYER = "prediction"
_ORDER = "lowest mean confidence first"
_READ_BYTES = 8  # memory for each pixel while a photo is read again


class PhotoReport:
    """Collects what is said of each photo, and writes it when all are predicted."""

    def __init__(self, output: Path, class_names: Sequence[str], model: str):
        """Starts without photos.

        Args:
          output: the folder for all results.
          class_names: K names.
          model: the network's title.
        """
        self._output, self._model, self._painter = output, model, Painter(class_names)
        self._photos: dict[str, Photo] = {}
        self._former: set[str] = set()
        self._rows: list[dict[str, Any]] = []
        self._cards = Cards(order)

    def card(self, image: np.ndarray, ids: np.ndarray) -> Card:
        """Makes a photo's card; may be called in threads."""
        return make_card(image, {_LAYER: ids}, self._painter)

    def add(self, photo: Photo, description: Mapping[str, Any], card: Card) -> None:
        """Takes a photo that was predicted now, with its list of segments."""
        row = confidence_row(photo.name, description)
        self._keep(photo, row)
        self._cards.add(row, card)

    def add_former(self, done: Sequence[tuple[Photo, str]]) -> None:
        """Takes photos that an earlier command predicted, with the names of their results."""
        for photo, name in done:
            self._keep(photo, former_row(self._output, name))
            self._former.add(name)

    def finish(self) -> None:
        """Writes both files."""
        self._rows.sort(key=order)
        write_ranking(self._output / RANKING, COLUMNS, self._rows)
        former = [row for row in self._rows[:MOST_CARDS] if row["photo"] in self._former]
        steps = ahead(
            self._former_card,
            former,
            lambda row: _READ_BYTES * math.prod(self._photos[row["photo"]].size),
            WAITING_BYTES,
        )
        bar = tqdm(steps, "report", len(former), unit="image", disable=not former)
        for row, card in zip(former, bar):
            self._cards.add(row, card)
        write_page(self._output / PAGE, self._document())

    def _keep(self, photo: Photo, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._photos[row["photo"]] = photo

    def _former_card(self, row: Row) -> Card | None:
        """Makes the card of a photo from its files; None if one of them cannot be read any more."""
        name, count = row["photo"], len(self._painter.class_names)
        photo = self._photos[name]
        with contextlib.suppress(PhotoError, ResultError):
            ids, _ = read_prediction(self._output, name, photo.size, count)
            return self.card(photos.read(photo), ids)
        return None

    def _document(self) -> dict[str, Any]:
        cards = ((self._texts(row), card) for row, card in self._cards.ranked())
        total = len(self._rows)
        return {
            "title": f"Predictions of {counted(total, 'photo')}",
            "facts": [["Network", self._model]],
            "gallery": describe_gallery(cards, self._painter, total, _ORDER),
        }

    def _texts(self, row: Row) -> dict[str, Any]:
        """Returns what a card says."""
        name = row["photo"]
        if not row["classes"]:
            advice = f"delete segments/{name}.json, and --resume predicts it again"
            return {"name": name, "bar": None, "scores": [["cannot be read", advice]]}
        overlay = overlay_path(self._output, name, self._photos[name].size)
        place = overlay.relative_to(self._output).as_posix()
        link = urllib.parse.quote(place, errors="surrogateescape")  # a name can be any bytes
        lowest = f"{row['lowest_region']} {_number(row['lowest_region_confidence'])}"
        scores = [["confidence", _number(row["mean_confidence"])], ["least sure of", lowest]]
        return {"name": name, "link": link, "bar": row["mean_confidence"], "scores": scores}


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2f}"
