"""`shapes`: draws the data set instead of reading it."""

from __future__ import annotations

import dataclasses
import inspect

from ml_collections import ConfigDict

from data.errors import DataError
from data.masks import encode_png
from data.records import digest
from data.shapes import drawing, outlines, textures
from data.sources import Label, Listing, Source, Split

SPLITS = ("train", "val")
MIN_IMAGE_SIZE = 16


@dataclasses.dataclass(frozen=True)
class ShapesArguments:
    """The values of `config.data.shapes`, which decide every pixel of the data set.

    Attributes:
      image_size: side of the square images.
      num_train, num_val: examples of the two splits.
      seed: of the drawing.
    """

    image_size: int
    num_train: int
    num_val: int
    seed: int

    def __post_init__(self):
        if self.image_size < MIN_IMAGE_SIZE:
            raise DataError(
                f"config.data.shapes.image_size = {self.image_size} is too small to draw in; "
                f"use {MIN_IMAGE_SIZE} or more."
            )
        for name in ("num_train", "num_val"):
            if getattr(self, name) < 1:
                raise DataError(
                    f"config.data.shapes.{name} = {getattr(self, name)} makes an empty split; "
                    "use 1 or more."
                )
        if self.seed < 0:
            raise DataError(f"config.data.shapes.seed = {self.seed}; use 0 or more.")

    def num_examples(self, split: str) -> int:
        """The number of examples of "train" or "val"."""
        return {"train": self.num_train, "val": self.num_val}[split]


def listing(data: ConfigDict) -> Listing:
    """Photo-like drawings of 6 shapes on a background; see `data.shapes.drawing`.

    Raises:
      DataError: a value of `config.data.shapes` is too small.
    """
    arguments = ShapesArguments(**data.shapes.to_dict())
    return Listing(drawing.CLASS_NAMES, {name: _split(arguments, name) for name in SPLITS})


def _split(arguments: ShapesArguments, name: str) -> Split:
    code = (inspect.getsource(module) for module in (drawing, outlines, textures))
    count, side = arguments.num_examples(name), arguments.image_size
    fingerprint = digest(str((count, side, arguments.seed)), *code)
    sources = (_source(arguments, name, index) for index in range(count))
    return Split(tuple(sources), lambda: fingerprint)


def _source(arguments: ShapesArguments, split: str, index: int) -> Source:
    def read() -> tuple[bytes, Label]:
        image, label = drawing.draw(arguments.seed, split, index, arguments.image_size)
        return encode_png(image), lambda size: (encode_png(label), "")

    name = f"{split}_{index:06d}"
    return Source(name, name, read)
