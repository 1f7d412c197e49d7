"""Photos that are stored turned or mirrored, which only their EXIF data say."""

from __future__ import annotations

import io

import numpy as np
from PIL import ExifTags, Image

from data.images import is_jpeg
from data.masks import encode_png

UPRIGHT = 1
_OTHERS = range(2, 9)  # values without a meaning turn nothing
_FORMATS = ("JPEG", "PNG", "WEBP")  # those of training's decoder that can have EXIF data
_QUALITY = 95  # of a JPEG that is written again: nothing that can be seen is lost


def orientation_of(image: bytes) -> int:
    """EXIF's orientation of an encoded image, 1 to 8; `UPRIGHT` where it has none."""
    try:
        with Image.open(io.BytesIO(image), formats=_FORMATS) as opened:
            found = opened.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # of any kind, if EXIF is damaged; the decoder of training does not read it
        return UPRIGHT
    return found if found in _OTHERS else UPRIGHT


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Brings pixels [H, W, 3] as they are stored to how they are displayed."""
    if orientation in (5, 6, 7, 8):
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
