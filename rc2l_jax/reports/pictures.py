"""Captioned grids of pictures, legends, and image files."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.whole_files import whole_file
from rc2l_jax.reports.painting import Painter
from rc2l_jax.structs import VOID

_BACKGROUND = 255
_MARGIN = 4
_CAPTION_HEIGHT = 16
_FONT_SIZE = 12
_SWATCH = (24, 16)  # width and height
_LEGEND_ROWS = 32


@functools.lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans, which comes with matplotlib: Pillow's own font has ASCII only."""
    import matplotlib  # here, so that training starts without waiting for it

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), _FONT_SIZE)


def grid(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    notes: Sequence[Sequence[str]] = (),
) -> np.ndarray:
    """Arranges pictures in rows, with a caption above each column.

    Args:
      rows: pictures uint8 [H, W, 3] of any sizes; each row must be as long as `captions`.
      captions: a caption for each column.
      notes: for each row a short text for each of its pictures, which is written into its corner;
        "" for none.

    Returns:
      uint8 [H', W', 3].

    Raises:
      ValueError: there are no rows, or a row has another length than `captions`.
    """
    if not rows or any(len(row) != len(captions) for row in rows):
        lengths = [len(row) for row in rows]
        raise ValueError(f"a grid of {len(captions)} columns cannot hold rows of {lengths}")
    font = _font()
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    widths = [
        max(max(row[i].shape[1] for row in rows), int(font.getlength(caption)) + 1)
        for i, caption in enumerate(captions)
    ]
    lefts = np.cumsum([_MARGIN] + [width + _MARGIN for width in widths])
    tops = np.cumsum([_CAPTION_HEIGHT + _MARGIN] + [height + _MARGIN for height in heights])
    canvas = np.full((tops[-1], lefts[-1], 3), _BACKGROUND, np.uint8)
    for top, row in zip(tops, rows):
        for left, cell in zip(lefts, row):
            canvas[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for left, caption in zip(lefts, captions):
        draw.text((int(left), 1), caption, fill=(0, 0, 0), font=font)
    for top, texts in zip(tops, notes):
        for left, text in zip(lefts, texts):
            if text:
                _note(draw, (int(left), int(top)), text)
    return np.asarray(picture)


def _note(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str) -> None:
    """Writes a text in black on white, with its upper left corner at `corner`."""
    left, top = corner
    right = left + int(_font().getlength(text)) + 2 * _MARGIN
    draw.rectangle((left, top, right, top + _CAPTION_HEIGHT), fill=(_BACKGROUND,) * 3)
    draw.text((left + _MARGIN, top + 1), text, fill=(0, 0, 0), font=_font())


def legend(painter: Painter) -> np.ndarray:
    """Draws each class's colour, id and name, 32 classes in a column: uint8 [H, W, 3]."""
    names = enumerate(painter.class_names)
    texts = {i: f"{i} {_described(painter, i, name)}" for i, name in names}
    rows = min(len(texts), _LEGEND_ROWS)
    return _swatches(painter, texts, rows, -(-len(texts) // rows))


def with_key(
    picture: np.ndarray, painter: Painter, ids: Iterable[int], void: str = "not annotated"
) -> np.ndarray:
    """Adds colour and name of some classes below a picture, in as many columns as fit its width.

    Args:
      picture: uint8 [H, W, 3].
      painter: what painted it.
      ids: ids of the classes to name.
      void: what the id 255, which is hatched, means there.

    Returns:
      uint8 [H', W', 3].
    """
    texts = {
        i: void if i == VOID else _described(painter, i, painter.class_names[i])
        for i in sorted(set(ids))
    }
    if not texts:
        return picture
    columns = max(1, min(len(texts), (picture.shape[1] - _MARGIN) // _column_width(texts.values())))
    key = _swatches(painter, texts, -(-len(texts) // columns), columns)
    width = max(picture.shape[1], key.shape[1])

    def widen(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, 0), (0, width - x.shape[1]), (0, 0)), constant_values=_BACKGROUND)

    return np.concatenate([widen(picture), widen(key)])


def _column_width(texts: Iterable[str]) -> int:
    return _SWATCH[0] + 3 * _MARGIN + int(max(map(_font().getlength, texts))) + 1


def _described(painter: Painter, index: int, name: str) -> str:
    """Returns a class's name for a legend, which says if it is not painted."""
    return f"{name} (not painted)" if index == painter.background else name


def _swatches(painter: Painter, texts: Mapping[int, str], rows: int, columns: int) -> np.ndarray:
    """Draws texts with their classes' colours beside them, column after column.

    Args:
      painter: has the colours.
      texts: {class id: text}.
      rows: texts in each column.
      columns: how many columns.
    """
    column, pitch = _column_width(texts.values()), _SWATCH[1] + _MARGIN
    size = (column * columns + _MARGIN, pitch * rows + _MARGIN)
    picture = Image.new("RGB", size, (_BACKGROUND,) * 3)
    draw = ImageDraw.Draw(picture)
    for place, (index, text) in enumerate(texts.items()):
        left = _MARGIN + place // rows * column
        top = _MARGIN + place % rows * pitch
        picture.paste(Image.fromarray(painter.swatch(index, _SWATCH)), (left, top))
        draw.text((left + _SWATCH[0] + _MARGIN, top + 1), text, fill=(0, 0, 0), font=_font())
    return np.asarray(picture)


def save_png(path: Path, picture: np.ndarray) -> None:
    """Writes a picture uint8 [H, W, 3] as a PNG file, and makes its folder.

    A reader sees the former file or the new one, never half of it.
    """
    save_image(path, Image.fromarray(picture))


def save_image(path: Path, picture: Image.Image, **options: Any) -> None:
    """Writes an image as `save_png` does, in the format of the path's suffix.

    Args:
      path: the file.
      picture: the image.
      **options: for Pillow's encoder, such as `quality`.
    """
    buffer = io.BytesIO()
    picture.save(buffer, format=Image.registered_extensions()[path.suffix], **options)
    with whole_file(path, one_writer=True) as partial:
        partial.write_bytes(buffer.getvalue())
