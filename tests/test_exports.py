"""Files of the formats' own libraries are read as these draw them, and they have read ours.

tests/exports/ holds the files, the masks that the libraries drew, and the scripts that had them do
so. The libraries are too heavy to be installed for all tests; `-m long` does it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from exports import libraries, predicted, scene
from PIL import Image
from test_labelled_folders import config_of, masks_of

from data import catalog
from data.annotations import matlab, recognition, yolo
from data.annotations.drawing import draw
from data.annotations.regions import Annotations
from rc2l_jax.prediction.annotations import FORMATS

# File -> the mask that the library drew of it. Of these, masks and what pycocotools draws:
EXACT = {
    "coco.json": "coco.png",
    "label_studio/brush.json": "label_studio/brush.png",
    "label_studio/converted.json": "label_studio/converted.png",
    "labelme/6.3.1/bitmaps.json": "labelme/6.3.1/bitmaps.png",
    "supervisely/ds/ann/bitmaps.png.json": "supervisely/bitmaps.png",
    "supervisely/ds/ann/boxes.png.json": "supervisely/boxes.png",
}
# Shapes, which programs draw in more than one way (see `scene.inner`):
BUT_FOR_BORDERS = {
    "cvat.xml": "cvat.png",
    "cvat_turned.xml": "cvat_turned.png",  # boxes; datumaro reads no ellipse: test_annotations.py
    "label_studio/turned.json": "label_studio/turned.png",  # boxes; its SDK turns no ellipse
    "labelme/4.6.0/shapes.json": "labelme/4.6.0/shapes.png",
    "labelme/6.3.1/shapes.json": "labelme/6.3.1/shapes.png",
    "supervisely/ds/ann/shapes.png.json": "supervisely/shapes.png",
    "yolo/converted.txt": "yolo/converted.png",
    "yolo/predicted.txt": "yolo/predicted.png",
}
PHOTO = "voc/JPEGImages/one.jpg"  # of nothing, as all photos here


def read(name: str) -> Annotations:
    path = scene.HERE / name
    if path.suffix == ".txt":
        assert yolo.is_yolo(path.read_text())
        names = yolo.read_names((path.parent / "data.yaml").read_text())
        return yolo.read(path.read_text(), names)
    return recognition.read(path.read_bytes(), xml=path.suffix == ".xml")


def drawn(name: str) -> np.ndarray:
    (photo,) = read(name).photos
    return draw(photo, scene.SIZE, scene.IDS, 0)


def mask(name: str) -> np.ndarray:
    return np.asarray(Image.open(scene.HERE / name))


@pytest.mark.parametrize("name", EXACT)
def test_masks_and_what_pycocotools_draws_are_the_same(name):
    np.testing.assert_array_equal(drawn(name), mask(EXACT[name]))


@pytest.mark.parametrize("name", BUT_FOR_BORDERS)
def test_shapes_are_the_same_but_for_their_borders(name):
    expected = mask(BUT_FOR_BORDERS[name])
    inner = scene.inner(expected)
    assert set(expected[inner]) >= {0, 2}  # each border is two pixels wide
    np.testing.assert_array_equal(drawn(name)[inner], expected[inner])
    assert not read(name).photos[0].not_drawn()


def test_all_that_label_studio_draws_with():
    """Its SDK draws none of these: what is expected is drawn with numpy."""
    expected = np.zeros(scene.SIZE, np.uint8)
    expected[3:9, 2:12] = scene.IDS["road"]
    rows, columns = np.indices(scene.SIZE) + 0.5
    expected[((columns - 28) / 8) ** 2 + ((rows - 9) / 4.5) ** 2 <= 1] = scene.IDS["house"]
    expected[scene.bitmap_in_photo()] = scene.IDS["tree"]
    got = drawn("label_studio/tags.json")
    inner = scene.inner(expected)
    np.testing.assert_array_equal(got[inner], expected[inner])
    for name in ("road", "tree"):
        np.testing.assert_array_equal(got == scene.IDS[name], expected == scene.IDS[name])
    assert read("label_studio/tags.json").photos[0].not_drawn() == {"keypoint": 1}


@pytest.mark.parametrize("name", ["double", "uint8", "logical", "sbd"])
def test_label_maps_of_octave(name):
    """Octave stands for MATLAB, whose format it writes."""
    expected = np.zeros((30, 40), np.uint8)
    expected[3:9, 2:12], expected[6:20, 8:30], expected[29] = 1, 3, 255
    if name == "logical":
        expected = (expected == 1).astype(np.uint8)
    content = (scene.HERE / "matlab" / f"{name}.mat").read_bytes()
    np.testing.assert_array_equal(matlab.read_ids(content, name), expected)


# Layout -> ({file or folder: where it comes from}, {photo: the mask that the library drew}).
SHAPES = ("bitmaps", "boxes", "shapes")
VOC = ("voc", "voc_of_ids", "voc_without_colours")
FOLDERS = {
    "CVAT": (
        {"images/train/photo.jpg": PHOTO, "labels/train/annotations.xml": "cvat.xml"},
        {"photo": "cvat.png"},
    ),
    "COCO": (
        {"train/photo.jpg": PHOTO, "train/_annotations.coco.json": "coco.json"},
        {"photo": "coco.png"},
    ),
    "YOLO": (
        {
            "images/train/converted.jpg": PHOTO,
            "images/train/predicted.jpg": PHOTO,
            "labels/train/converted.txt": "yolo/converted.txt",
            "labels/train/predicted.txt": "yolo/predicted.txt",
            "data.yaml": "yolo/data.yaml",
        },
        {name: f"yolo/{name}.png" for name in ("converted", "predicted")},
    ),
    "Supervisely": (
        {"meta.json": "supervisely/meta.json", "ds": "supervisely/ds"},
        {name: f"supervisely/{name}.png" for name in SHAPES},
    ),
    **{
        f"VOC, {folder}": ({"": folder}, {name: f"voc_{name}.png" for name in ("one", "two")})
        for folder in VOC
    },
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_a_librarys_files_is_a_data_set_of_what_it_drew(tmp_path, name):
    sources, expected = FOLDERS[name]
    for to, source in sources.items():
        path = tmp_path / "data" / to
        path.parent.mkdir(parents=True, exist_ok=True)
        if (scene.HERE / source).is_dir():
            shutil.copytree(scene.HERE / source, path)
        else:
            shutil.copy(scene.HERE / source, path)
    config = config_of(tmp_path / "data", tmp_path / "prepared", unlabeled_split="")
    dataset = catalog.open_dataset(config.data)
    assert dataset.class_names == scene.CLASSES
    found = {example.partition("/")[2]: mask for example, mask in masks_of(dataset).items()}
    assert found.keys() == expected.keys()
    for photo, drawn_by_library in expected.items():
        want = mask(drawn_by_library)
        where = scene.inner(want) if drawn_by_library in BUT_FOR_BORDERS.values() else ...
        np.testing.assert_array_equal(found[photo][where], want[where], err_msg=photo)
    if name.startswith("VOC"):
        assert dataset.ids.splits == {"train": ["one"], "val": ["two"]}


def test_classes_of_a_project_come_from_its_list():
    for name in ("coco.json", "cvat.xml", "supervisely/meta.json"):
        assert read(name).class_names == scene.CLASSES


def test_each_mask_that_a_library_drew_is_compared():
    ours = {predicted.PREDICTED, scene.HERE / "supervisely" / "ds" / "img"}
    ours |= {scene.HERE / folder for folder in VOC}
    found = [path for path in scene.HERE.rglob("*.png") if not ours & set(path.parents)]
    names = {path.relative_to(scene.HERE).as_posix() for path in found}
    in_folders = {name for _, expected in FOLDERS.values() for name in expected.values()}
    assert names == {*EXACT.values(), *BUT_FOR_BORDERS.values(), *in_folders}


def contents(folder: Path) -> dict[str, bytes]:
    root = folder / "out" / "annotations"
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_what_predict_writes_is_what_the_libraries_have_opened(tmp_path):
    """If it fails for good reason: tests/exports/predicted.py and read_back.py say what to do."""
    predicted.write(tmp_path)
    assert contents(tmp_path) == contents(predicted.PREDICTED)
    verified = json.loads((predicted.PREDICTED / "verified.json").read_text())
    assert verified.keys() == FORMATS.keys()
    for kind, record in verified.items():
        folder = predicted.PREDICTED / "out" / "annotations" / kind
        assert record["sha256"] == scene.digest(folder), f"read_back.py {kind} was not run"
        assert record["differing"]


@pytest.mark.long
@pytest.mark.parametrize("kind", FORMATS)
def test_the_libraries_open_what_predict_writes(tmp_path, kind):
    """Installs each library with pip, and renews its record in predicted/verified.json."""
    assert "draws other pixels than the mask, all at borders" in libraries.read_back(kind, tmp_path)
    record = json.loads((predicted.PREDICTED / "verified.json").read_text())[kind]
    assert record["sha256"] == scene.digest(predicted.PREDICTED / "out" / "annotations" / kind)
    name, _, version = next(x for x in libraries.LIBRARIES[kind] if "==" in x).partition("==")
    assert f"{name} {version}" in record["differing"]
