"""docs/masks.md: its block of code makes smaller copies, and its table names all formats."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from data.annotations import coco, cvat, label_studio, labelme, supervisely, yolo
from data.masks import read_ids
from data.orientation import UPRIGHT, orientation_of_file

DOCUMENT = Path(__file__).parents[1] / "docs" / "masks.md"


def run_block(**replaced: str) -> None:
    """Executes the document's block in this folder, with other values of its constants."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    for name, value in replaced.items():
        code, count = re.subn(rf"^{name} = [^#\n]*", f"{name} = {value} ", code, flags=re.MULTILINE)
        assert count == 1
    exec(compile(code, str(DOCUMENT), "exec"), {})


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("classes.txt").write_text("road\ntree\n")
    return tmp_path


@pytest.fixture
def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


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
    run_block(SHORT_EDGE="20")
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
        run_block(SHORT_EDGE="20")


@pytest.mark.parametrize("module", [coco, cvat, label_studio, labelme, supervisely, yolo])
def test_every_format_that_is_read_is_in_the_table(module):
    assert re.search(rf"^\| [^|]*{module.KIND}", DOCUMENT.read_text(), re.MULTILINE)
