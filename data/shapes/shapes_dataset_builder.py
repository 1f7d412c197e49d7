"""TFDS builder of `shapes`: draws the data set instead of reading it."""

from __future__ import annotations

import dataclasses
import inspect
import io
from collections.abc import Iterator

from PIL import Image

from data.errors import DataError
from data.records import Example, RecordBuilder, digest, records_config
from data.shapes import drawing, outlines, textures

MIN_IMAGE_SIZE = 16


@dataclasses.dataclass(frozen=True)
class ShapesArguments:
    """What decides every pixel of the data set; `config.data.shapes`.

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
        """Examples of "train" or "val"."""
        return {"train": self.num_train, "val": self.num_val}[split]


class Shapes(RecordBuilder):
    """Photo-like drawings of 6 shapes on a background; see `data.shapes.drawing`."""

    VERSION = "1.0.0"
    class_names = drawing.CLASS_NAMES

    def __init__(self, *, arguments: ShapesArguments, **kwargs):
        self._arguments = arguments
        super().__init__(**kwargs)

    def examples(self, split: str) -> Iterator[tuple[Example, bytes, bytes]]:
        """Draws the split."""
        side = self._arguments.image_size
        for index in range(self._arguments.num_examples(split)):
            image, label = drawing.draw(self._arguments.seed, split, index, side)
            yield Example(f"{split}_{index:06d}", side, side), _png(image), _png(label)


def make_builder(arguments: ShapesArguments, prepared_dir: str) -> Shapes:
    """The builder for these arguments and the drawing code as it is now."""
    code = digest(*(inspect.getsource(module) for module in (drawing, outlines, textures)))
    values = "-".join(f"{k}{v}" for k, v in dataclasses.asdict(arguments).items())
    return Shapes(arguments=arguments, **records_config(f"{values}-{code[:8]}", prepared_dir))


def _png(array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
