"""CVAT: one XML file for all photos ("CVAT for images 1.1"). Higher layers lie over lower ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from data.whole_files import whole_file, write_text
from rc2l_jax.prediction.annotations.outlines import corners, layers
from rc2l_jax.prediction.annotations.scene import Format, Scene, colors

_JOINT = "cvat/annotations.xml"


def _describe(scene: Scene, _: Path) -> str:
    height, width = scene.size
    name = scene.file_name.encode("utf-8", "replace").decode()  # a file's name can be any bytes
    about = {"name": name, "width": str(width), "height": str(height)}
    image = ElementTree.Element("image", about)
    for region, layer in layers(scene):
        points = corners(region.outline.exterior)
        about = {
            "label": scene.class_names[region.class_id],
            "source": "auto",
            "occluded": "0",
            "points": ";".join(f"{x:.2f},{y:.2f}" for x, y in points),
            "z_order": str(layer),
        }
        ElementTree.SubElement(image, "polygon", about)
    ElementTree.indent(image)
    return ElementTree.tostring(image, "unicode") + "\n"


def _finish(folder: Path, class_names: Sequence[str], parts: Callable[[], Iterable[str]]) -> None:
    """Writes annotations.xml, one photo at a time, and the labels that CVAT's task needs."""
    labels = [
        {"name": name, "color": color, "attributes": []}
        for name, color in zip(class_names, colors(class_names))
    ]
    write_text(folder / "cvat" / "labels.json", json.dumps(labels, indent=2) + "\n")
    with (
        whole_file(folder / _JOINT, one_writer=True) as partial,
        partial.open("w", encoding="utf-8") as file,
    ):
        file.write(
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
        )
        file.write("<meta><task><labels>\n")
        for label in labels:
            name = f"<name>{escape(label['name'])}</name>"
            file.write(f"<label>{name}<color>{label['color']}</color><attributes/></label>\n")
        file.write("</labels></task></meta>\n")
        for number, part in enumerate(parts()):
            image = ElementTree.fromstring(part)
            image.set("id", str(number))
            file.write(ElementTree.tostring(image, "unicode") + "\n")
        file.write("</annotations>\n")


FORMAT = Format("cvat/parts/{}.xml", _describe, _finish, _JOINT)
