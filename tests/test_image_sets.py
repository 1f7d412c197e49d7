"""data/folder/: VOC's lists in ImageSets/Segmentation name the splits."""

from __future__ import annotations

import re

import labelled_scenes as scenes
import numpy as np
import pytest
from labelled_scenes import write
from test_labelled_folders import NAMES, config_of, masks_of

from data import DataError, catalog

LISTS = "ImageSets/Segmentation"


def voc(root, lists, labelled="abcdef", unlabelled=""):
    """Photos a, b, ... in VOC's folders, of which some have masks; list -> its lines."""
    for name in [*labelled, *unlabelled]:
        scenes.photo(root / "JPEGImages" / f"{name}.jpg", ord(name[-1]))
    for name in labelled:
        write(root / "SegmentationClass" / f"{name}.png", scenes.png(scenes.mask(1)))
    for name, lines in lists.items():
        write(root / LISTS / f"{name}.txt", "\n".join(lines))
    write(root / "classes.txt", "\n".join(NAMES))
    return root


def opened(root, **data):
    return catalog.open_dataset(config_of(root, root.parent / "prepared", **data).data)


def splits_of(dataset):
    """Split -> its ids, one after another, without empty splits."""
    return {split: "".join(ids) for split, ids in dataset.ids.splits.items() if ids}


def errors(dataset, split):
    return dataset.errors([(split, index) for index in range(len(dataset.ids.splits[split]))])


def note_of(dataset, beginning):
    (note,) = (note for note in dataset.notes if re.search(beginning, note))
    return note


def test_lists_are_the_splits_and_other_photos_are_unlabelled(tmp_path):
    root = voc(tmp_path / "data", {"train": "ace", "val": "b"}, unlabelled="xy")
    dataset = opened(root)
    assert splits_of(dataset) == {"train": "ace", "val": "b", "unlabeled": "dfxy"}
    for split in ("train", "val"):
        assert not errors(dataset, split)
    said = f"{root / LISTS}: its lists are the splits: train 3 photos, val 1 photo"
    assert said in dataset.notes
    note = note_of(dataset, "no list names")
    assert note == (
        f"{root}: 4 photos that no list names make the split 'unlabeled'; 2 of them have masks, "
        "which count once a list names the photo"
    )
    write(tmp_path / "elsewhere" / "z.jpg", (root / "JPEGImages" / "x.jpg").read_bytes())
    dataset = opened(root, unlabeled_dir=str(tmp_path / "elsewhere"))
    assert splits_of(dataset) == {"train": "ace", "val": "b", "unlabeled": "z"}
    assert "names are not used, as config.data.unlabeled_dir is set; 2" in note_of(
        dataset, "no list"
    )


def test_a_photo_of_several_lists_is_of_the_first(tmp_path):
    lists = {"train": "abc", "val": "d", "trainval": "abcd", "more": ["b", "e"], "test": "f"}
    dataset = opened(voc(tmp_path / "data", lists))
    assert splits_of(dataset) == {"train": "abc", "val": "d", "test": "f", "more": "e"}
    assert note_of(dataset, "its lists are").endswith(
        "its lists are the splits: train 3 photos, val 1 photo, test 1 photo, more 1 photo, "
        "trainval 0 photos; a photo that several lists name is of the first of these"
    )
    assert (
        "trainval.txt names no photo that another list does not name"
        in (opened(tmp_path / "data", labeled_split="trainval").ids.absent["trainval"])
    )


def test_what_tools_call_otherwise(tmp_path):
    """CVAT has one list, "default", of all photos of a task, with masks or without."""
    root = voc(tmp_path / "data", {"default": "abcdefxy"}, unlabelled="xy")
    dataset = opened(root)
    ids = splits_of(dataset)
    assert ids["unlabeled"] == "xy" and sorted(ids["train"] + ids["val"]) == [*"abcdef"]
    assert f"{root}: 2 photos of 'train' without labels make the split 'unlabeled'" in dataset.notes
    where = f"{root / LISTS / 'default.txt'}: the labelled photos there are the split 'train'"
    assert where in dataset.notes
    assert f"{root / LISTS / 'val.txt'} does not exist: {len(ids['val'])} of the 6 labelled" in (
        note_of(dataset, "are held back")
    )
    dataset = opened(voc(tmp_path / "other", {"train": "abcx", "valid": "d"}, unlabelled="xy"))
    assert splits_of(dataset) == {"train": "abc", "val": "d", "unlabeled": "xef" + "y"}
    assert "1 photo of 'train' without labels joins the split" in note_of(dataset, "without labels")


def test_boxes_in_xml_are_no_masks(tmp_path):
    """VOC, and datumaro's exports, have a file of boxes for each photo."""
    root = voc(tmp_path / "data", {"train": "abcx", "val": "d"}, unlabelled="xy")
    for name in "abcdefxy":
        write(root / "Annotations" / f"{name}.xml", "<annotation><object/></annotation>")
    dataset = opened(root)
    assert splits_of(dataset) == {"train": "abc", "val": "d", "unlabeled": "xefy"}
    assert "1 photo of 'train' without labels joins the split" in note_of(dataset, "without labels")
    assert "; 2 of them have masks, which count once" in note_of(dataset, "no list names")
    assert not errors(dataset, "train")


def test_pictures_of_labelme2voc_are_no_photos(tmp_path):
    """It writes no lists, and draws masks over the photos, into folders beside them."""
    root = voc(tmp_path / "data", {})
    for folder in ("SegmentationClassVisualization", "SegmentationObjectVisualization"):
        scenes.photo(root / folder / "a.jpg", 1)
    assert set(splits_of(opened(root))) == {"train", "val"}


def test_photos_in_folders_and_lines_of_many_kinds(tmp_path):
    names = ["a b", "deep/c", "Ünder/d", "e"]
    lines = ["# of a tool", "a b", "deep/c\r", "", "U\u0308nder/d"]
    root = voc(tmp_path / "data" / "VOC2012", {"train": lines, "val": ["e"]}, labelled=names)
    (root / "classes.txt").rename(root.parent / "classes.txt")
    dataset = opened(root.parent)
    train = ["VOC2012/a b", "VOC2012/deep/c", "VOC2012/Ünder/d"]
    assert sorted(dataset.ids.splits["train"]) == sorted(train)
    assert dataset.ids.splits["val"] == ["VOC2012/e"]
    assert not errors(dataset, "train")


def test_records_follow_the_lists(tmp_path):
    root = voc(tmp_path / "data", {"train": "abc", "val": "d"})
    for lines in ("abc", "ab"):
        write(root / LISTS / "train.txt", "\n".join(lines))
        found = [example.id for example in opened(root).records("train").examples]
        assert found == [*lines]


def test_lists_without_photos(tmp_path):
    root = voc(tmp_path / "data", {"train": "abcde", "val": "", "test": ["f", "gone"]})
    dataset = opened(root)
    held = splits_of(dataset)["val"]
    assert held and splits_of(dataset)["test"] == "f"
    assert f"{root / LISTS / 'test.txt'}: names 1 photo that is not there, such as gone" in (
        dataset.notes
    )
    assert f"{root / LISTS / 'val.txt'} names no photo" in note_of(dataset, "are held back")
    for name in ("train", "test"):
        write(root / LISTS / f"{name}.txt", "\n")
    dataset = opened(root)
    assert f"{root / LISTS}: is not used, as its lists are empty" in dataset.notes
    assert set(splits_of(dataset)) == {"train", "val"}


# Lists -> what is wrong with them.
WRONG = {
    "photos of another data set": (
        {"train": "ab", "val": ["cat", "dog"]},
        r"val\.txt: none of its photos \(cat, dog\) is in JPEGImages; put them there, or remove",
    ),
    "trained and evaluated on": (
        {"train": "abc", "val": "cd"},
        r"val\.txt: names 1 photo that .*train\.txt names, too \(c\); remove each from one of them",
    ),
    "an odd name": (
        {"train": "ab", "my list": "c"},
        r"my list\.txt: a split's name may hold letters, digits, _ and -; rename it",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_lists_that_cannot_be_used_are_one_line(tmp_path, name):
    lists, message = WRONG[name]
    with pytest.raises(DataError, match=message) as caught:
        opened(voc(tmp_path / "data", lists))
    assert len(caught.value.problems) == 1


def test_a_list_that_is_no_text(tmp_path):
    root = voc(tmp_path / "data", {"val": "a"})
    write(root / LISTS / "train.txt", b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"train\.txt: cannot be read as a text file"):
        opened(root)


def test_photos_without_masks_are_said_with_their_list(tmp_path):
    root = voc(tmp_path / "data", {"train": "abc", "val": "dx", "test": "y"}, unlabelled="xy")
    dataset = opened(root)
    masks = root / "SegmentationClass"
    assert errors(dataset, "val") == [
        f"{masks / 'x.png'}: missing mask; add it, or take the photo out of {root / LISTS}/val.txt."
    ]
    (error,) = errors(dataset, "test")
    assert error.startswith(f"{root / LISTS}/test.txt: none of its 1 image has a mask; put such")
    assert str(masks / "y.png") in error


# Masks of classes without colours: labelmap.txt says the order of their ids.


@pytest.mark.parametrize("coloured", [False, True])
def test_a_labelmap_without_colours_orders_the_ids(tmp_path, coloured):
    root = tmp_path / "data"
    palette = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]], np.uint8)  # VOC's
    for seed in range(2):
        scenes.photo(root / "JPEGImages" / f"{seed}.jpg", seed)
        ids = scenes.mask(seed, road=3, tree=1)
        made = scenes.png(palette[ids] if coloured else ids)
        write(root / "SegmentationClass" / f"{seed}.png", made)
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\n" + "background:::\ntree:::\n")
    problem = "#808000" if coloured else r"the values \[3\], to which labelmap\.txt gives no name"
    assert re.search(problem, errors(opened(root), "train")[0])
    write(root / "labelmap.txt", "background:::\ntree:::\nhouse:::\nroad:::\n")
    write(root / "classes.txt", "road\ntree\nbackground\n")
    dataset = opened(root)
    for example, mask in masks_of(dataset).items():
        expected = scenes.mask(int(example[-1]), road=0, tree=1, rest=2)
        np.testing.assert_array_equal(mask, expected)
    assert "PNGs hold ids in the order of labelmap.txt" in note_of(dataset, ": masks: ")
    write(root / "classes.txt", "tree\nbackground\n")
    (error,) = errors(opened(root), "train")
    assert "labelmap.txt: 'road' (value 3) is not in classes.txt" in error


def test_labelme2voc_lists_its_classes_in_class_names_txt(tmp_path):
    root = voc(tmp_path / "data", {}, labelled="ab")
    (root / "classes.txt").unlink()
    names = ("_background_", *(f"class_{i}" for i in range(1, len(NAMES))))
    write(root / "class_names.txt", "\n".join(names))
    write(root / "SegmentationClassVisualization" / "a.jpg", scenes.png(scenes.mask(1)))
    dataset = opened(root)
    assert tuple(dataset.class_names) == names
    for mask in masks_of(dataset).values():
        np.testing.assert_array_equal(mask, scenes.mask(1))
