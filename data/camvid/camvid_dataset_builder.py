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
SPLITS = ("train", "val")


def listing(data: ConfigDict) -> Listing:
    """CamVid from images/{train,val}/NAME.jpg and labels/{train,val}/NAME.png below `data.dir`.

    Raises:
      DataError: the folder is missing or empty, or has another layout.
    """
    if not data.dir:
        raise DataError("config.data.dir is not set; set it to the folder that holds CamVid.")
    root = Path(data.dir).expanduser().absolute()
    return Listing(CLASS_NAMES, layout.read_splits(root, len(CLASS_NAMES), SPLITS))
