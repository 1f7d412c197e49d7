"""Has Labelme write labelme/VERSION/NAME.json, and draw NAME.png of it.

pip install labelme==6.3.1      # or 4.6.0
QT_QPA_PLATFORM=offscreen python tests/exports/write_labelme.py
"""

from __future__ import annotations

import labelme
import numpy as np
import scene
from labelme import utils

OLD = labelme.__version__.startswith("4.")


def shape(label: str, kind: str, points: list, mask: np.ndarray | None = None) -> dict:
    """A shape as labelme/app.py hands it to LabelFile."""
    made = {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}}
    if not OLD:
        encoded = None if mask is None else utils.img_arr_to_b64(mask.astype(np.uint8))
        made |= {"description": "", "mask": encoded}
    return made


def write(name: str, shapes: list[dict]) -> None:
    """Saves a file with LabelFile, opens it again, and draws what it has."""
    folder = scene.HERE / "labelme" / labelme.__version__
    folder.mkdir(parents=True, exist_ok=True)
    photo, path = folder / "photo.png", folder / f"{name}.json"
    scene.photo(photo)
    labelme.LabelFile().save(str(path), shapes, photo.name, scene.HEIGHT, scene.WIDTH)
    opened = labelme.LabelFile(str(path))
    ids, _ = utils.shapes_to_label(scene.SIZE, opened.shapes, scene.IDS)
    scene.save(folder / f"{name}.png", ids)
    photo.unlink()


left, top, right, bottom = scene.BOX
corners = [[left, top], [right, bottom]]
shapes = [
    shape("road", "polygon", scene.ROAD),
    shape("tree", "polygon", scene.STAR),
    *(shape("house", "polygon", part) for part in scene.PARTS),
    shape("tree", "rectangle", corners if OLD else corners[::-1]),  # drawn from any corner
    shape("house", "circle", [[10.5, 22.0], [13.0, 24.5]]),
]
if not OLD:
    turned = [[4.0, 6.0], [6.0, 4.0], [15.0, 13.0], [13.0, 15.0]]
    shapes.append(shape("house", "oriented_rectangle", turned))
    (x, y), bitmap = scene.ORIGIN, scene.bitmap()
    last = [x + bitmap.shape[1] - 1, y + bitmap.shape[0] - 1]
    write("bitmaps", [shape("tree", "mask", [[x, y], last], bitmap)])
write("shapes", shapes)
