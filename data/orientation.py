"""Photos that are stored turned or mirrored, which only their EXIF data say."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from data.images import is_jpeg
from data.masks import encode_png

UPRIGHT = 1
SWAPPED = (5, 6, 7, 8)  # these swap height and width
_OTHERS = range(2, 9)  # values without a meaning turn nothing
_FORMATS = ("JPEG", "PNG", "WEBP")  # those of training's decoder that can have EXIF data
_QUALITY = 95  # of a JPEG that is written again: nothing that can be seen is lost


def orientation_of(image: bytes) -> int:
    """EXIF's orientation of an encoded image, 1 to 8; `UPRIGHT` where it has none."""
    try:
        with Image.open(io.BytesIO(image), formats=_FORMATS) as opened:
            return _read(opened)
    except Exception:  # of any kind, if EXIF is damaged; the decoder of training does not read it
        return UPRIGHT


def orientation_of_file(image: Image.Image, path: Path) -> int:
    """The same of an open file of any format."""
    # For a PNG without EXIF data Pillow decodes all of it, to look behind the pixels.
    if image.format == "PNG" and "exif" not in image.info and not _has_chunk(path, b"eXIf"):
        return UPRIGHT
    try:
        return _read(image)
    except Exception:  # damaged EXIF data, of which the pixels know nothing
        return UPRIGHT


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Brings pixels [H, W, 3] as they are stored to how they are displayed."""
    if orientation in SWAPPED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def encode_again(pixels: np.ndarray, image: bytes) -> bytes:
    """Encodes pixels uint8 [H, W, 3] that come from `image`: a JPEG stays one, and small."""
    if not is_jpeg(image):
        return encode_png(pixels)
    buffer = io.BytesIO()
    # Colours at full resolution: the decoder has interpolated them, and they would be halved again.
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def _read(image: Image.Image) -> int:
    found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    return found if found in _OTHERS else UPRIGHT


def _has_chunk(path: Path, kind: bytes) -> bool:
    """Whether a PNG file has a chunk of this kind."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == kind:
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False
