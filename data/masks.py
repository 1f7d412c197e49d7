"""Checks a mask file and brings it into the one form that is stored."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

VOID = 255


def normalize_mask(
    content: bytes, file: Path, size: tuple[int, int], num_classes: int
) -> tuple[bytes, str]:
    """Checks a mask and stores palette images as plain ids.

    Args:
      content: bytes of the mask's file.
      file: its name, for messages.
      size: height and width of the image it belongs to.
      num_classes: K; ids 0..K-1 and 255 are allowed.

    Returns:
      (PNG with one channel, "") or (b"", what is wrong with the file and how to mend it).
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        return b"", f"{file}: cannot be read as an image ({error}); write it again as an 8-bit PNG."
    if image.mode not in ("L", "P"):
        return b"", (
            f"{file}: the mask has mode {image.mode}, not class ids; convert the colours to ids "
            f"0..{num_classes - 1} (255 = void) and save an 8-bit PNG with one channel."
        )
    ids = np.asarray(image)
    if ids.shape != size:
        return b"", (
            f"{file}: the mask is {ids.shape[1]}x{ids.shape[0]} and its image {size[1]}x{size[0]} "
            "(width x height); export both at the same size."
        )
    present = np.unique(ids)
    wrong = present[(present >= num_classes) & (present != VOID)]
    if wrong.size:
        return b"", (
            f"{file}: ids {wrong.tolist()} are neither classes 0..{num_classes - 1} nor 255 "
            "(void); remap them, or correct the number of classes."
        )
    if image.mode == "L" and image.format == "PNG":
        return content, ""
    buffer = io.BytesIO()
    Image.fromarray(ids).save(buffer, format="PNG")
    return buffer.getvalue(), ""


def decode_mask(content: bytes) -> np.ndarray:
    """Ids uint8 [H, W] of a mask that `normalize_mask` returned."""
    return np.asarray(Image.open(io.BytesIO(content)))
