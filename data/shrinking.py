"""Shrinks photos and masks that are larger than a run needs, before they become records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from data.errors import counted
from data.masks import decode_mask, encode_png

if TYPE_CHECKING:
    from data.sources import Size


def shrunken_size(size: Size, short_edge: int) -> Size:
    """The size that an image is shrunk to.

    Args:
      size: of the image.
      short_edge: its short edge becomes this long; images whose short edge is no longer stay as
        they are, and with 0 all do.
    """
    shortest = min(size)
    if not short_edge or shortest <= short_edge:
        return size
    # One side is then exactly `short_edge`, and the other is rounded to the nearest pixel.
    height, width = ((2 * side * short_edge + shortest) // (2 * shortest) for side in size)
    return height, width


def shrink_photo(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Shrinks uint8 [H, W, 3] with antialiasing."""
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.LANCZOS))


def shrink_label(label: bytes, size: Size) -> bytes:
    """Shrinks a mask as `masks.stored` returns it: each pixel gets the id at its centre.

    Ids are never mixed, and void stays void. The photo's pixels have the same centres.
    """
    ids = Image.fromarray(decode_mask(label))
    return encode_png(np.asarray(ids.resize(size[::-1], Image.Resampling.NEAREST)))


def describe(shrunk: int, total: int, short_edge: int, title: str) -> list[str]:
    """At most one sentence: how many photos were shrunk.

    Args:
      shrunk: their number.
      total: the number of all photos.
      short_edge: what they were shrunk to.
      title: the split, for people.
    """
    if not shrunk:
        return []
    return [
        f"{title}: {shrunk} of {counted(total, 'photo')} shrunk to a short edge of {short_edge} "
        "pixels, and any masks with them, which are scored at that size (data.prepared_short_edge)"
    ]
