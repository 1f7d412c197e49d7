"""Labelme: a file for each photo. Later shapes lie over earlier ones."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rc2l_jax.prediction.annotations.outlines import corners, layers
from rc2l_jax.prediction.annotations.scene import Format, Scene
from rc2l_jax.prediction.regions import Region

_VERSION = "5.5.0"  # of Labelme, whose format this is


def _describe(scene: Scene, path: Path) -> str:
    height, width = scene.size
    content = {
        "version": _VERSION,
        "flags": {},
        "shapes": [_shape(region, scene.class_names) for region, _ in layers(scene)],
        "imagePath": _relative(scene, path.parent),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _shape(region: Region, class_names: Sequence[str]) -> dict[str, Any]:
    return {
        "label": class_names[region.class_id],
        "points": corners(region.outline.exterior).tolist(),
        "group_id": None,
        "description": "" if region.score is None else f"score {region.score}",
        "shape_type": "polygon",
        "flags": {},
        "mask": None,
    }


def _relative(scene: Scene, folder: Path) -> str:
    """Returns the photo's path as seen from the folder of its annotations."""
    name = Path(scene.file_name).name
    if name != scene.photo.name:  # a frame, which is no file of its own: expected beside
        return name
    real = os.path.realpath  # as ".." leads to the folder above the real one, not above the link
    return Path(os.path.relpath(real(scene.photo.parent), real(folder)), name).as_posix()


FORMAT = Format("labelme/{}.json", _describe, None)
