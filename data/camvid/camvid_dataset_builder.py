"""CamVid (Brostow et al., 2008; 11 classes and split of SegNet, PAMI 2017)."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from data import layout
from data.errors import DataError
from data.sources import Listing

CLASS_NAMES = (
    "sky", "building", "pole", "road", "pavement", "tree",
    "sign_symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
SPLITS = ("train", "val", "test")


def listing(data: ConfigDict) -> Listing:
    """CamVid from images/{split}/NAME.jpg and labels/{split}/NAME.png below `data.dir`.

    The published splits are train, val and test; a run needs only those that its config names.

    Raises:
      DataError: the folder is missing or empty, or has another layout.
    """
    if not data.dir:
        raise DataError("config.data.dir is not set; set it to the folder that holds CamVid.")
    root = Path(data.dir).expanduser().absolute()
    splits = layout.read_splits(root, len(CLASS_NAMES))
    absent = {
        split: f"{root / 'images' / split} holds no image; put CamVid's there, and its masks into "
        f"labels/{split}."
        for split in SPLITS
        if split not in splits
    }
    return Listing(CLASS_NAMES, splits, absent)
