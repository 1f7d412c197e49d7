"""The photo gallery of a page: small photos, the masks that lie over them, and their scores."""

from __future__ import annotations

import base64
import bisect
import io
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from rc2l_jax.reports.painting import WRONG, Painter, resize_label
from rc2l_jax.reports.photo_ranking import Order, Row
from rc2l_jax.structs import VOID

MOST_CARDS = 1_000
MOST_BYTES = 29_000_000  # of all cards: a page stays below 30 MB, whatever the photos show
SIDE = 256  # pixels: the longest side of a small photo
ERRORS = "errors"
_QUALITY = 70
_TEXT_BYTES = 2_000  # allowed for a card's names and scores


class Card(NamedTuple):
    """How a page shows a photo.

    Attributes:
      photo: a JPEG file, in base64.
      layers: {title: a PNG file with transparency, in base64}, each as large as the photo.
      classes: ids of the classes in any layer.
    """

    photo: str
    layers: dict[str, str]
    classes: list[int]

    @property
    def size(self) -> int:
        """How many bytes of a page it takes, about."""
        return len(self.photo) + sum(map(len, self.layers.values())) + _TEXT_BYTES


class Cards:
    """Keeps the cards of the worst photos, which come in any order, and drops all others."""

    def __init__(self, order: Order, most: int = MOST_CARDS):
        """Keeps up to `most` cards, of the photos whose rows `order` puts first."""
        self._order, self._most = order, most
        self._kept: list[tuple[Any, Row, Card | None]] = []

    def wants(self, row: Row) -> bool:
        """Returns whether the card of a photo with this row would be kept, as of now."""
        return len(self._kept) < self._most or self._order(row) < self._kept[-1][0]

    def add(self, row: Row, card: Card | None) -> None:
        """Takes a photo's card; None if its photo cannot be shown."""
        if self.wants(row):
            bisect.insort(self._kept, (self._order(row), row, card), key=lambda x: x[0])
            del self._kept[self._most :]

    def ranked(self) -> list[tuple[Row, Card | None]]:
        """Returns rows and cards, the worst first."""
        return [(row, card) for _, row, card in self._kept]


def make_card(
    image: np.ndarray,
    layers: Mapping[str, np.ndarray],
    painter: Painter,
    wrong: np.ndarray | None = None,
) -> Card:
    """Makes a photo's card.

    Args:
      image: uint8 [H, W, 3].
      layers: {title: integer [H', W'], class ids or 255}.
      painter: has the colours. What it does not paint is transparent.
      wrong: bool [H', W'], the pixels that a last layer marks as errors; None for no such layer.
    """
    small = Image.fromarray(image)
    small.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    size = small.size[::-1]
    pictures = {title: _layer(resize_label(x, size), painter) for title, x in layers.items()}
    if wrong is not None:
        pictures[ERRORS] = _png(resize_label(wrong, size), np.array([[0, 0, 0, 0], [*WRONG, 255]]))
    counts = sum(np.bincount(x.ravel(), minlength=256) for x in layers.values())
    ids = np.flatnonzero(counts[:VOID]).tolist()
    return Card(_encoded(small, "JPEG", quality=_QUALITY, optimize=True), pictures, ids)


def describe_gallery(
    cards: Iterable[tuple[Mapping[str, Any], Card | None]],
    painter: Painter,
    total: int,
    order: str,
) -> dict[str, Any]:
    """Returns what page.html shows as a gallery.

    Args:
      cards: for each photo its texts and its card, the worst first. Texts are "name", "scores"
        (pairs of a title and a text), "bar" (0..1 or None) and, if there is one, "link" (an address
        relative to the page).
      painter: has class names and colours.
      total: how many photos there are, of which `cards` may be the first.
      order: says what they are sorted by.
    """
    shown: list[dict[str, Any]] = []
    size, layers = 0, []
    for texts, card in cards:
        size += card.size if card else _TEXT_BYTES
        if size > MOST_BYTES:
            break
        shown.append(dict(texts) | (card._asdict() if card else {"classes": []}))
        layers = layers or list(card.layers if card else ())
    colors = ["#" + bytes(painter.colors[i]).hex() for i in range(len(painter.class_names))]
    classes = [
        {"name": name, "color": color, "painted": i != painter.background}
        for i, (name, color) in enumerate(zip(painter.class_names, colors))
    ]
    return {
        "cards": shown, "classes": classes, "layers": layers, "total": total, "order": order,
        "unknown": "truth" in layers, "error_color": "#" + bytes(WRONG).hex(),
    }  # fmt: skip


def _layer(ids: np.ndarray, painter: Painter) -> str:
    """Makes a PNG file of a label map, with only those colours that it needs."""
    present, places = np.unique(ids, return_inverse=True)
    opaque = (present != painter.background) if painter.background is not None else True
    alpha = np.where(opaque, 255, 0) * np.ones(len(present), int)
    return _png(places.reshape(ids.shape), np.column_stack([painter.colors[present], alpha]))


def _png(places: np.ndarray, colors: np.ndarray) -> str:
    """Makes a PNG file, in base64, from places [H, W] in a list of colours [N, 4]."""
    picture = Image.fromarray(places.astype(np.uint8))
    picture.putpalette(colors[:, :3].astype(np.uint8).tobytes())
    bits = next(x for x in (1, 2, 4, 8) if len(colors) <= 1 << x)
    transparency = colors[:, 3].astype(np.uint8).tobytes()
    return _encoded(picture, "PNG", optimize=True, bits=bits, transparency=transparency)


def _encoded(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()
