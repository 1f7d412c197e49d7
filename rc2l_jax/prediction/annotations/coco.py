"""COCO: one file for all photos, with polygons, and run lengths for regions with holes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from data.whole_files import whole_file
from rc2l_jax.prediction.annotations.outlines import corners
from rc2l_jax.prediction.annotations.scene import Format, Scene, write_list
from rc2l_jax.prediction.regions import Region

_JOINT = "coco/annotations.json"


def _describe(scene: Scene, _: Path) -> str:
    height, width = scene.size
    image = {"file_name": scene.file_name, "width": width, "height": height}
    annotations = [_annotation(region, scene.size) for region in scene.drawn]
    return json.dumps({"image": image, "annotations": annotations}, allow_nan=False)


def _annotation(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    area, box = region.area, list(region.box)
    if region.outline.interiors:
        segmentation: Any = _encode(region, size)
    else:
        left, top, right, bottom = region.outline.bounds
        area, box = region.outline.area, [left, top, right - left, bottom - top]
        segmentation = [corners(region.outline.exterior).ravel().tolist()]
    about = {"category_id": region.class_id, "segmentation": segmentation, "area": area}
    # "Crowd" would mean that nobody told the objects in it apart, and evaluation would ignore it.
    about |= {"bbox": box, "iscrowd": 0}
    return about if region.score is None else about | {"score": region.score}


def _encode(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    """Returns a region's compressed run lengths."""
    starts, lengths = region.runs.T
    begins = np.append(True, starts[1:] != starts[:-1] + lengths[:-1])  # some go on in a new column
    starts, ends = starts[begins], (starts + lengths)[np.append(begins[1:], True)]
    changes = np.stack([starts, ends], 1).ravel()
    counts = np.diff(changes, prepend=0, append=size[0] * size[1]).tolist()
    packed = run_lengths.frPyObjects({"size": list(size), "counts": counts}, *size)
    return {"size": list(size), "counts": packed["counts"].decode()}


def _finish(folder: Path, class_names: Sequence[str], parts: Callable[[], Iterable[str]]) -> None:
    """Writes images and annotations of one photo after the other: there may be any number."""
    categories = [
        {"id": index, "name": name, "supercategory": ""} for index, name in enumerate(class_names)
    ]
    with (
        whole_file(folder / _JOINT, one_writer=True) as partial,
        partial.open("w", encoding="utf-8") as file,
    ):
        file.write('{"info": {"description": "predicted by rc2l_jax"},\n"licenses": [],\n')
        file.write(f'"categories": {json.dumps(categories)},\n"images": [')
        write_list(file, map(json.dumps, _images(parts())))
        file.write('],\n"annotations": [')
        write_list(file, map(json.dumps, _annotations(parts())))
        file.write("]}\n")


def _images(parts: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(parts, 1):
        yield {"id": number} | json.loads(part)["image"]


def _annotations(parts: Iterable[str]) -> Iterator[dict[str, Any]]:
    count = itertools.count(1)
    for number, part in enumerate(parts, 1):
        for annotation in json.loads(part)["annotations"]:
            yield {"id": next(count), "image_id": number} | annotation


FORMAT = Format("coco/parts/{}.json", _describe, _finish, _JOINT)
