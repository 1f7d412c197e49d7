"""rc2l_jax/prediction/annotations/: what labelling tools read is the mask that was predicted."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from shapely import LineString
from test_predict import folder_of, no_network, stems, tiny_world  # noqa: F401 (two fixtures)
from test_regions import MASKS, inland, mask, specks

from rc2l_jax.prediction import predict
from rc2l_jax.prediction.annotations import FORMATS, Annotator
from rc2l_jax.prediction.annotations.outlines import keyhole
from rc2l_jax.prediction.files import Prediction, write_prediction
from rc2l_jax.prediction.network import Network
from rc2l_jax.prediction.photos import Photo
from rc2l_jax.prediction.predict import PredictError, predict_folder
from rc2l_jax.prediction.regions import find_regions, tolerance

CLASSES = ("background", "road", 'a "b" & <c>', "zebra", "tree: 3")
Polygons = list[tuple[int, np.ndarray]]  # class id, corners in pixels


def draw(polygons: Polygons, size: tuple[int, int]) -> np.ndarray:
    """Draws polygons one over the other with Pillow, on background."""
    picture = Image.new("L", size[::-1], 0)
    for index, corners in polygons:
        # Pillow's coordinates are those of pixels' centres.
        ImageDraw.Draw(picture).polygon([tuple(xy) for xy in corners - 0.5], fill=index)
    return np.asarray(picture)


# What each tool would show, read without the code that wrote it.


def read_coco(folder: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(folder / "coco" / "annotations.json")
    assert {x["id"]: x["name"] for x in coco.dataset["categories"]} == dict(enumerate(CLASSES))
    (image,) = [x for x in coco.dataset["images"] if x["file_name"] == f"{name}.jpg"]
    assert (image["height"], image["width"]) == size
    result = np.zeros(size, np.uint8)
    for annotation in coco.loadAnns(coco.getAnnIds([image["id"]])):
        inside = coco.annToMask(annotation).astype(bool)
        assert annotation["iscrowd"] == 0 and 0 < annotation["score"] <= 1
        if inside.sum() > 200:
            assert annotation["area"] == pytest.approx(inside.sum(), rel=0.2)
        result[inside] = annotation["category_id"]
    return result


def read_labelme(folder: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    path = folder / "labelme" / f"{name}.json"
    content = json.loads(path.read_text())
    assert content["version"].startswith("5.") and content["imageData"] is None
    assert (content["imageHeight"], content["imageWidth"]) == size
    assert (path.parent / content["imagePath"]).resolve() == photo_of(folder, name).resolve()
    for shape in content["shapes"]:
        assert shape["shape_type"] == "polygon" and shape["flags"] == {}
        assert re.fullmatch(r"score 0\.\d+", shape["description"])
    shapes = [(CLASSES.index(x["label"]), np.array(x["points"])) for x in content["shapes"]]
    return draw(shapes, size)


def read_yolo(folder: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    described = (folder / "yolo" / "data.yaml").read_text().partition("names:\n")
    names = [line.partition(": ")[2] for line in described[2].splitlines()]
    assert tuple(map(json.loads, names)) == CLASSES
    polygons = []
    for line in (folder / "yolo" / "labels" / f"{name}.txt").read_text().splitlines():
        index, *shares = line.split()
        corners = np.array(shares, float).reshape(-1, 2)
        assert corners.min() >= 0 and corners.max() <= 1 and index != "0"
        polygons.append((int(index), corners * size[::-1]))
    return draw(polygons, size)


def read_cvat(folder: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    root = ElementTree.parse(folder / "cvat" / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert tuple(x.text for x in root.findall("meta/task/labels/label/name")) == CLASSES
    labels = json.loads((folder / "cvat" / "labels.json").read_text())
    assert tuple(label["name"] for label in labels) == CLASSES
    images = root.findall("image")
    assert [x.get("id") for x in images] == [str(i) for i in range(len(images))]
    (image,) = [x for x in images if x.get("name") == f"{name}.jpg"]
    assert (int(image.get("height")), int(image.get("width"))) == size
    polygons = []
    for polygon in sorted(image, key=lambda x: int(x.get("z_order"))):
        corners = [[float(x) for x in xy.split(",")] for xy in polygon.get("points").split(";")]
        polygons.append((CLASSES.index(polygon.get("label")), np.array(corners)))
    return draw(polygons, size)


def read_labelstudio(folder: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    view = ElementTree.parse(folder / "labelstudio" / "interface.xml").getroot()
    assert tuple(x.get("value") for x in view.iter("Label")) == CLASSES
    tasks = json.loads((folder / "labelstudio" / "tasks.json").read_text())
    served = [parse_qs(urlsplit(x["data"]["image"]).query)["d"] for x in tasks]
    (prediction,) = tasks[served.index([f"photos/{name}.jpg"])]["predictions"]
    assert prediction["model_version"] == "net"
    polygons = []
    for result in prediction["result"]:
        assert (result["original_height"], result["original_width"]) == size
        assert result["type"] == "polygonlabels" and 0 < result["score"] <= 1
        assert result["from_name"] == view.find("PolygonLabels").get("name")
        assert result["to_name"] == view.find("Image").get("name")
        (label,) = result["value"]["polygonlabels"]
        corners = np.array(result["value"]["points"]) / 100 * size[::-1]
        polygons.append((CLASSES.index(label), corners))
    return draw(polygons, size)


READERS = {
    "coco": read_coco,
    "labelme": read_labelme,
    "yolo": read_yolo,
    "cvat": read_cvat,
    "labelstudio": read_labelstudio,
}
assert READERS.keys() == FORMATS.keys()
kind = pytest.mark.parametrize("kind", READERS)


def photo_of(folder: Path, name: str) -> Path:
    return folder.parents[1] / "photos" / f"{name}.jpg"


def annotate(output: Path, kind: str, name: str, ids: np.ndarray) -> Annotator:
    """Writes the results of a photo."""
    annotator = Annotator(output, kind, CLASSES, "net")
    path = output.parent / "photos" / f"{name}.jpg"
    photo = Photo(path, None, ids.shape, 1, name, f"{name}.jpg")
    confidence = np.random.default_rng(0).uniform(0.5, 0.9, ids.shape).astype(np.float16)
    image = np.zeros((*ids.shape, 3), np.uint8)
    write_prediction(
        output,
        name,
        image,
        Prediction(ids, confidence, None),
        CLASSES,
        {"image": str(path), "model": "net"},
        lambda prediction: annotator.write(photo, name, prediction),
    )
    return annotator


@kind
@mask
def test_a_tool_shows_the_mask_within_the_tolerance(tmp_path, kind, name):
    ids, output = MASKS[name], tmp_path / "out"
    annotate(output, kind, "sub/before", MASKS["island"])
    annotate(output, kind, "y & 1", ids).finish()
    shown = READERS[kind](output / "annotations", "y & 1", ids.shape)
    # Pillow, like many tools, also fills the pixels that an outline only touches: one pixel more.
    far = inland(ids, tolerance(ids.shape) + 1) & ~specks(ids)
    assert (shown == ids)[far].all()
    other = READERS[kind](output / "annotations", "sub/before", MASKS["island"].shape)
    far = inland(MASKS["island"], 2)
    assert (other == MASKS["island"])[far].all() and set(other[far]) == {0, 1, 2, 3}
    assert not list(output.rglob("*.partial"))


@kind
def test_two_tools_get_two_folders(tmp_path, kind):
    for other in READERS:
        annotate(tmp_path / "out", other, "a", MASKS["halves"]).finish()
    READERS[kind](tmp_path / "out" / "annotations", "a", MASKS["halves"].shape)


def test_nobody_draws_background(tmp_path):
    ids = np.zeros((60, 60), np.uint8)
    ids[10:20, 10:20] = 3
    for kind in READERS:
        annotate(tmp_path, kind, "a", ids).finish()
    folder = tmp_path / "annotations"
    (annotation,) = json.loads((folder / "coco" / "annotations.json").read_text())["annotations"]
    assert annotation["segmentation"] == [[10, 10, 10, 20, 20, 20, 20, 10]] or (
        sorted(annotation["segmentation"][0]) == [10, 10, 10, 10, 20, 20, 20, 20]
    )
    assert annotation["bbox"] == [10, 10, 10, 10] and annotation["area"] == 100
    assert [annotation[key] for key in ("id", "image_id", "category_id")] == [1, 1, 3]
    assert len(json.loads((folder / "labelme" / "a.json").read_text())["shapes"]) == 1
    assert (folder / "yolo" / "labels" / "a.txt").read_text().startswith("3 0.1")
    assert len(ElementTree.parse(folder / "cvat" / "annotations.xml").findall("image/*")) == 1
    (task,) = json.loads((folder / "labelstudio" / "tasks.json").read_text())
    assert len(task["predictions"][0]["result"]) == 1


def test_background_is_drawn_in_a_hole_where_it_would_be_covered(tmp_path):
    annotate(tmp_path, "labelme", "a", MASKS["island"])
    content = json.loads((tmp_path / "annotations" / "labelme" / "a.json").read_text())
    labels = [CLASSES.index(shape["label"]) for shape in content["shapes"]]
    assert labels == [1, 0, 2, 3, 1], "from the outside to the inside"


@mask
def test_cuts_to_holes_stay_in_the_region(name):
    for region in find_regions(MASKS[name]):
        ring = keyhole(region.outline)
        rounding = region.outline.buffer(1e-6)  # cuts end anywhere on a slanted edge
        assert rounding.covers(LineString([*ring, ring[0]]))
        (x, y), (x1, y1) = ring.T, np.roll(ring, -1, 0).T
        assert abs((x * y1 - x1 * y).sum()) / 2 == pytest.approx(region.outline.area)


# From the command's folder of photos to the files.


def files_of(output: Path) -> dict[str, bytes]:
    folder = output / "annotations"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def images_in(output: Path, kind: str) -> list[str]:
    """The photos that the annotations name."""
    folder = output / "annotations" / kind
    if kind == "coco":
        content = json.loads((folder / "annotations.json").read_text())
        return [image["file_name"] for image in content["images"]]
    if kind == "cvat":
        images = ElementTree.parse(folder / "annotations.xml").findall("image")
        return [image.get("name") for image in images]
    if kind == "labelstudio":
        tasks = json.loads((folder / "tasks.json").read_text())
        return [task["data"]["image"].rpartition("d=in/")[2] for task in tasks]
    suffix = {"labelme": ".json", "yolo": ".txt"}[kind]
    return [f"{path.stem}.png" for path in sorted(folder.rglob(f"*{suffix}"))]


@pytest.fixture
def network(no_network) -> Network:  # noqa: F811
    """`predict_folder` opens it; it predicts wood (class 1) with a confidence of 0.5."""
    return no_network


@kind
def test_annotations_come_with_the_prediction(network, tmp_path, kind):
    source, out = folder_of(tmp_path / "in", "bac"), tmp_path / "out"
    assert predict_folder(str(source), out, annotations=kind) == 3
    assert images_in(out, kind) == ["a.png", "b.png", "c.png"]
    assert stems(out) == ["a", "b", "c"]
    assert not list(out.rglob("*.partial"))


@kind
def test_former_results_are_annotated_without_the_network(network, tmp_path, kind, monkeypatch):
    source, out = folder_of(tmp_path / "in", "ab"), tmp_path / "out"
    predict_folder(str(source), out)
    at_once = tmp_path / "at_once"
    predict_folder(str(source), at_once, annotations=kind)

    def fail(*_: Any) -> None:
        raise AssertionError("the network ran")

    with monkeypatch.context() as patch:
        patch.setattr(predict, "write_prediction", fail)
        assert predict_folder(str(source), out, annotations=kind, resume=True) == 0
    assert files_of(out) == files_of(at_once), "as the class is one region, the scores are the same"
    shutil.copy(source / "a.png", source / "0.png")
    assert predict_folder(str(source), out, annotations=kind, resume=True) == 1
    assert images_in(out, kind) == ["0.png", "a.png", "b.png"]


@kind
def test_what_was_stopped_goes_on(network, tmp_path, kind, monkeypatch):
    source, out = folder_of(tmp_path / "in", "abcd"), tmp_path / "out"
    describe = FORMATS[kind].describe

    def full_at_c(scene: Any, path: Path) -> str:
        if scene.file_name >= "c":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return describe(scene, path)

    with monkeypatch.context() as patch:
        patch.setitem(FORMATS, kind, FORMATS[kind]._replace(describe=full_at_c))
        patch.setattr(predict, "WAITING_BYTES", 1)
        with pytest.raises(PredictError, match=r"No space left on device.*--resume goes on"):
            predict_folder(str(source), out, annotations=kind)
    assert stems(out) == ["a", "b"], "an image is done when its annotations are"
    assert predict_folder(str(source), out, annotations=kind, resume=True) == 2
    assert images_in(out, kind) == ["a.png", "b.png", "c.png", "d.png"]


@kind
def test_overwrite_replaces_annotations(network, tmp_path, kind):
    source, out = folder_of(tmp_path / "in", "ab"), tmp_path / "out"
    predict_folder(str(source), out, annotations=kind)
    fresh = files_of(out)
    parts = [out / "annotations" / FORMATS[kind].path.format(name) for name in "ab"]
    parts[0].write_text("{}")
    predict_folder(str(source), out, annotations=kind, overwrite=True)
    assert files_of(out) == fresh
    predict_folder(str(source / "a.png"), out, overwrite=True)
    joint = FORMATS[kind].joint
    assert [part.exists() for part in parts] == [not joint, True]
    assert not joint or not (out / "annotations" / joint).exists(), "it has the former mask of a"
    predict_folder(str(source), out, annotations=kind, resume=True)
    assert files_of(out) == fresh


@pytest.mark.parametrize("kind", ["coco", "cvat", "labelstudio"])
def test_the_file_for_all_photos_is_of_one_network(network, tmp_path, kind, monkeypatch):
    source, out = folder_of(tmp_path / "in", "ab"), tmp_path / "out"
    predict_folder(str(source), out, annotations=kind)
    other = dataclasses.replace(network, title="another", class_names=("sea", "ice"))
    monkeypatch.setattr(predict, "open_network", lambda *_, **__: other)
    predict_folder(str(source / "a.png"), out, annotations=kind, overwrite=True)
    assert images_in(out, kind) == ["a.png"], "b is by the first network, with its classes"


def test_photos_without_annotations_leave_those_of_others(network, tmp_path):
    source, out = folder_of(tmp_path / "in", "a"), tmp_path / "out"
    predict_folder(str(source), out, annotations="coco")
    shutil.copy(source / "a.png", source / "b.png")
    predict_folder(str(source), out, resume=True)
    assert images_in(out, "coco") == ["a.png"]


@pytest.mark.parametrize("kind", ["labelme", "yolo"])
def test_corrections_stay(network, tmp_path, kind):
    source, out = folder_of(tmp_path / "in", "ab"), tmp_path / "out"
    predict_folder(str(source), out, annotations=kind)
    path = out / "annotations" / FORMATS[kind].path.format("a")
    path.write_text("corrected")
    predict_folder(str(source), out, annotations=kind, resume=True)
    predict_folder(str(source), out, overwrite=True)
    assert path.read_text() == "corrected"


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def widen(path: Path) -> None:
    Image.fromarray(np.zeros((30, 41), np.uint8)).save(path)


def unknown_class(path: Path) -> None:
    Image.fromarray(np.full((30, 40), 2, np.uint8)).save(path)


@pytest.mark.parametrize("spoil", [Path.unlink, damage, widen, unknown_class])
def test_masks_that_cannot_be_used_are_named(network, tmp_path, spoil: Callable[[Path], None]):
    source, out = folder_of(tmp_path / "in", "ab"), tmp_path / "out"
    predict_folder(str(source), out)
    spoil(out / "masks" / "b.png")
    with pytest.raises(
        PredictError, match=r"masks/b\.png .*: delete .*segments/b\.json, and --res"
    ):
        predict_folder(str(source), out, annotations="coco", resume=True)
    (out / "segments" / "b.json").unlink()
    assert predict_folder(str(source), out, annotations="coco", resume=True) == 1
    assert images_in(out, "coco") == ["a.png", "b.png"]


@kind
def test_frames_and_unusual_names(network, tmp_path, kind):
    source, out = folder_of(tmp_path / "in", ["deep", "a b"]), tmp_path / "out"
    (source / "sub").mkdir()
    (source / "deep.png").rename(source / "sub" / "ü & <1>.png")
    frames = [Image.fromarray(np.full((30, 40, 3), 9 * i, np.uint8)) for i in range(2)]
    frames[0].save(source / "clip.gif", save_all=True, append_images=frames[1:])
    assert predict_folder(str(source), out, annotations=kind) == 4
    if kind == "coco":
        expected = ["a b.png", "clip_000000.png", "clip_000001.png", "sub/ü & <1>.png"]
        assert images_in(out, kind) == expected
    if kind == "labelstudio":
        tasks = json.loads((out / "annotations" / kind / "tasks.json").read_text())
        served = [parse_qs(urlsplit(task["data"]["image"]).query)["d"] for task in tasks]
        assert served[-1] == ["in/sub/ü & <1>.png"] and served[1] == ["in/clip_000000.png"]
    if kind == "labelme":
        folder = out / "annotations" / kind
        deep = json.loads((folder / "sub" / "ü & <1>.json").read_text())
        assert (folder / "sub" / deep["imagePath"]).resolve() == source / "sub" / "ü & <1>.png"
        frame = json.loads((folder / "clip_000001.json").read_text())
        assert frame["imagePath"] == "clip_000001.png"


def test_a_name_that_is_not_text_stops_nothing(network, tmp_path):
    source = folder_of(tmp_path / "in", "a")
    (source / "a.png").rename(source / os.fsdecode(b"\xff.png"))
    for kind in READERS:
        assert predict_folder(str(source), tmp_path / kind, annotations=kind) == 1


def test_an_unknown_tool_is_said_before_anything_is_done(tmp_path):
    with pytest.raises(PredictError, match="--annotations=voc: choose one of coco, labelme, yolo"):
        predict_folder(str(tmp_path), tmp_path / "out", model="none", annotations="voc")
