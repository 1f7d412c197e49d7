"""Has datumaro write coco.json, cvat.xml, cvat_turned.xml and voc*/, and draw what it reads there.

pip install datumaro==1.13.12
python tests/exports/write_datumaro.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import scene
from datumaro.components import annotation as kinds
from datumaro.components.annotation import AnnotationType, LabelCategories, MaskCategories
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image
from datumaro.util.mask_tools import rles_to_mask

COLOURS = {0: (0, 0, 0), 1: (128, 64, 128), 2: (107, 142, 35), 3: (70, 70, 70)}
PHOTO = Image.from_numpy(np.full((*scene.SIZE, 3), 128, np.uint8))


def draw(annotations: list) -> np.ndarray:
    """Draws annotations, the lowest first."""
    ids = np.zeros(scene.SIZE, np.uint8)
    for shape in sorted(annotations, key=lambda shape: (shape.z_order, shape.id)):
        if shape.type == AnnotationType.mask:
            inside = shape.image
        elif shape.type == AnnotationType.rotated_bbox:
            corners = [value for point in shape.as_polygon() for value in point]
            inside = rles_to_mask([corners], scene.WIDTH, scene.HEIGHT)
        elif shape.type == AnnotationType.bbox:
            inside = rles_to_mask([shape.as_polygon()], scene.WIDTH, scene.HEIGHT)
        else:
            inside = rles_to_mask([shape.points], scene.WIDTH, scene.HEIGHT)
        ids[np.asarray(inside, bool)] = shape.label
    return ids


def write(kind: str, file: str, to: Path, annotations: list) -> None:
    """Exports a data set of one photo, and draws what an import of it holds."""
    made = Dataset.from_iterable(
        [DatasetItem("photo", subset="train", media=PHOTO, annotations=annotations)],
        categories=list(scene.CLASSES),
    )
    with tempfile.TemporaryDirectory() as folder:
        made.export(folder, kind, save_media=True)
        shutil.copy(Path(folder, file), to)
        (item,) = Dataset.import_from(folder, kind.removesuffix("_instances"))
        # In COCO each shape has a box around it, too.
        shapes = [x for x in item.annotations if kind == "cvat" or x.type != AnnotationType.bbox]
        scene.save(to.with_suffix(".png"), draw(shapes))


def write_voc(to: Path, photos: dict[str, tuple[str, list]], colours: dict | None, **how) -> None:
    """Exports masks with a labelmap.txt, and draws what an import of coloured ones holds."""
    categories = {AnnotationType.label: LabelCategories.from_iterable(scene.CLASSES)}
    if colours:
        categories[AnnotationType.mask] = MaskCategories(colours)
    items = [
        DatasetItem(name, subset=split, media=PHOTO, annotations=masks)
        for name, (split, masks) in photos.items()
    ]
    shutil.rmtree(to, ignore_errors=True)
    made = Dataset.from_iterable(items, categories=categories)
    made.export(str(to), "voc_segmentation", save_media=True, **how)
    if colours:
        for item in Dataset.import_from(str(to), "voc_segmentation"):
            scene.save(to.with_name(f"voc_{item.id}.png"), draw(item.annotations))


left, top, right, bottom = scene.BOX
polygons = [
    kinds.Polygon(scene.flat(ring), label=scene.IDS[name], z_order=layer, group=group, id=group)
    for name, ring, layer, group in (
        ("road", scene.ROAD, 0, 1),
        ("tree", scene.STAR, 1, 2),
        ("house", scene.PARTS[0], 1, 3),
        ("house", scene.PARTS[1], 1, 3),
    )
]
mask = kinds.Mask(scene.bitmap_in_photo(), label=scene.IDS["tree"], z_order=2, group=4, id=4)
box = kinds.Bbox(left, top, right - left, bottom - top, label=scene.IDS["house"], z_order=0)
write(
    "coco_instances",
    "annotations/instances_train.json",
    scene.HERE / "coco.json",
    [*polygons, mask],
)
write("cvat", "train.xml", scene.HERE / "cvat.xml", [*polygons, mask, box])
# datumaro knows no ellipse in CVAT's files.
turned = [
    kinds.RotatedBbox(13.5, 9, 14, 7, 30, label=scene.IDS["tree"], z_order=0),
    kinds.RotatedBbox(28, 20, 16, 6, 300, label=scene.IDS["house"], z_order=1),
]
write("cvat", "train.xml", scene.HERE / "cvat_turned.xml", turned)
road = rles_to_mask([scene.flat(scene.ROAD)], scene.WIDTH, scene.HEIGHT).astype(bool)
voc = {
    "one": ("train", [kinds.Mask(road, label=scene.IDS["road"]), mask]),
    "two": ("val", [mask]),
}
write_voc(scene.HERE / "voc", voc, COLOURS)
# Of classes without colours: masks in VOC's colours, or of ids.
write_voc(scene.HERE / "voc_without_colours", voc, None)
write_voc(scene.HERE / "voc_of_ids", voc, None, apply_colormap=False)
