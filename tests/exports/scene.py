"""What each format's own library is given to write: a road, trees and a house."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
SIZE = HEIGHT, WIDTH = 30, 40
CLASSES = ("background", "road", "tree", "house")
IDS = {name: index for index, name in enumerate(CLASSES)}

Corners = list[list[float]]

ROAD: Corners = [[1.5, 2.0], [20.0, 3.5], [18.25, 27.0], [3.0, 25.5]]
HOLE: Corners = [[6, 8], [13, 8], [13, 18], [6, 18]]
STAR: Corners = [
    [30.3, 1.2],
    [34.1, 15.4],
    [22.7, 5.9],
    [38.2, 6.4],
    [26.6, 14.8],
]  # crosses itself
PARTS: list[Corners] = [
    [[23.5, 20.25], [29.0, 18.5], [30.5, 27.0]],
    [[32.0, 19.0], [38.5, 20.0], [36.0, 28.5]],
]
BOX = (8, 10, 24, 17)  # left, top, right, bottom: the edges between pixels
ORIGIN = (17, 12)  # of the bitmap's upper left pixel


def bitmap() -> np.ndarray:
    """A ring with ragged edges and a part of its own: bool [H, W], smaller than the photo."""
    drawn = np.zeros((14, 19), bool)
    drawn[1:13, 1:14], drawn[4:9, 5:10] = True, False
    drawn[0, ::3] = drawn[::2, 0] = True
    drawn[5:8, 16:19] = True
    return drawn


def bitmap_in_photo() -> np.ndarray:
    """The bitmap where it lies: bool [HEIGHT, WIDTH]."""
    (x, y), drawn = ORIGIN, bitmap()
    mask = np.zeros(SIZE, bool)
    mask[y : y + drawn.shape[0], x : x + drawn.shape[1]] = drawn
    return mask


def whole(corners: Corners) -> list[list[int]]:
    """Corners at whole numbers, for formats that have no others."""
    return [[round(x), round(y)] for x, y in corners]


def flat(corners: Corners) -> list[float]:
    """COCO's way: x, y, x, y, ..."""
    return [value for point in corners for value in point]


def coco() -> dict:
    """The polygons as COCO has them, to convert: each with its box, as COCO asks for."""
    drawn = [("road", [ROAD]), ("tree", [STAR]), ("house", PARTS)]
    annotations = []
    for number, (name, rings) in enumerate(drawn, 1):
        corners = np.concatenate([np.array(ring) for ring in rings])
        low, extent = corners.min(0), np.ptp(corners, 0)
        annotations.append(
            {
                "id": number, "image_id": 1, "category_id": IDS[name] + 1, "iscrowd": 0,
                "segmentation": [flat(ring) for ring in rings],
                "bbox": [*low.tolist(), *extent.tolist()], "area": float(extent.prod()),
            }
        )  # fmt: skip
    return {
        "images": [{"id": 1, "file_name": "photo.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": i + 1, "name": name} for name, i in IDS.items()],
        "annotations": annotations,
    }


def photo(path: Path) -> None:
    """Writes a photo of nothing, for libraries that want one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), "grey").save(path)


def save(path: Path, ids: np.ndarray) -> None:
    """Writes the mask that a library draws."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(path)


def inner(ids: np.ndarray) -> np.ndarray:
    """Where all eight neighbours are of the same class: bool [H, W].

    Elsewhere programs may differ: pixels that a polygon touches belong to it (Labelme, Ultralytics,
    Supervisely), or only those whose centre it holds (COCO).
    """
    framed = np.pad(ids, 1, mode="edge")
    around = [
        framed[y : y + ids.shape[0], x : x + ids.shape[1]] for y in range(3) for x in range(3)
    ]
    return np.all([neighbour == ids for neighbour in around], axis=0)


def digest(folder: Path) -> str:
    """A checksum of all files in a folder, with their names."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes())
    return total.hexdigest()
