"""EXIF orientations: how a camera was held, and how its pixels are turned for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

SWAPPED = (5, 6, 7, 8)  # these swap height and width


def orientation_of(image: Image.Image, path: Path) -> int:
    """Reads the EXIF orientation of an open file: 1 to 8, or another number that turns nothing."""
    # For a PNG without EXIF data Pillow decodes all of it, to look behind the pixels.
    if image.format == "PNG" and "exif" not in image.info and not _has_chunk(path, b"eXIf"):
        return 1
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data, of which the pixels know nothing
        return 1


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Applies an EXIF orientation to [H, W, 3]."""
    if orientation in SWAPPED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _has_chunk(path: Path, kind: bytes) -> bool:
    """Whether a PNG file has a chunk of this kind."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == kind:
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False
