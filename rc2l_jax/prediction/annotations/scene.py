"""What annotations of a photo are made from, and what all formats have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from data.annotations.regions import background_id
from rc2l_jax.prediction.regions import Region
from rc2l_jax.reports.colors import class_colors


@dataclasses.dataclass(frozen=True)
class Scene:
    """A predicted photo.

    Attributes:
      photo: path of the photo's file.
      file_name: what labelling tools call the photo: its path below the folder of all photos.
      folder: the name of that folder.
      size: height and width, with the photo upright.
      class_names: K names.
      model: the network's title.
      regions: all regions, the background's too, the largest first.
    """

    photo: Path
    file_name: str
    folder: str
    size: tuple[int, int]
    class_names: Sequence[str]
    model: str
    regions: Sequence[Region]

    def is_background(self, region: Region) -> bool:
        """Whether a region is of the class that nobody draws, as it is what is left."""
        return region.class_id == background_id(self.class_names)

    @property
    def drawn(self) -> list[Region]:
        """The regions without the background's."""
        return [region for region in self.regions if not self.is_background(region)]


class Format(NamedTuple):
    """A labelling tool's format.

    Attributes:
      path: of a photo's file below the folder of all annotations, with the photo's name as "{}".
      describe: returns the text of a photo's file, given the file's path.
      finish: writes the files for all photos into the folder of all annotations, given K class
        names and a function that iterates over the texts of the photos' files; None if all is in
        these.
      joint: path of the file for all photos, below the folder of all annotations. People never see
        the photos' files then, which only serve to make it; "" where these are what people correct.
    """

    path: str
    describe: Callable[[Scene, Path], str]
    finish: Callable[[Path, Sequence[str], Callable[[], Iterable[str]]], None] | None
    joint: str = ""


def colors(class_names: Sequence[str]) -> list[str]:
    """Returns each class's colour in masks and overlays, as #rrggbb."""
    rows = class_colors(class_names)[: len(class_names)].tolist()
    return ["#{:02x}{:02x}{:02x}".format(*row) for row in rows]


def write_list(file: TextIO, items: Iterable[str]) -> None:
    """Writes items with commas between them, one to a line, without keeping them in memory."""
    for index, item in enumerate(items):
        file.write(f"{',' if index else ''}\n{item}")
