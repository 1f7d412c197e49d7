"""Has Supervisely's SDK write supervisely/, a project, and draw NAME.png of it.

pip install supervisely==6.74.51
python tests/exports/write_supervisely.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import scene
import supervisely as sly
from supervisely.geometry.multipolygon import Multipolygon

OUT = scene.HERE / "supervisely"
CLASSES = {name: sly.ObjClass(name, sly.AnyGeometry) for name in scene.CLASSES}


def points(corners: scene.Corners) -> list[sly.PointLocation]:
    """Corners as Supervisely has them: the row and the column of a pixel."""
    return [sly.PointLocation(y, x) for x, y in scene.whole(corners)]


def write(project: sly.Project, name: str, labels: list[sly.Label]) -> None:
    """Adds a photo with labels to the project, and draws them."""
    annotation = sly.Annotation(scene.SIZE, labels)
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder, f"{name}.png")
        scene.photo(photo)
        (dataset,) = project.datasets
        dataset.add_item_file(photo.name, str(photo), ann=annotation)
    ids = np.zeros(scene.SIZE, np.uint8)
    for label in annotation.labels:
        label.geometry.draw(ids, scene.IDS[label.obj_class.name])
    scene.save(OUT / f"{name}.png", ids)


shutil.rmtree(OUT, ignore_errors=True)
project = sly.Project(str(OUT), sly.OpenMode.CREATE)
project.set_meta(sly.ProjectMeta(list(CLASSES.values())))
project.create_dataset("ds")
left, top, right, bottom = scene.BOX
write(
    project,
    "shapes",
    [
        sly.Label(sly.Polygon(points(scene.ROAD), [points(scene.HOLE)]), CLASSES["road"]),
        sly.Label(sly.Polygon(points(scene.STAR)), CLASSES["tree"]),
        sly.Label(
            Multipolygon([sly.Polygon(points(part)) for part in scene.PARTS]), CLASSES["house"]
        ),
    ],
)
write(
    project, "boxes", [sly.Label(sly.Rectangle(top, left, bottom - 1, right - 1), CLASSES["house"])]
)
bitmap = sly.Bitmap(scene.bitmap(), sly.PointLocation(*scene.ORIGIN[::-1]))
write(project, "bitmaps", [sly.Label(bitmap, CLASSES["tree"])])
