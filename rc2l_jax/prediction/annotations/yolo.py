"""YOLO (Ultralytics): a text file for each photo, with a line for each region."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from data.whole_files import write_text
from rc2l_jax.prediction.annotations.outlines import keyhole
from rc2l_jax.prediction.annotations.scene import Format, Scene


def _describe(scene: Scene, _: Path) -> str:
    height, width = scene.size
    lines = []
    for region in scene.drawn:
        shares = (keyhole(region.outline) / (width, height)).ravel().tolist()
        lines.append(" ".join([str(region.class_id), *(f"{share:.6f}" for share in shares)]))
    return "".join(f"{line}\n" for line in lines)


def _finish(folder: Path, class_names: Sequence[str], parts: Callable[[], Iterable[str]]) -> None:
    """Writes data.yaml. Text in JSON's quotes is YAML, too, whatever is in it."""
    names = "".join(f"  {index}: {json.dumps(name)}\n" for index, name in enumerate(class_names))
    # Without "path" the folders lie beside data.yaml, wherever Ultralytics is started.
    head = "# Put the photos into images/, beside labels/.\ntrain: images\nval: images\n"
    write_text(folder / "yolo" / "data.yaml", f"{head}names:\n{names}")


FORMAT = Format("yolo/labels/{}.txt", _describe, _finish)
