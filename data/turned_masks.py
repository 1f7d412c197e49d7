"""Masks of photos that are stored turned or mirrored, as only their EXIF data say.

Most tools that masks are made with show photos upright, some as they are stored. A mask's size
tells which it was, unless it fits both: then the mask counts as upright.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from data.errors import counted
from data.masks import SIZES_DIFFER, decode_mask, encode_png
from data.orientation import SWAPPED, UPRIGHT, turn

if TYPE_CHECKING:
    from data.sources import Label, Size

AS_IT_IS = ""  # what became of the mask of a photo that is stored upright, or has no mask
TURNED = "turned along"
FITS = "upright already"
FITS_BOTH_WAYS = "taken as upright, as it fits both ways"


def upright_label(read: Label, size: Size, orientation: int) -> tuple[bytes, str, str]:
    """Reads the mask of a photo, and turns it upright if it fits the photo as it is stored only.

    Args:
      read: makes the mask for a size of the photo.
      size: height and width of the photo, upright.
      orientation: of the photo's file, as EXIF has it, 1 to 8.

    Returns:
      The PNG of ids, "" and what became of the mask; or b"", what is wrong with it, and "".
    """
    label, error = read(size)
    if orientation == UPRIGHT:
        return label, error, AS_IT_IS
    stored = size[::-1] if orientation in SWAPPED else size
    if not error:
        return label, error, FITS if stored != size else FITS_BOTH_WAYS
    if stored != size:
        label, other_error = read(stored)
        if not other_error:
            return encode_png(turn(decode_mask(label), orientation)), "", TURNED
        if SIZES_DIFFER not in other_error:
            error = other_error  # it has the photo's size as stored, and something else is wrong
    return b"", error, AS_IT_IS


def describe(turned: Mapping[str, str], title: str) -> list[str]:
    """At most one sentence: what became of the masks of photos that are stored turned.

    Args:
      turned: id of a photo -> what became of its mask.
      title: the split, for people.
    """
    if not turned:
        return []
    counts = "; ".join(f"{n} {how}" for how, n in sorted(Counter(turned.values()).items()))
    photos = counted(len(turned), "labelled photo is", "labelled photos are")
    return [
        f"{title}: {photos} stored turned (EXIF), such as {next(iter(turned))}, and made upright; "
        f"their masks: {counts}"
    ]
