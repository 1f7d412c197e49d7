"""Pictures: label maps in colour, overlays, captioned grids and legends."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.whole_files import whole_file
from rc2l_jax.structs import VOID

VOID_COLOR = (224, 224, 224)
_BACKGROUND = 255
_MARGIN = 4
_CAPTION_HEIGHT = 16
_FONT_SIZE = 12
_ENLARGE_TO = 192  # pixels: pictures in a grid are enlarged as long as their longest side fits
_SHRINK_TO = 512  # pixels: the longest side of an image in a grid
_ROWS = 256  # how many rows of an overlay are mixed at a time
_SWATCH = (24, 16)  # width and height
_LEGEND_ROWS = 32


def palette() -> np.ndarray:
    """Returns PASCAL VOC's colour map, with void in light grey: uint8 [256, 3]."""
    ids = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= (((ids >> channel) & 1) << (7 - bit)).astype(np.uint8)
        ids >>= 3
    colors[VOID] = VOID_COLOR
    return colors


def colorize(label: np.ndarray) -> np.ndarray:
    """Colours a label map: integer [H, W], class ids or 255, to uint8 [H, W, 3]."""
    return palette()[np.asarray(label, np.uint8)]


def overlay(image: np.ndarray, label: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Paints a label map over its image. Where the label is void, the image fades to grey.

    Args:
      image: uint8 [H, W, 3].
      label: integer [H', W'], class ids or 255; it is resized to [H, W] by nearest sampling.
      opacity: the opacity of the label map, 0 to 1.

    Returns:
      uint8 [H, W, 3].
    """
    label = resize_label(label, image.shape[:2])
    mixed = np.empty_like(image)
    # Some rows at a time, since floating-point numbers take four times the memory of the image.
    for top in range(0, len(image), _ROWS):
        part = slice(top, top + _ROWS)
        colors = opacity * colorize(label[part]).astype(np.float32)
        mixed[part] = np.clip(np.rint((1.0 - opacity) * image[part] + colors), 0, 255)
    return mixed


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a label map to `size` = (H, W) by nearest sampling: uint8 [H, W]."""
    label = np.asarray(label, np.uint8)
    if label.shape == tuple(size):
        return label
    resized = Image.fromarray(label).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(resized)


def shrink(image: np.ndarray, side: int = _SHRINK_TO) -> np.ndarray:
    """Shrinks an image uint8 [H, W, 3] by a whole factor until no side is longer than `side`."""
    factor = -(-max(image.shape[:2]) // side)
    return image if factor == 1 else np.asarray(Image.fromarray(image).reduce(factor))


def cells(
    image: np.ndarray, labels: Iterable[np.ndarray | None], side: int = _SHRINK_TO
) -> list[np.ndarray]:
    """Makes cells of a grid's row: an image, and the image under each of some label maps.

    Args:
      image: uint8 [H, W, 3].
      labels: integer [H', W'] each, class ids or 255; None makes an empty cell.
      side: a larger image is shrunk until no side is longer than this.

    Returns:
      uint8 [H', W', 3] each: the image, and a cell for each label map.
    """
    image = shrink(image, side)
    empty = np.full_like(image, _BACKGROUND)
    return [image, *(empty if label is None else overlay(image, label) for label in labels)]


@functools.lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans, which comes with matplotlib: Pillow's own font has ASCII only."""
    import matplotlib  # here, so that training starts without waiting for it

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), _FONT_SIZE)


def grid(rows: Sequence[Sequence[np.ndarray]], captions: Sequence[str]) -> np.ndarray:
    """Arranges pictures in rows, with a caption above each column.

    Args:
      rows: pictures uint8 [H, W, 3] of any sizes; each row must be as long as `captions`.
      captions: a caption for each column.

    Returns:
      uint8 [H', W', 3].

    Raises:
      ValueError: there are no rows, or a row has another length than `captions`.
    """
    if not rows or any(len(row) != len(captions) for row in rows):
        lengths = [len(row) for row in rows]
        raise ValueError(f"a grid of {len(captions)} columns cannot hold rows of {lengths}")
    font = _font()
    # If all pictures are small they are enlarged, all by the same whole factor.
    factor = max(1, _ENLARGE_TO // max(max(cell.shape) for row in rows for cell in row))
    rows = [[cell.repeat(factor, 0).repeat(factor, 1) for cell in row] for row in rows]
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
    return np.asarray(picture)


def legend(class_names: Sequence[str]) -> np.ndarray:
    """Draws each class's colour, id and name, 32 classes in a column: uint8 [H, W, 3]."""
    texts = {index: f"{index} {name}" for index, name in enumerate(class_names)}
    rows = min(len(texts), _LEGEND_ROWS)
    return _swatches(texts, rows, -(-len(texts) // rows))


def with_key(picture: np.ndarray, class_names: Sequence[str], ids: Iterable[int]) -> np.ndarray:
    """Adds colour and name of some classes below a picture, in as many columns as fit its width.

    Args:
      picture: uint8 [H, W, 3].
      class_names: K names.
      ids: ids of the classes to name; 255, void, is named "not annotated".

    Returns:
      uint8 [H', W', 3].
    """
    texts = {i: "not annotated" if i == VOID else class_names[i] for i in sorted(set(ids))}
    if not texts:
        return picture
    columns = max(1, min(len(texts), (picture.shape[1] - _MARGIN) // _column_width(texts.values())))
    key = _swatches(texts, -(-len(texts) // columns), columns)
    width = max(picture.shape[1], key.shape[1])

    def widen(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, 0), (0, width - x.shape[1]), (0, 0)), constant_values=_BACKGROUND)

    return np.concatenate([widen(picture), widen(key)])


def _column_width(texts: Iterable[str]) -> int:
    return _SWATCH[0] + 3 * _MARGIN + int(max(map(_font().getlength, texts))) + 1


def _swatches(texts: Mapping[int, str], rows: int, columns: int) -> np.ndarray:
    """Draws texts with their classes' colours beside them, column after column.

    Args:
      texts: {class id: text}.
      rows: texts in each column.
      columns: how many columns.
    """
    column, pitch = _column_width(texts.values()), _SWATCH[1] + _MARGIN
    size = (column * columns + _MARGIN, pitch * rows + _MARGIN)
    picture = Image.new("RGB", size, (_BACKGROUND,) * 3)
    draw, colors = ImageDraw.Draw(picture), palette()
    for place, (index, text) in enumerate(texts.items()):
        left = _MARGIN + place // rows * column
        top = _MARGIN + place % rows * pitch
        right, bottom = left + _SWATCH[0] - 1, top + _SWATCH[1] - 1
        draw.rectangle((left, top, right, bottom), fill=tuple(map(int, colors[index])))
        draw.text((right + 1 + _MARGIN, top + 1), text, fill=(0, 0, 0), font=_font())
    return np.asarray(picture)


def indexed(ids: np.ndarray) -> Image.Image:
    """Makes an image of mode P from a label map: pixels are the ids, colours those of `palette`."""
    picture = Image.fromarray(np.asarray(ids, np.uint8))
    picture.putpalette(palette().tobytes())
    return picture


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
