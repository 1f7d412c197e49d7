"""docs/masks.md: its blocks of code make masks of the files that other tools save."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from data.masks import read_ids
from data.orientation import UPRIGHT, orientation_of_file

DOCUMENT = Path(__file__).parents[1] / "docs" / "masks.md"


def run_block(number: int, **replaced: str) -> None:
    """Executes one of the document's blocks in this folder, with other values of its constants."""
    code = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[number]
    for name, value in replaced.items():
        code, count = re.subn(rf"^{name} = [^#\n]*", f"{name} = {value} ", code, flags=re.MULTILINE)
        assert count == 1
    exec(compile(code, str(DOCUMENT), "exec"), {})


def ids_of(name: str, split: str = "train") -> list[list[int]]:
    """A mask as training reads it."""
    file = Path("labels") / split / name
    return read_ids(file.read_bytes(), str(file)).tolist()


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("classes.txt").write_text("road\ntree\n")
    return tmp_path


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_become_ids(here, mode, capsys):
    (here / "painted" / "deep").mkdir(parents=True)
    colours = np.array([[[128, 64, 128], [0, 128, 0], [0, 0, 255], [1, 2, 3]]], np.uint8)
    picture = Image.fromarray(colours)
    picture = picture.quantize(4) if mode == "P" else picture.convert(mode)
    picture.save(here / "painted" / "deep" / "a.png")
    run_block(0)
    assert ids_of("deep/a.png") == [[0, 1, 2, 255]]
    assert capsys.readouterr().out == "labels/train/deep/a.png: 25.0% void\n"


def test_black_and_white_become_ids(here):
    (here / "painted").mkdir()
    (colours,) = re.findall(r"Black and white is `(.*?)`", DOCUMENT.read_text())
    Image.fromarray(np.array([[0, 255, 254]], np.uint8)).save(here / "painted" / "a.png")
    run_block(0, COLOURS=colours)
    assert ids_of("a.png") == [[0, 1, 255]]


def square(low: float, high: float) -> list[list[float]]:
    return [[low, low], [high, low], [high, high], [low, high]]


def two_squares(background: int) -> list[list[int]]:
    """The expected mask: a road of 4 x 4 pixels, and a tree over its corner."""
    expected = np.full((5, 6), background)
    expected[:4, :4] = 0
    expected[2:4, 2:4] = 1
    return expected.tolist()


BACKGROUNDS = pytest.mark.parametrize(("name", "index"), [("", 255), ("road", 0)])


@BACKGROUNDS
def test_polygons_become_ids(here, name, index):
    (here / "polygons").mkdir()
    shapes = [
        {"label": "road", "shape_type": "polygon", "points": square(0.0, 3.0)},
        {"label": "tree", "shape_type": "polygon", "points": square(2.0, 3.0)},
    ]

    def write() -> None:
        drawn = {"imageWidth": 6, "imageHeight": 5, "shapes": shapes}
        (here / "polygons" / "a.json").write_text(json.dumps(drawn))

    write()
    run_block(1, BACKGROUND=repr(name))
    assert ids_of("a.png") == two_squares(index)
    run_block(1, BACKGROUND=repr(name), SPLIT="'val'")
    assert ids_of("a.png", "val") == two_squares(index)
    with pytest.raises(SystemExit, match=r"polygons/a\.json: background: not in classes\.txt"):
        run_block(1)

    shapes[0]["shape_type"] = "circle"
    write()
    with pytest.raises(SystemExit, match=r"polygons/a\.json: a circle, not a polygon"):
        run_block(1, BACKGROUND=repr(name))
    shapes[0]["label"] = "Road"
    write()
    with pytest.raises(SystemExit, match=r"polygons/a\.json: Road: not in classes\.txt"):
        run_block(1, BACKGROUND=repr(name))


@BACKGROUNDS
def test_polygons_of_coco_become_ids(here, name, index):
    def flat(low, high):
        return [x for point in square(low, high) for x in point]

    annotations = [
        {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [flat(0.0, 3.0)]},
        {"id": 2, "image_id": 7, "category_id": 1, "segmentation": [flat(2.0, 3.0)]},
    ]
    coco = {
        "images": [
            {"id": 7, "file_name": "deep/a.JPG", "width": 6, "height": 5},
            {"id": 8, "file_name": "b.jpg", "width": 2, "height": 1},
        ],
        "categories": [{"id": 1, "name": "tree"}, {"id": 3, "name": "road"}],
        "annotations": annotations,
    }
    (here / "annotations.json").write_text(json.dumps(coco))
    run_block(2, BACKGROUND=repr(name))
    assert ids_of("deep/a.png") == two_squares(index)
    assert ids_of("b.png") == [[index, index]]

    coco["categories"][0]["name"] = "bush"
    (here / "annotations.json").write_text(json.dumps(coco))
    with pytest.raises(SystemExit, match=r"annotations\.json: bush: not in classes\.txt"):
        run_block(2, BACKGROUND=repr(name))
    coco["categories"][0]["name"] = "tree"
    annotations[1]["segmentation"] = []
    (here / "annotations.json").write_text(json.dumps(coco))
    with pytest.raises(SystemExit, match=r"annotation 2: a box without a polygon"):
        run_block(2, BACKGROUND=repr(name))
    annotations[1]["segmentation"] = {"counts": [1, 2], "size": [5, 6]}
    (here / "annotations.json").write_text(json.dumps(coco))
    with pytest.raises(SystemExit, match=r"deep/a\.JPG: run lengths"):
        run_block(2, BACKGROUND=repr(name))


@pytest.mark.parametrize("name", ["/photos/a.png", "../images/train/a.png"])
def test_no_mask_of_coco_takes_a_photos_place(here, name):
    images = [{"id": 7, "file_name": name, "width": 6, "height": 5}]
    coco = {"images": images, "categories": [], "annotations": []}
    (here / "annotations.json").write_text(json.dumps(coco))
    with pytest.raises(SystemExit, match=r"a\.png: make it relative to images/train"):
        run_block(2, BACKGROUND="'road'")


@pytest.fixture
def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def test_turned_photos_get_upright_copies_and_stay(here, turned):
    for split in ("train", "val", "unlabeled"):
        folder = here / "images" / split
        folder.mkdir(parents=True)
        Image.new("RGB", (40, 20)).save(folder / "turned.JPG", exif=turned)
        Image.new("RGB", (40, 20)).save(folder / "upright.jpg")
    before = (here / "images" / "train" / "turned.JPG").read_bytes()
    run_block(3)
    copies = [path for path in sorted((here / "upright").rglob("*")) if path.is_file()]
    names = [path.relative_to(here / "upright").as_posix() for path in copies]
    assert names == ["train/turned.JPG", "val/turned.JPG"]
    for copy in copies:
        with Image.open(copy) as image:
            assert image.size == (20, 40)
            assert orientation_of_file(image, copy) == UPRIGHT
    assert (here / "images" / "train" / "turned.JPG").read_bytes() == before


def test_smaller_copies_are_a_data_set(here, turned):
    for kind in ("images", "labels"):
        (here / kind / "train").mkdir(parents=True)
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 31:], mask[0] = 1, 255
    photo = np.where(mask == 1, 250, 5).astype(np.uint8)[..., None].repeat(3, axis=2)
    Image.fromarray(photo).save(here / "images" / "train" / "a.png")
    Image.fromarray(mask).save(here / "labels" / "train" / "a.png")
    (here / "images" / "unlabeled").mkdir()
    Image.new("RGB", (60, 40)).save(here / "images" / "unlabeled" / "b.jpg", exif=turned)
    Image.new("L", (12, 8)).save(here / "images" / "unlabeled" / "small.png")
    deep = np.full((8, 12), 250 << 8, np.uint16)
    Image.fromarray(deep).save(here / "images" / "unlabeled" / "deep.png")
    run_block(4, SHORT_EDGE="20")
    with Image.open(here / "smaller" / "images" / "unlabeled" / "deep.jpg") as image:
        assert image.getextrema() == ((250, 250),) * 3

    def size(name: str) -> tuple[int, int]:
        with Image.open(here / "smaller" / "images" / name) as image:
            assert image.mode == "RGB" and orientation_of_file(image, name) == UPRIGHT
            return image.size

    assert size("train/a.jpg") == (30, 20)
    assert size("unlabeled/b.jpg") == (20, 30) and size("unlabeled/small.jpg") == (12, 8)
    ids = read_ids((here / "smaller" / "labels" / "train" / "a.png").read_bytes(), "a")
    assert ids.shape == (20, 30) and set(np.unique(ids)) <= {0, 1, 255}
    assert (ids[1:, :15] == 0).all() and (ids[1:, 16:] == 1).all()
    assert (here / "smaller" / "classes.txt").read_text() == "road\ntree\n"
    Image.new("L", (12, 8)).save(here / "images" / "unlabeled" / "small.jpg")
    with pytest.raises(SystemExit, match=r"small\.png: another photo is smaller/.*small\.jpg"):
        run_block(4, SHORT_EDGE="20")
