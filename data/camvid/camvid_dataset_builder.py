"""TFDS builder of CamVid (Brostow et al., 2008; 11 classes and split of SegNet, PAMI 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data import layout
from data.errors import DataError
from data.records import Example, RecordBuilder, records_config

CLASS_NAMES = (
    "sky", "building", "pole", "road", "pavement", "tree",
    "sign_symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
SPLITS = ("train", "val")


class Camvid(RecordBuilder):
    """CamVid from images/{train,val}/NAME.jpg and labels/{train,val}/NAME.png."""

    VERSION = "1.0.0"
    class_names = CLASS_NAMES

    def __init__(self, *, root: Path, **kwargs):
        self._root = root
        super().__init__(**kwargs)

    def examples(self, split: str) -> Iterator[tuple[Example, bytes, bytes]]:
        """See `layout.read_split`."""
        return layout.read_split(self._root, split, len(self.class_names))


def make_builder(folder: str, prepared_dir: str) -> Camvid:
    """The builder of the files that lie in `folder` now.

    Raises:
      DataError: the folder is missing, empty or laid out otherwise.
    """
    if not folder:
        raise DataError("config.data.dir is not set; set it to the folder that holds CamVid.")
    root = Path(folder).expanduser().resolve()
    name = f"files-{layout.fingerprint(root, SPLITS)}"
    return Camvid(root=root, **records_config(name, prepared_dir))
