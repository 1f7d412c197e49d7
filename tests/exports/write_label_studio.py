"""Has Label Studio's SDK write label_studio/NAME.json, and draw NAME.png of what it can draw.

pip install label-studio-sdk==2.1.2 pycocotools==2.0.11
python tests/exports/write_label_studio.py
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import scene
from label_studio_sdk.converter import Converter, brush
from label_studio_sdk.converter.imports.coco import convert_coco_to_ls
from label_studio_sdk.converter.utils import convert_annotation_to_yolo_obb
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

OUT = scene.HERE / "label_studio"
IMAGE = "/data/upload/1/0123abcd-photo.png"
CONFIG = """<View><Image name="image" value="$image"/>{tags}</View>"""
TAG = '<{kind} name="{kind}" toName="image">{labels}</{kind}>'
LABELS = "".join(f'<Label value="{name}"/>' for name in scene.CLASSES)


def write(name: str, tasks: list[dict]) -> None:
    """Writes tasks as the export "JSON" has them."""
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(tasks, indent=1) + "\n")


def converted() -> None:
    """Polygons that come from COCO, which the SDK converts back and pycocotools draws."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "coco.json"), Path(folder, "tasks.json")
        source.write_text(json.dumps(scene.coco()))
        convert_coco_to_ls(str(source), str(made))
        tasks = json.loads(made.read_text())
        for task in tasks:  # the server numbers them
            task["id"] = 1
        write("converted", tasks)
        config = Path(folder, "tasks.label_config.xml").read_text()
        exported = Path(folder, "exported")
        Converter(config, project_dir=None, download_resources=False).convert_to_coco(
            str(OUT / "converted.json"), str(exported), is_dir=False
        )
        coco = COCO(str(exported / "result.json"))
    ids = np.zeros(scene.SIZE, np.uint8)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        if annotation["segmentation"]:  # the others are boxes around these
            (category,) = coco.loadCats(annotation["category_id"])
            ids[coco.annToMask(annotation).astype(bool)] = scene.IDS[category["name"]]
    scene.save(OUT / "converted.png", ids)


def painted() -> None:
    """A brush, packed and unpacked by the SDK."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "bitmap.png")
        Image.fromarray(scene.bitmap_in_photo()).save(picture)
        annotation = brush.image2annotation(str(picture), "tree", "brush", "image")
    write("brush", [{"id": 1, "data": {"image": IMAGE}, "annotations": [annotation]}])
    alpha = brush.decode_rle(annotation["result"][0]["value"]["rle"]).reshape(*scene.SIZE, 4)[
        ..., 3
    ]
    scene.save(OUT / "brush.png", np.where(alpha, scene.IDS["tree"], 0))


def drawn() -> None:
    """What the SDK's labelling interface makes of each of its tags; it draws none of them."""
    kinds = ("RectangleLabels", "EllipseLabels", "BitmaskLabels", "KeyPointLabels")
    tags = "".join(TAG.format(kind=kind, labels=LABELS) for kind in kinds)
    interface = LabelInterface(CONFIG.format(tags=tags))
    rgba = np.zeros((*scene.SIZE, 4), np.uint8)
    rgba[..., 3] = 255 * scene.bitmap_in_photo()
    content = io.BytesIO()
    Image.fromarray(rgba).save(content, "PNG")
    address = "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
    box = {"x": 5, "y": 10, "width": 25, "height": 20, "rotation": 0}
    ellipse = {"x": 70, "y": 30, "radiusX": 20, "radiusY": 15, "rotation": 0}
    made = [
        interface.get_control("RectangleLabels").label("road", **box),
        interface.get_control("EllipseLabels").label("house", **ellipse),
        interface.get_control("BitmaskLabels").label("tree", imageDataURL=address),
        interface.get_control("KeyPointLabels").label("tree", x=50, y=50),
    ]
    write_regions("tags", made)


def turned() -> None:
    """Turned boxes, whose corners the SDK's export to YOLO-OBB computes. It knows no ellipses."""
    control = LabelInterface(
        CONFIG.format(tags=TAG.format(kind="RectangleLabels", labels=LABELS))
    ).get_control("RectangleLabels")
    results = write_regions(
        "turned",
        [
            control.label("tree", x=30, y=10, width=40, height=25, rotation=30),
            control.label("house", x=60, y=90, width=30, height=25, rotation=300),
        ],
    )
    ids = np.zeros(scene.SIZE, np.uint8)
    for result in results:
        value = result["value"]
        corners = convert_annotation_to_yolo_obb(result | value, normalize=False)
        packed = run_lengths.frPyObjects([np.ravel(corners).tolist()], *scene.SIZE)
        ids[run_lengths.decode(packed)[..., 0].astype(bool)] = scene.IDS[
            value["rectanglelabels"][0]
        ]
    scene.save(OUT / "turned.png", ids)


def write_regions(name: str, regions: list) -> list[dict]:
    """Writes what the labelling interface made, with the photo's size, as the server adds it."""
    size = {"original_width": scene.WIDTH, "original_height": scene.HEIGHT, "image_rotation": 0}
    results = [region._dict() | size for region in regions]
    write(name, [{"id": 1, "data": {"image": IMAGE}, "annotations": [{"result": results}]}])
    return results


converted()
painted()
drawn()
turned()
