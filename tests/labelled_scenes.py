"""Photos of a road and a tree, annotated in the files of every labelling tool that is read.

The scene's corners are whole numbers, so that all tools mean the same pixels.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

HEIGHT, WIDTH = SIZE = (20, 24)
COLOURS = {"background": (0, 0, 0), "road": (128, 64, 128), "tree": (0, 128, 0)}


def boxes(seed: int) -> dict[str, tuple[int, int, int, int]]:
    """Left, top, right and bottom of the road, and of the tree, which lies above it."""
    return {"road": (2 + seed, 3, 14, 12), "tree": (8, 6 + seed, 20, 17)}


def ring(box: Sequence[int]) -> list[list[int]]:
    left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def mask(seed: int, road: int = 1, tree: int = 2, rest: int = 0) -> np.ndarray:
    """The ids that a photo's mask should have, drawn with numpy."""
    ids = np.full(SIZE, rest, np.uint8)
    for index, (left, top, right, bottom) in zip((road, tree), boxes(seed).values()):
        ids[top:bottom, left:right] = index
    return ids


def photo(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write(path: Path, content: str | bytes | dict | list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, (str, bytes)):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def labelme(name: str, seed: int) -> dict:
    shapes = [
        {"label": label, "points": ring(box), "shape_type": "polygon", "flags": {}}
        for label, box in boxes(seed).items()
    ]
    return {
        "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"..\\x\\{name}",
        "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH,
    }  # fmt: skip


def coco(names: dict[str, int]) -> dict:
    """A document of photos: name -> seed."""
    annotations = [
        {
            "id": 10 * i + j, "image_id": i, "category_id": j, "iscrowd": 0,
            "segmentation": [[value for point in ring(box) for value in point]],
        }
        for i, seed in enumerate(names.values())
        for j, box in enumerate(boxes(seed).values(), 1)
    ]  # fmt: skip
    images = [
        {"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH}
        for i, name in enumerate(names)
    ]
    categories = [
        {"id": 0, "name": "things", "supercategory": "none"},
        {"id": 1, "name": "road", "supercategory": "things"},
        {"id": 2, "name": "tree", "supercategory": "things"},
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def yolo(seed: int) -> str:
    lines = (
        " ".join([str(i), *(f"{x / WIDTH:.9f} {y / HEIGHT:.9f}" for x, y in ring(box))])
        for i, box in enumerate(boxes(seed).values())
    )
    return "\n".join(lines)


def label_studio(names: dict[str, int]) -> list:
    def result(label: str, box: Sequence[int]) -> dict:
        points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ring(box)]
        return {
            "type": "polygonlabels", "original_width": WIDTH, "original_height": HEIGHT,
            "image_rotation": 0, "value": {"points": points, "polygonlabels": [label]},
        }  # fmt: skip

    return [
        {
            "id": i,
            "data": {"image": f"/data/upload/1/{i:08x}-{name}"},
            "annotations": [{"result": [result(*item) for item in boxes(seed).items()]}],
        }
        for i, (name, seed) in enumerate(names.items())
    ]


def cvat(names: dict[str, int]) -> str:
    images = ""
    for i, (name, seed) in enumerate(names.items()):
        (left, top, right, bottom), tree = boxes(seed).values()
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in ring(tree))
        images += (
            f'<image id="{i}" name="{name}" width="{WIDTH}" height="{HEIGHT}">'
            f'<polygon label="tree" points="{points}" z_order="1"/>'
            f'<box label="road" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}" z_order="0"/>'
            "</image>"
        )
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("road", "tree"))
    return (
        f"<annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
        f"{images}</annotations>"
    )


def supervisely(seed: int) -> dict:
    """Whole numbers are pixels here, and a box's last ones belong to it."""
    (first, upper, last, lower), (left, top, right, bottom) = boxes(seed).values()
    bitmap = np.full((bottom - top, right - left), 255, np.uint8)
    data = base64.b64encode(zlib.compress(png(bitmap))).decode()
    return {
        "size": {"height": HEIGHT, "width": WIDTH},
        "objects": [
            {
                "classTitle": "road", "geometryType": "rectangle",
                "points": {"exterior": [[first, upper], [last - 1, lower - 1]], "interior": []},
            },
            {
                "classTitle": "tree", "geometryType": "bitmap",
                "bitmap": {"data": data, "origin": [left, top]},
            },
        ],
    }  # fmt: skip


def coloured(seed: int, tree: str = "tree") -> bytes:
    """A mask in which the tree has the colour of the class `tree`."""
    colours = COLOURS["background"], COLOURS["road"], COLOURS[tree]
    return png(np.array(colours, np.uint8)[mask(seed)])


def matlab(seed: int) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"labels": mask(seed).astype(np.float64)})
    return buffer.getvalue()


LABELMAP = "# label:color_rgb:parts:actions\n" + "".join(
    f"{name}:{','.join(map(str, colour))}::\n" for name, colour in COLOURS.items()
)
VALUES = "Pixel Value, Class\n0, background\n5, road\n9, tree\n"
NAMES = [f"photo {seed} é.png" for seed in range(5)]  # three of train, two of val
TRAIN = {name: seed for seed, name in enumerate(NAMES) if seed < 3}
VAL = {name: seed for seed, name in enumerate(NAMES) if seed >= 3}
ALL = TRAIN | VAL

Scene = Callable[[Path], None]


def _photos(root: Path, folders: dict[str, dict[str, int]]) -> None:
    for folder, names in folders.items():
        for name, seed in names.items():
            photo(root / folder / name, seed)


def _each(root: Path, folders: dict[str, dict[str, int]], ending: str, made: Callable) -> None:
    """Writes a file for each photo, whose suffix becomes `ending`."""
    for folder, names in folders.items():
        for name, seed in names.items():
            write(root / folder / f"{Path(name).stem}{ending}", made(name, seed))


def own(root: Path) -> None:
    _photos(root, {"images/train": TRAIN, "images/val": VAL})


def _labelme_beside(root: Path) -> None:
    own(root)
    _each(root, {"images/train": TRAIN, "images/val": VAL}, ".json", labelme)


def _labelme_in_labels(root: Path) -> None:
    own(root)
    _each(root, {"labels/train": TRAIN, "labels/val": VAL}, ".json", labelme)


def _labelme_in_one_folder(root: Path) -> None:
    for name, seed in ALL.items():
        photo(root / name, seed)
    _each(root, {".": ALL}, ".json", labelme)


def _coco_for_a_split(root: Path) -> None:
    own(root)
    write(root / "labels" / "train.json", coco({f"C:\\photos\\{n}": s for n, s in TRAIN.items()}))
    write(root / "labels" / "val.json", coco(VAL))


def _coco_in_annotations(root: Path) -> None:
    own(root)
    write(root / "annotations" / "instances_train2017.json", coco(TRAIN))
    write(root / "annotations" / "instances_val2017.json", coco(VAL))


def _coco_for_all(root: Path) -> None:
    own(root)
    write(root / "annotations.json", coco(ALL))


def _roboflow_coco(root: Path) -> None:
    _photos(root, {"train": TRAIN, "valid": VAL})
    write(root / "train" / "_annotations.coco.json", coco(TRAIN))
    write(root / "valid" / "_annotations.coco.json", coco(VAL))
    write(root / "README.dataset.txt", "of Roboflow")


def _roboflow_masks(root: Path) -> None:
    _photos(root, {"train": TRAIN, "valid": VAL})

    def made(name: str, seed: int) -> bytes:
        return png(mask(seed, road=5, tree=9))

    _each(root, {"train": TRAIN, "valid": VAL}, "_mask.png", made)
    for split in ("train", "valid"):
        write(root / split / "_classes.csv", VALUES)


def _yolo(root: Path) -> None:
    own(root)
    folders = {"labels/train": TRAIN, "labels/val": VAL}
    _each(root, folders, ".txt", lambda name, seed: yolo(seed))
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: {0: road, 1: tree}")


def _yolo_of_roboflow(root: Path) -> None:
    _photos(root, {"train/images": TRAIN, "valid/images": VAL})
    folders = {"train/labels": TRAIN, "valid/labels": VAL}
    _each(root, folders, ".txt", lambda name, seed: yolo(seed))
    write(root / "data.yaml", "train: ../train/images\nnames: ['road', 'tree']\nnc: 2")


def _label_studio(root: Path) -> None:
    own(root)
    write(root / "project-1-at-2026-01-01.json", label_studio(ALL))


def _cvat(root: Path) -> None:
    _photos(root, {"images": ALL})
    write(root / "annotations.xml", cvat({f"deep/{name}": seed for name, seed in ALL.items()}))


def _supervisely(root: Path) -> None:
    _photos(root, {"train/img": TRAIN, "val/img": VAL})
    folders = {"train/ann": TRAIN, "val/ann": VAL}
    _each(root, folders, ".png.json", lambda name, seed: supervisely(seed))
    titles = [{"title": "road", "shape": "polygon"}, {"title": "tree", "shape": "bitmap"}]
    write(root / "meta.json", {"classes": titles, "tags": []})


def _colours(root: Path) -> None:
    own(root)
    folders = {"labels/train": TRAIN, "labels/val": VAL}
    _each(root, folders, ".png", lambda name, seed: coloured(seed))
    write(root / "labelmap.txt", LABELMAP)


def _colours_of_voc(root: Path) -> None:
    _photos(root, {"JPEGImages": ALL})
    _each(root, {"SegmentationClass": ALL}, ".png", lambda name, seed: coloured(seed))
    _each(root, {"SegmentationObject": ALL}, ".png", lambda name, seed: b"objects")
    write(root / "labelmap.txt", LABELMAP)


def _colours_in_classes(root: Path) -> None:
    own(root)
    folders = {"labels/train": TRAIN, "labels/val": VAL}
    _each(root, folders, ".png", lambda name, seed: coloured(seed))
    lines = (f"{name} #{bytes(colour).hex()}" for name, colour in COLOURS.items())
    write(root / "classes.txt", "\n".join(lines))


def _matlab(root: Path) -> None:
    own(root)
    folders = {"labels/train": TRAIN, "labels/val": VAL}
    _each(root, folders, ".mat", lambda name, seed: matlab(seed))
    write(root / "classes.txt", "background\nroad\ntree")


# Name -> what writes it, and a part of the line that says what was found.
SCENES: dict[str, tuple[Scene, str]] = {
    "Labelme's files beside the photos": (_labelme_beside, "train 3 Labelme; val 2 Labelme"),
    "Labelme's files in labels": (_labelme_in_labels, "the labels that were used, sorted"),
    "Labelme's files in one folder": (_labelme_in_one_folder, "train 4 Labelme; val 1 Labelme"),
    "COCO, a file a split": (_coco_for_a_split, "train 3 COCO; val 2 COCO"),
    "COCO, in annotations": (_coco_in_annotations, "the list in COCO's files: background, road"),
    "COCO, one file": (_coco_for_all, "train 3 COCO; val 2 COCO"),
    "COCO of Roboflow": (_roboflow_coco, "train 3 COCO; val 2 COCO"),
    "masks of Roboflow": (_roboflow_masks, "classes from _classes.csv: background, road, tree"),
    "YOLO": (_yolo, "train 3 YOLO; val 2 YOLO; classes from data.yaml"),
    "YOLO of Roboflow": (_yolo_of_roboflow, "train 3 YOLO; val 2 YOLO"),
    "Label Studio": (_label_studio, "train 3 Label Studio; val 2 Label Studio"),
    "CVAT": (_cvat, "train 4 CVAT; val 1 CVAT; classes from the list in CVAT's files"),
    "Supervisely": (_supervisely, "train 3 Supervisely; val 2 Supervisely"),
    "colours": (_colours, "PNGs are read by their colours"),
    "colours of VOC": (_colours_of_voc, "train 4 PNG; val 1 PNG; classes from labelmap.txt"),
    "colours in classes.txt": (_colours_in_classes, "PNGs are read by their colours"),
    "MATLAB": (_matlab, "train 3 MATLAB; val 2 MATLAB; classes from classes.txt"),
}
