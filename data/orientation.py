"""Turns photos upright that are stored turned or mirrored, as only their EXIF data say."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

UPRIGHT = 1
SWAPPED = (5, 6, 7, 8)  # these swap height and width
_OTHERS = range(2, 9)  # any value outside of EXIF's 1 to 8 counts as upright
_FORMATS = ("JPEG", "PNG")  # what training decodes itself
_QUALITY = 95  # of a JPEG that is written again; the loss cannot be seen


def orientation_of(image: bytes) -> int:
    """EXIF's orientation of an encoded image, 1 to 8; `UPRIGHT` if it has none."""
    try:
        with Image.open(io.BytesIO(image), formats=_FORMATS) as opened:
            return orientation_in(opened)
    except Exception:  # damaged EXIF data raise any error; training's decoder does not read them
        return UPRIGHT


def orientation_of_file(image: Image.Image, path: Path) -> int:
    """EXIF's orientation of an open image of any format; `path` is its file."""
    # Pillow would decode a whole PNG to find out whether EXIF data follow the pixels.
    if image.format == "PNG" and "exif" not in image.info and not _has_chunk(path, b"eXIf"):
        return UPRIGHT
    try:
        return orientation_in(image)
    except Exception:  # damaged EXIF data do not affect the pixels
        return UPRIGHT


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns pixels [H, W, 3] from how they are stored to how they are displayed."""
    if orientation in SWAPPED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """Encodes pixels uint8 [H, W, 3] with hardly any loss."""
    buffer = io.BytesIO()
    # No subsampling: the image may have lost half of its colours' resolution already.
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def orientation_in(image: Image.Image) -> int:
    """EXIF's orientation of an open image; raises whatever Pillow does for damaged EXIF data."""
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
