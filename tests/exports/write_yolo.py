"""Has Ultralytics write yolo/NAME.txt and data.yaml, and draw NAME.png of it.

pip install ultralytics==8.4.190
python tests/exports/write_yolo.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import scene
import torch
from ultralytics.data.converter import convert_coco
from ultralytics.data.utils import polygons2masks, verify_image_label
from ultralytics.engine.results import Results
from ultralytics.utils import YAML

OUT = scene.HERE / "yolo"


def draw(name: str) -> None:
    """Draws what Ultralytics reads of a file."""
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder, "photo.png")
        scene.photo(photo)
        told = (str(photo), str(OUT / f"{name}.txt"), "", False, len(scene.CLASSES), 0, 0, False)
        _, labels, size, segments, *_ = verify_image_label(told)
    assert size == scene.SIZE, "the file was not read"
    corners = [segment * (scene.WIDTH, scene.HEIGHT) for segment in segments]
    ids = np.zeros(scene.SIZE, np.uint8)
    for (index, *_), inside in zip(labels, polygons2masks(scene.SIZE, corners, 1)):
        ids[inside.astype(bool)] = index
    scene.save(OUT / f"{name}.png", ids)


def converted() -> None:
    """Polygons that come from COCO. The two parts of one thing become one polygon."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "annotations"), Path(folder, "converted")
        source.mkdir()
        (source / "all.json").write_text(json.dumps(scene.coco()))
        convert_coco(str(source), str(made), use_segments=True, cls91to80=False)
        text = (made / "labels" / "all" / "photo.txt").read_text()
    (OUT / "converted.txt").write_text(text)
    draw("converted")


def predicted() -> None:
    """The outline of a mask, as a network's result is saved."""
    path = OUT / "predicted.txt"
    path.unlink(missing_ok=True)  # Ultralytics appends
    mask = torch.from_numpy(scene.bitmap_in_photo())[None].float()
    box = torch.tensor([[0.0, 0, scene.WIDTH, scene.HEIGHT, 0.9, scene.IDS["tree"]]])
    names = dict(enumerate(scene.CLASSES))
    photo = np.zeros((*scene.SIZE, 3), np.uint8)
    Results(photo, "photo.png", names, boxes=box, masks=mask).save_txt(path)
    draw("predicted")


OUT.mkdir(exist_ok=True)
converted()
predicted()
YAML.save(
    OUT / "data.yaml", {"path": ".", "train": "images", "names": dict(enumerate(scene.CLASSES))}
)
