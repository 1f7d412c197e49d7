"""Opens annotations of --mode=predict with the format's own library, and compares the masks.

    python tests/exports/read_back.py KIND [OUTPUT]

OUTPUT is a folder of results beside the folder of their photos; by default predicted/out, for which
verified.json keeps what was opened, with what. Each library has its own requirements, so each KIND
wants an environment of its own. This makes them, with what libraries.py lists, and runs all KINDs:

    python -m pytest -m long tests/test_exports.py
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scene
from PIL import Image

Masks = dict[str, np.ndarray]  # name of the photo's results -> ids [H, W]


def read_labelme(folder: Path, masks: Masks) -> Masks:
    """Reads each file with its photo, whose size Labelme checks."""
    import labelme
    from labelme import utils

    found = {}
    for name, ids in masks.items():
        opened = labelme.LabelFile(str(folder / f"{name}.json"))
        found[name], _ = utils.shapes_to_label(ids.shape, opened.shapes, _ids(folder))
    return found


def read_labelstudio(folder: Path, masks: Masks) -> Masks:
    """Checks the tasks as the server does, submits the predictions, and exports them to COCO."""
    # The server's setting for local storage: the folder above that of the photos.
    os.environ["LOCAL_FILES_DOCUMENT_ROOT"] = str(folder.parents[2])
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.label_interface import LabelInterface

    config = (folder / "interface.xml").read_text(encoding="utf-8")
    interface = LabelInterface(config)
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    for number, task in enumerate(tasks, 1):
        (prediction,) = task["predictions"]
        if errors := interface.validate_prediction(prediction, return_errors=True):
            raise SystemExit(f"Label Studio refuses task {number}: {errors}")
        task |= {"id": number, "annotations": task.pop("predictions")}
    with tempfile.TemporaryDirectory() as scratch:
        submitted = Path(scratch, "tasks.json")
        submitted.write_text(json.dumps(tasks))
        converter = Converter(config, project_dir=None, download_resources=False)
        converter.convert_to_coco(str(submitted), scratch, is_dir=False)
        return _read_coco(Path(scratch, "result.json"), masks, _ids(folder))


def read_yolo(folder: Path, masks: Masks) -> Masks:
    """Loads the folder as a data set to train on, with the photos where data.yaml wants them."""
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset, polygons2masks

    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "yolo")
        shutil.copytree(folder, root)
        _photos(root / "images", masks)
        # As a user gives it: the path of data.yaml, whose "path: ." is the folder it is in.
        data = check_det_dataset(str(root / "data.yaml"), autodownload=False)
        assert _ids(folder).items() <= {name: i for i, name in data["names"].items()}.items()
        loaded = YOLODataset(data["train"], data=data, task="segment", augment=False)
        for label in loaded.get_labels():
            name = Path(label["im_file"]).relative_to(root / "images").with_suffix("").as_posix()
            height, width = label["shape"]
            corners = [segment * (width, height) for segment in label["segments"]]
            found[name] = np.zeros((height, width), np.uint8)
            insides = polygons2masks((height, width), corners, 1)
            for (index,), inside in zip(label["cls"], insides):
                found[name][inside.astype(bool)] = index
    return found


def read_coco(folder: Path, masks: Masks) -> Masks:
    """Draws the annotations in their order."""
    return _read_coco(folder / "annotations.json", masks, _ids(folder))


def _read_coco(path: Path, masks: Masks, ids: dict[str, int]) -> Masks:
    from pycocotools.coco import COCO

    coco = COCO(str(path))
    found = {}
    for image in coco.loadImgs(coco.getImgIds()):
        stem = f"/{image['file_name']}".rpartition(".")[0]
        name = next(name for name in masks if stem.endswith(f"/{name}"))
        found[name] = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds([image["id"]])):
            (category,) = coco.loadCats(annotation["category_id"])
            inside = coco.annToMask(annotation).astype(bool)
            found[name][inside] = ids[category["name"]]
    return found


def read_cvat(folder: Path, masks: Masks) -> Masks:
    """Draws the layers from the lowest to the highest."""
    from datumaro.components.annotation import AnnotationType
    from datumaro.components.dataset import Dataset
    from datumaro.util.mask_tools import rles_to_mask

    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(folder / "annotations.xml", scratch)
        _photos(Path(scratch, "images"), masks)
        read = Dataset.import_from(scratch, "cvat")
        listed = [label.name for label in read.categories()[AnnotationType.label]]
        assert _ids(folder).items() <= {name: i for i, name in enumerate(listed)}.items()
        found = {}
        for item in read:
            height, width = masks[item.id].shape
            found[item.id] = np.zeros((height, width), np.uint8)
            for shape in sorted(item.annotations, key=lambda shape: shape.z_order):
                inside = rles_to_mask([shape.points], width, height)
                found[item.id][inside.astype(bool)] = shape.label
    return found


READERS: dict[str, tuple[Callable[[Path, Masks], Masks], str]] = {
    "coco": (read_coco, "pycocotools"),
    "cvat": (read_cvat, "datumaro"),
    "labelme": (read_labelme, "labelme"),
    "labelstudio": (read_labelstudio, "label-studio-sdk"),
    "yolo": (read_yolo, "ultralytics"),
}


def _ids(folder: Path) -> dict[str, int]:
    """The classes that were predicted: name -> id."""
    lists = sorted((folder.parents[1] / "segments").rglob("*.json"))
    found = [x for path in lists for x in json.loads(path.read_text(encoding="utf-8"))["segments"]]
    return {segment["class"]: segment["id"] for segment in found}


def _photos(folder: Path, masks: Masks) -> None:
    """Puts photos of nothing where a library looks for them."""
    for name, ids in masks.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", ids.shape[::-1]).save(path)


def _masks(output: Path) -> Masks:
    root = output / "masks"
    return {
        path.relative_to(root).with_suffix("").as_posix(): np.asarray(Image.open(path))
        for path in sorted(root.rglob("*.png"))
    }


def main(kind: str, output: Path) -> None:
    """Compares all masks; an error if pixels differ that are not at a region's border."""
    read, library = READERS[kind]
    folder, masks = output / "annotations" / kind, _masks(output)
    found = read(folder, masks)
    assert found.keys() == masks.keys(), (found.keys(), masks.keys())
    differing = {name: int((found[name] != ids).sum()) for name, ids in masks.items()}
    inner = {name: ((found[name] != ids) & scene.inner(ids)).any() for name, ids in masks.items()}
    version = f"{library} {importlib.metadata.version(library)}"
    print(f"{kind}: {version} draws other pixels than the mask, all at borders: {differing}")
    if any(inner.values()):
        raise SystemExit(f"{kind}: pixels differ that are not at a border: {inner}")
    record = scene.HERE / "predicted" / "verified.json"
    if output == record.with_name("out"):
        verified = json.loads(record.read_text()) if record.exists() else {}
        verified.setdefault(kind, {})
        if verified[kind].get("sha256") != scene.digest(folder):
            verified[kind] = {"sha256": scene.digest(folder), "differing": {}}
        verified[kind]["differing"][version] = differing
        record.write_text(json.dumps(verified, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    _, kind, *rest = sys.argv
    main(kind, Path(*rest).absolute() if rest else scene.HERE / "predicted" / "out")
