"""Label Studio: one file of tasks with predictions for all photos, and the labelling interface."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from data.whole_files import whole_file, write_text
from rc2l_jax.prediction.annotations.outlines import keyhole
from rc2l_jax.prediction.annotations.scene import Format, Scene, colors, write_list
from rc2l_jax.prediction.regions import Region

_JOINT = "labelstudio/tasks.json"
_CONFIG = """<View>
  <Image name="image" value="$image" zoom="true"/>
  <PolygonLabels name="label" toName="image" strokeWidth="2">
{labels}  </PolygonLabels>
</View>
"""


def _describe(scene: Scene, _: Path) -> str:
    results = [_result(region, str(index), scene) for index, region in enumerate(scene.drawn)]
    prediction = {"model_version": scene.model, "result": results}
    # Where Label Studio serves files of a folder that is connected as local storage.
    place = quote(f"{scene.folder}/{scene.file_name}", errors="surrogateescape")
    data = {"image": f"/data/local-files/?d={place}"}
    task = {"data": data, "predictions": [prediction]}
    return json.dumps(task, allow_nan=False)


def _result(region: Region, identity: str, scene: Scene) -> dict[str, Any]:
    height, width = scene.size
    percent = 100 * keyhole(region.outline) / (width, height)
    result = {
        "id": identity,
        "type": "polygonlabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "points": percent.round(4).tolist(),
            "closed": True,
            "polygonlabels": [scene.class_names[region.class_id]],
        },
    }
    return result if region.score is None else result | {"score": region.score}


def _finish(folder: Path, class_names: Sequence[str], parts: Callable[[], Iterable[str]]) -> None:
    """Writes the tasks, one at a time, and the interface's configuration, to paste."""
    labels = "".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(color)}/>\n"
        for name, color in zip(class_names, colors(class_names))
    )
    write_text(folder / "labelstudio" / "interface.xml", _CONFIG.format(labels=labels))
    with (
        whole_file(folder / _JOINT, one_writer=True) as partial,
        partial.open("w", encoding="utf-8") as file,
    ):
        file.write("[")
        write_list(file, parts())
        file.write("\n]\n")


FORMAT = Format("labelstudio/parts/{}.json", _describe, _finish, _JOINT)
