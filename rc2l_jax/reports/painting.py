"""Paints label maps over photos: classes in colour with outlines, unknown pixels hatched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from data.annotations.regions import background_id
from rc2l_jax.reports.colors import class_colors
from rc2l_jax.structs import VOID

SMALLEST_SIDE = 256  # pixels: a smaller picture is enlarged until its longest side has as many
LARGEST_SIDE = 512  # pixels: a larger one is shrunk
_OPACITY = 0.5
_ROWS = 256  # how many rows are mixed at a time
WRONG = (255, 0, 80)
_UNPAINTED = (192, 192, 192)  # stands for the photo in a legend
_FADED = 0.35  # how much of the photo is left beneath the errors
_OUTLINES = 300  # an outline is this share of the longest side wide, and a pixel at least
_STRIPES = 40  # so many stripes of a hatching fit along the longest side, of 8 pixels at least


class Painter:
    """Paints label maps of one list of classes.

    Attributes:
      class_names: K names.
      colors: uint8 [256, 3], each id's colour.
      background: the id of the class that is not painted, so that its photo stays as it is; None
        if no class is the background.
    """

    def __init__(self, class_names: Sequence[str]):
        """Takes the names of the classes, which decide what the background is."""
        self.class_names = tuple(class_names)
        self.colors = class_colors(class_names)
        self.background = background_id(class_names)

    def overlay(self, image: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Paints a label map over its image: colours, outlines, and a hatching where it is void.

        Args:
          image: uint8 [H, W, 3].
          label: integer [H', W'], class ids or 255; it is resized to [H, W] by nearest sampling.

        Returns:
          uint8 [H, W, 3].
        """
        label = resize_label(label, image.shape[:2])
        opacity = np.full(256, _OPACITY, np.float32)
        opacity[VOID] = 0.0
        if self.background is not None:
            opacity[self.background] = 0.0
        painted = np.empty_like(image)
        width = max(1, round(max(label.shape) / _OUTLINES))
        # Some rows at a time, since floating-point numbers take four times the memory of the image.
        for top in range(0, len(image), _ROWS):
            rows = slice(top, top + _ROWS)
            ids = label[rows]
            share = np.where(_outline(label, top, width), 1.0, opacity[ids])
            share[opacity[ids] == 0] = 0.0  # neither background nor void has an outline of its own
            mixed = image[rows] + share[..., None] * (self.colors[ids] - image[rows].astype(float))
            painted[rows] = np.clip(np.rint(mixed), 0, 255)
            _hatch(painted[rows], ids == VOID, top, max(label.shape))
        return painted

    def errors(self, image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Marks the pixels of a faded image at which a prediction is wrong.

        Args:
          image: uint8 [H, W, 3].
          label: the truth, integer [H', W'], class ids or 255; void is hatched.
          prediction: integer [H', W'], class ids.

        Returns:
          uint8 [H, W, 3].
        """
        label, prediction = (resize_label(x, image.shape[:2]) for x in (label, prediction))
        grey = image.mean(axis=-1, keepdims=True) * _FADED + 255 * (1 - _FADED)
        marked = np.repeat(np.rint(grey).astype(np.uint8), 3, axis=-1)
        marked[(label != prediction) & (label != VOID)] = WRONG
        _hatch(marked, label == VOID, 0, max(label.shape))
        return marked

    def cells(
        self,
        image: np.ndarray,
        labels: Iterable[np.ndarray | None],
        side: int = LARGEST_SIDE,
    ) -> list[np.ndarray]:
        """Makes cells of a grid's row: an image, and the image under each of some label maps.

        Args:
          image: uint8 [H, W, 3].
          labels: integer [H', W'] each, class ids or 255; None makes an empty cell.
          side: see `fit`.

        Returns:
          uint8 [H', W', 3] each: the image, and a cell for each label map.
        """
        image = fit(image, side)
        empty = np.full_like(image, 255)
        return [image, *(empty if x is None else self.overlay(image, x) for x in labels)]

    def swatch(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """Shows how a class, or 255, looks in a legend: uint8 [H, W, 3], with `size` = (W, H)."""
        shown = np.full((size[1], size[0], 3), self.colors[index])
        if index in (VOID, self.background):
            shown[:] = _UNPAINTED
        _hatch(shown, np.full(shown.shape[:2], index == VOID), 0, 0)
        return shown

    def indexed(self, ids: np.ndarray) -> Image.Image:
        """Makes an image of mode P from a label map: its pixels are the ids."""
        picture = Image.fromarray(np.asarray(ids, np.uint8))
        picture.putpalette(self.colors.tobytes())
        return picture


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a label map to `size` = (H, W) by nearest sampling: uint8 [H, W]."""
    label = np.asarray(label, np.uint8)
    if label.shape == tuple(size):
        return label
    resized = Image.fromarray(label).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(resized)


def fit(image: np.ndarray, side: int = LARGEST_SIDE) -> np.ndarray:
    """Brings an image uint8 [H, W, 3] to a size that can be looked at, by a whole factor.

    It is shrunk until no side is longer than `side`, or enlarged until its longest side has 256
    pixels.
    """
    longest = max(image.shape[:2])
    if longest > side:
        return np.asarray(Image.fromarray(image).reduce(-(-longest // side)))
    factor = -(-SMALLEST_SIDE // longest)
    return image.repeat(factor, 0).repeat(factor, 1)


def _outline(label: np.ndarray, top: int, width: int) -> np.ndarray:
    """Where a pixel's class differs from that of the pixel `width` away, in any of four directions.

    So both sides of an edge are outlined.

    Args:
      label: uint8 [H, W], of the whole image.
      top: the first of `_ROWS` rows.
      width: in pixels.
    """
    rows = np.arange(top, min(top + _ROWS, len(label)))
    columns = np.arange(label.shape[1])
    here, found = label[rows], np.zeros((len(rows), len(columns)), bool)
    for shift in (width, -width):
        found |= here != label[np.clip(rows + shift, 0, len(label) - 1)]
        found |= here != here[:, np.clip(columns + shift, 0, len(columns) - 1)]
    return found


def _hatch(picture: np.ndarray, where: np.ndarray, top: int, longest: int) -> None:
    """Draws stripes, white beside black, into a part of a picture, in place.

    Args:
      picture: uint8 [H, W, 3], some rows of the whole.
      where: bool [H, W].
      top: number of the picture's first row in the whole.
      longest: the longest side of the whole.
    """
    period = max(8, longest // _STRIPES)
    rows, columns = np.ogrid[top : top + len(where), : where.shape[1]]
    phase = (rows + columns) % period * 4 // period
    picture[where & (phase == 0)] = 255
    picture[where & (phase == 1)] = 0
