"""data/folder/: labels that cannot be used are said in one line that names the file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import labelled_scenes as scenes
import pytest
from labelled_scenes import SCENES, write
from test_labelled_folders import NAMES, config_of, masks_of

from data import DataError, catalog
from rc2l_jax.training import check


def spoiled_labelme(root):
    SCENES["Labelme's files in labels"][0](root)
    return root / "labels" / "train" / "photo 1 é.json"


# Each spoils a folder, and returns what should be said of it.


def two_formats(root):
    write(spoiled_labelme(root).with_suffix(".png"), scenes.png(scenes.mask(1)))
    return r"photo 1 é\.png: is annotated in .*photo 1 é\.json and .*photo 1 é\.png; remove one"


def listed_twice(root):
    SCENES["COCO, one file"][0](root)
    document = scenes.coco({**scenes.ALL, "deep/photo 1 é.png": 1})
    write(root / "annotations.json", document)
    return r"photo 1 é\.png: is annotated in .*annotations\.json twice; remove one"


def two_files_for_all(root):
    SCENES["Label Studio"][0](root)
    write(root / "old.json", scenes.label_studio(scenes.ALL))
    return r"photo 0 é\.png \(and 4 more\): is annotated in .*old\.json and .*\.json; remove one"


def cut_off(root):
    file = spoiled_labelme(root)
    file.write_bytes(file.read_bytes()[:50])
    return r"labels/train/photo 1 é\.json: cannot be read as JSON .*; export it again"


def of_another_data_set(root):
    SCENES["COCO, one file"][0](root)
    write(root / "annotations.json", scenes.coco({"cat.jpg": 0, "dog.jpg": 1}))
    return (
        r"annotations\.json: none of its photos \(cat\.jpg, dog\.jpg\) is in train, val; is it of"
    )


def unknown_class(root):
    file = spoiled_labelme(root)
    write(root / "classes.txt", "\n".join(NAMES))
    file.write_text(file.read_text().replace('"tree"', '"bush"'))
    return rf"{file.name}: 'bush' is not in classes\.txt; add the name there"


def unknown_class_of_another_list(root):
    file = spoiled_labelme(root)
    write(root / "class_names.txt", "\n".join(NAMES))
    file.write_text(file.read_text().replace('"tree"', '"bush"'))
    return rf"{file.name}: 'bush' is not in class_names\.txt; add the name there"


def class_missing_in_several_files(root):
    unknown_class(root)
    file = root / "labels" / "train" / "photo 2 é.json"
    file.write_text(file.read_text().replace('"tree"', '"bush"'))
    return r"photo 1 é\.json \(and 1 more\): 'bush' is not in classes\.txt"


def other_size(root):
    file = spoiled_labelme(root)
    scenes.photo(root / "images" / "train" / "photo 1 é.png", 1, (10, 12))
    return rf"{file.name}: the mask is 24x20 and its image 12x10"


def other_json(root):
    file = spoiled_labelme(root)
    write(file, {"made by": "a tool that nobody knows"})
    return r"photo 1 é\.json: is of no format that is read \(docs/masks\.md lists them\)"


def ambiguous(root):
    SCENES["COCO, one file"][0](root)
    scenes.photo(root / "images" / "val" / "photo 1 é.png", 99)
    return (
        r"'photo 1 é\.png' may be .*train/photo 1 é\.png or .*val/photo 1 é\.png; put the file in"
    )


def no_names(root):
    scenes.own(root)
    for name in scenes.TRAIN:
        write(root / "labels" / "train" / name, scenes.png(scenes.mask(1)))
    return r"classes\.txt: missing; write the names of the classes into it"


def predictions_only(root):
    SCENES["Label Studio"][0](root)
    (file,) = root.rglob("*.json")
    tasks = json.loads(file.read_text())
    for task in tasks:
        task["predictions"] = task.pop("annotations")
    write(file, tasks)
    return r"\.json: holds predictions and no annotations; correct and submit them"


# Files of annotations that lack something, or are of another data set.


def json_min(names):
    """Label Studio's other export: a list of shapes a photo, in no order of drawing."""

    def shapes(task):
        for result in task["annotations"][0]["result"]:
            yield result["value"] | {"original_width": scenes.WIDTH, "original_height": 20}

    return [
        {"image": task["data"]["image"], "id": task["id"], "label": [*shapes(task)]}
        for task in scenes.label_studio(names)
    ]


def coco_without(*keys):
    return lambda names: {k: x for k, x in scenes.coco(names).items() if k not in keys}


UNREAD = {
    "JSON-MIN": (json_min, 'is Label Studio\'s export "JSON-MIN", .*; export "JSON" instead'),
    "results": (lambda names: scenes.coco(names)["annotations"], "is COCO's list of results, "),
    "no categories": (coco_without("categories"), 'is COCO\'s without "categories", .* export it'),
    "unknown": (lambda names: {"by": "a tool"}, r"is of no format that is read \(docs/masks\.md"),
}


def unread(kind, place, *, listed):
    """A scene with one file of a kind that is not read."""
    make, message = UNREAD[kind]

    def spoil(root):
        scenes.own(root)
        write(root / place, make(scenes.ALL))
        if listed:
            write(root / "classes.txt", "\n".join(NAMES))
        return rf"{re.escape(place)}: {message}.*; there are no other labels"

    return spoil


UNREAD_SCENES = [
    unread(kind, place, listed=listed)
    for kind in UNREAD
    for place, listed in (
        ("export.json", False),
        ("labels/train.json", True),
        ("labels/train/photo 1 é.json", False),
    )
]


def unread_xml(root):
    scenes.own(root)
    for name in scenes.TRAIN:
        file = root / "labels" / "train" / f"{Path(name).stem}.xml"
        write(file, "<annotation><object/></annotation>")
    return r"photo 0 é\.xml \(and 2 more\): is of no format that is read"


def cvat_of_another_data_set(root):
    SCENES["CVAT"][0](root)
    write(root / "annotations.xml", scenes.cvat({"cat.jpg": 0, "dog.jpg": 1}))
    return r"annotations\.xml: none of its photos \(cat\.jpg, dog\.jpg\) is in all; is it of"


def labelme_of_another_data_set(root):
    scenes.own(root)
    write(root / "images" / "train" / "cat.json", scenes.labelme("cat.jpg", 1))
    return r"images/train/cat\.json: none of its photos \(.*cat\.jpg\) is in train; is it of"


def several_files_of_another_data_set(root):
    scenes.own(root)
    for number in range(6):
        file = root / "images" / "train" / f"cat {number}.json"
        write(file, scenes.labelme(f"cat {number}.jpg", 1))
    return (
        r"images/train/cat 0\.json \(and 5 more\): none of their photos "
        r"\(.*cat 0\.jpg, .*cat 4\.jpg, \.\.\.\) is in train; are they of another data set\? Put"
    )


def yolo_without_names(root):
    SCENES["YOLO"][0](root)
    (root / "data.yaml").unlink()
    return r"classes\.txt: missing; .* Or copy YOLO's data\.yaml, which names them, to .*data\."


def yolo_with(line, said):
    """A scene with one line that is odd in a file of YOLO."""

    def spoil(root):
        SCENES["YOLO"][0](root)
        file = root / "labels" / "train" / "photo 1 é.txt"
        file.write_text(f"{file.read_text()}\n{line}")
        return rf"labels/train/photo 1 é\.txt: line 3 {said}"

    return spoil


def yolo_of_one_odd_line(root):
    SCENES["YOLO"][0](root)
    write(root / "labels" / "train" / "photo 1 é.txt", "-1 0.1 0.1 0.5 0.1 0.5 0.5")
    return r"labels/train/photo 1 é\.txt: line 1 begins with -1, which is no class"


def yolo_photo_without_a_file(root):
    SCENES["YOLO"][0](root)
    (root / "labels" / "train" / "photo 1 é.txt").unlink()
    return r"photo 1 é\.png: missing mask.* \(an empty NAME\.txt says that it shows none of the cl"


def assert_one_line(tmp_path, capsys, spoil):
    """Checks a spoiled folder: one line is said, as `spoil` returns it, and nothing is left."""
    root = tmp_path / "data"
    message = spoil(root)
    config = config_of(root, tmp_path / "prepared")
    with pytest.raises(DataError, match="1 problem found"):
        check.check(config)
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if not line.startswith(("note: ", "warning: ")))
    assert re.search(message, line), line
    assert not list(Path(tmp_path).rglob("*incomplete*"))


@pytest.mark.parametrize(
    "spoil",
    [
        two_formats, listed_twice, two_files_for_all, cut_off, of_another_data_set,
        unknown_class, unknown_class_of_another_list, class_missing_in_several_files, other_size,
        other_json, ambiguous,
        no_names, predictions_only, unread_xml, cvat_of_another_data_set,
        labelme_of_another_data_set, several_files_of_another_data_set, yolo_without_names,
        yolo_photo_without_a_file, yolo_of_one_odd_line,
        yolo_with("1 0.5 0.5", "ends after 3 numbers; export it again"),
        yolo_with("tree 0.1 0.1 0.5 0.1 0.5 0.5", "begins with tree, which is no class"),
        *UNREAD_SCENES,
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line_that_names_the_file(tmp_path, capsys, spoil):
    assert_one_line(tmp_path, capsys, spoil)


def test_files_of_yolo_that_belong_to_no_photo_are_counted(tmp_path, capsys):
    for root in (tmp_path / "named", tmp_path / "unnamed"):
        SCENES["YOLO"][0](root)
        for file in (root / "labels" / "train").iterdir():
            file.rename(file.with_name(f"other {file.name}"))
        write(root / "labels" / "train" / "README.md", "belongs to no photo, either")
    with pytest.raises(DataError, match="1 problem found"):
        check.check(config_of(tmp_path / "named", tmp_path / "prepared"))
    found = "labels/train holds 3 files that belong to no image, such as other photo 0 é.txt"
    assert found in capsys.readouterr().out
    (tmp_path / "unnamed" / "data.yaml").unlink()
    for file in (tmp_path / "unnamed" / "labels" / "val").iterdir():
        file.unlink()
    with pytest.raises(DataError) as caught:
        catalog.open_dataset(config_of(tmp_path / "unnamed", tmp_path / "prepared").data)
    stray, missing = caught.value.problems
    assert found in stray and "Or copy YOLO's data.yaml" in missing


def test_an_empty_file_of_yolo_is_a_photo_of_background(tmp_path):
    SCENES["YOLO"][0](tmp_path / "data")
    write(tmp_path / "data" / "labels" / "train" / "photo 1 é.txt", "")
    dataset = catalog.open_dataset(config_of(tmp_path / "data", tmp_path / "prepared").data)
    assert not masks_of(dataset)["train/photo 1 é"].any()


def test_texts_beside_photos_that_are_not_yolos_are_nobodys_labels(tmp_path):
    SCENES["Labelme's files beside the photos"][0](tmp_path / "data")
    for name in scenes.TRAIN:
        file = (tmp_path / "data" / "images" / "train" / name).with_suffix(".txt")
        write(file, "a photo of a road\n2 trees\n1 0 0 0.5\n")
    dataset = catalog.open_dataset(config_of(tmp_path / "data", tmp_path / "prepared").data)
    assert len(masks_of(dataset)) == 5


def test_xml_beside_masks_is_said_and_no_error(tmp_path):
    """VOC has boxes for its photos as well as masks."""
    root = tmp_path / "data"
    SCENES["colours of VOC"][0](root)
    for name in scenes.ALL:
        write(root / "Annotations" / f"{Path(name).stem}.xml", "<annotation><object/></annotation>")
    write(root / "package.json", {"outside": "of the labels"})
    dataset = catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
    assert len(masks_of(dataset)) == 5
    (note,) = (note for note in dataset.notes if "of no format" in note)
    assert "Annotations/photo 0 é.xml (and 4 more): is of no format that is read" in note


def test_photos_that_are_not_there_are_counted_and_shapes_left_out_too(tmp_path, capsys):
    root = tmp_path / "data"
    SCENES["COCO, one file"][0](root)
    document = scenes.coco({**scenes.ALL, "gone.jpg": 1})
    document["annotations"][0]["segmentation"].append([1, 1, 5, 5])
    document["annotations"].append(document["annotations"][0] | {"image_id": "deleted"})
    write(root / "annotations.json", document)
    check.check(config_of(root, tmp_path / "prepared"))
    printed = capsys.readouterr().out
    assert "annotations.json annotates 1 photo that is not there, such as gone.jpg" in printed
    dangling = "1 annotation of an image that the file does not list (in annotations.json)"
    polygon = "1 polygon of fewer than three corners (in annotations.json, photo photo 0 é.png)\n"
    assert f"left out: {dangling}, {polygon}" in printed


@pytest.mark.parametrize("outside", [False, True])
def test_a_shape_that_is_left_out_is_said_with_its_file(tmp_path, capsys, outside):
    root = tmp_path / "data"
    file = spoiled_labelme(root)
    corners = scenes.ring((30, 1, 40, 5)) if outside else [[1, 1], [5, 5]]
    for number, name in enumerate((file, file.with_name("photo 2 é.json"))):
        document = json.loads(name.read_text())
        document["shapes"].append({"label": "road", "points": corners, "shape_type": "polygon"})
        write(name, document)
        check.check(config_of(root, tmp_path / "prepared"))
        what = "polygon outside of its photo" if outside else "polygon of fewer than three corners"
        where = f"{'such as ' if number else ''}in labels/train/photo 1 é.json"
        assert f"left out: {number + 1} {what} ({where})\n" in capsys.readouterr().out
