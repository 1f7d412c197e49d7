"""Masks in which each class has a colour, and the files that say which.

labelmap.txt     CVAT's and VOC's: name:r,g,b:parts:actions, or name::: for ids in this order
_classes.csv     Roboflow's: the value of a pixel, and a class (such masks hold ids, not colours)
classes.txt      #rrggbb behind a name
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from data.annotations.regions import IGNORED, AnnotationError
from data.errors import counted
from data.label_values import VOID
from data.masks import MaskError, read_ids

Colour = tuple[int, int, int]
_HEX = re.compile(r"(?P<name>.*\S)\s+#(?P<hex>[0-9a-fA-F]{6})")
_UNKNOWN = -1
_MANY = 20  # colours without a class beyond which the mask is no mask of flat colours


def split_hex(line: str) -> tuple[str, Colour | None]:
    """A class's name, and the colour that stands behind it as #rrggbb."""
    match = _HEX.fullmatch(line)
    if match is None:
        return line, None
    red, green, blue = bytes.fromhex(match["hex"])
    return match["name"], (red, green, blue)


def _packed(red: Any, green: Any, blue: Any) -> Any:
    """One number for a colour, or an array of numbers for arrays."""
    return red << 16 | green << 8 | blue


def of_voc(index: int) -> Colour:
    """The colour that VOC's palette has for an id: of each three bits, red, green and blue get one.

    Programs that give classes no colours of their own use it: datumaro, Labelme.
    """
    channels = [0, 0, 0]
    for bit in range(24):
        channels[bit % 3] |= (index >> bit & 1) << 7 - bit // 3
    return tuple(channels)


def read_labelmap(text: str) -> dict[str, Colour | None]:
    """The colours of a labelmap.txt: name -> colour, or None where it says none.

    Raises:
      AnnotationError: a line is not of this form, or its colour is none.
    """
    colours: dict[str, Colour | None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        colour = rest.partition(":")[0].strip()
        if colon and not colour:
            colours[name.strip()] = None
            continue
        try:
            red, green, blue = (int(value) for value in colour.split(","))
        except ValueError as error:
            raise AnnotationError(
                f"line {number} is not name:red,green,blue:parts:actions"
            ) from error
        if not all(0 <= value <= 255 for value in (red, green, blue)):
            raise AnnotationError(f"line {number} has a colour outside of 0 to 255; correct it")
        colours[name.strip()] = (red, green, blue)
    return colours


def read_values(text: str) -> dict[str, int]:
    """The values of a _classes.csv: name -> value of its pixels.

    Raises:
      AnnotationError: a line below the first is not a value and a name.
    """
    values: dict[str, int] = {}
    for number, line in enumerate(text.splitlines()[1:], 2):
        if line.strip():
            value, _, name = line.partition(",")
            if not value.strip().isdigit() or int(value) > VOID:
                raise AnnotationError(f"line {number} is not the value of a pixel and a class")
            values[name.strip().strip('"')] = int(value)
    return values


class ColourReader:
    """Reads masks by their colours."""

    def __init__(self, ids: Mapping[Colour, int], lacking: Mapping[Colour, str] | None = None):
        """Takes the class id of each colour, and what to say of those whose class is not listed."""
        self._ids = {of_voc(VOID): VOID, **ids}
        self._lacking = {_packed(*colour): text for colour, text in (lacking or {}).items()}
        self._table = np.full(1 << 24, _UNKNOWN, np.int16)
        for colour, index in self._ids.items():
            self._table[_packed(*colour)] = index

    def __call__(self, content: bytes, where: str) -> np.ndarray:
        """Reads a PNG: uint8 [H, W]. It may be one of ids, if no class has any of its colours.

        Raises:
          MaskError: the file is no PNG, or has a colour of no class.
        """
        try:
            with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
                mode, pixels = image.mode, np.asarray(image.convert("RGB"))
        except Exception:  # says what is wrong with it
            return read_ids(content, where)
        red, green, blue = (pixels[..., channel].astype(np.uint32) for channel in range(3))
        packed = _packed(red, green, blue)
        ids = self._table[packed]
        unknown = np.unique(packed[ids == _UNKNOWN])
        if not unknown.size:
            return ids.astype(np.uint8)
        if problem := next((self._lacking[x] for x in unknown if x in self._lacking), ""):
            raise MaskError(problem)
        if mode in ("L", "P") and not self._shows_classes(packed[ids != _UNKNOWN], mode):
            return read_ids(content, where)
        share = (ids == _UNKNOWN).mean()
        do = f"write it behind a class's name in classes.txt or labelmap.txt (or {IGNORED}'s: void)"
        if unknown.size > _MANY:
            do = "was it saved with smoothed edges, or as JPEG? Save it again without"
        raise MaskError(
            f"{where}: {counted(unknown.size, 'colour')} of no class, such as #{unknown[0]:06x} "
            f"({share:.1%} of the pixels): {do}."
        )

    def _shows_classes(self, known: np.ndarray, mode: str) -> bool:
        """Whether a mask with some stray colours is one of colours, and not one of ids.

        Ids have any palette, or are shades of grey. Their 0 looks black, and their 255 is white, or
        what VOC's palette has for void; so these colours say nothing.
        """
        plain = {_packed(0, 0, 0), _packed(*of_voc(VOID))}
        plain |= {_packed(255, 255, 255)} if mode == "L" else set()
        return not {*np.unique(known).tolist()} <= plain
