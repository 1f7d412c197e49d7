"""docs/masks.md: its blocks make masks of what painting and labelling tools save."""

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
    """Executes one of the document's blocks here, with other constants."""
    code = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[number]
    for name, value in replaced.items():
        code, count = re.subn(rf"^{name} = [^#\n]*", f"{name} = {value} ", code, flags=re.MULTILINE)
        assert count == 1
    exec(compile(code, str(DOCUMENT), "exec"), {})


def ids_of(name: str) -> list[list[int]]:
    """A mask as training reads it."""
    file = Path("labels") / "train" / name
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


@pytest.mark.parametrize("background", [255, 0])
def test_polygons_become_ids(here, background):
    (here / "polygons").mkdir()
    square = lambda low, high: [[low, low], [high, low], [high, high], [low, high]]  # noqa: E731
    shapes = [
        {"label": "road", "shape_type": "polygon", "points": square(0.0, 3.0)},
        {"label": "tree", "shape_type": "polygon", "points": square(2.0, 3.0)},
    ]
    drawn = {"imageWidth": 6, "imageHeight": 5, "shapes": shapes}
    (here / "polygons" / "a.json").write_text(json.dumps(drawn))
    run_block(1, BACKGROUND=str(background))
    expected = np.full((5, 6), background)
    expected[:4, :4] = 0
    expected[2:4, 2:4] = 1  # the later one lies over the earlier one
    assert ids_of("a.png") == expected.tolist()

    shapes[0]["shape_type"] = "circle"
    (here / "polygons" / "a.json").write_text(json.dumps(drawn))
    with pytest.raises(SystemExit, match=r"polygons/a\.json: a circle, not a polygon"):
        run_block(1)


def test_turned_photos_get_upright_copies_and_stay(here):
    folder = here / "images" / "train"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (40, 20)).save(folder / "turned.jpg", exif=exif)
    Image.new("RGB", (40, 20)).save(folder / "upright.jpg")
    before = (folder / "turned.jpg").read_bytes()
    run_block(2)
    (copy,) = (here / "upright").iterdir()
    with Image.open(copy) as image:
        assert copy.name == "turned.jpg" and image.size == (20, 40)
        assert orientation_of_file(image, copy) == UPRIGHT
    assert (folder / "turned.jpg").read_bytes() == before
