"""docs/masks.md: its table names all formats."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data.annotations import coco, cvat, label_studio, labelme, supervisely, yolo

DOCUMENT = Path(__file__).parents[1] / "docs" / "masks.md"


@pytest.mark.parametrize("module", [coco, cvat, label_studio, labelme, supervisely, yolo])
def test_every_format_that_is_read_is_in_the_table(module):
    assert re.search(rf"^\| [^|]*{module.KIND}", DOCUMENT.read_text(), re.MULTILINE)
