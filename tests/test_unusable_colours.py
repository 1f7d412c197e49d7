"""data/folder/: colours and values of masks that cannot be used are said in one line, too."""

from __future__ import annotations

import labelled_scenes as scenes
import numpy as np
import pytest
from labelled_scenes import SCENES, write
from test_labelled_folders import NAMES, config_of, masks_of
from test_unusable_labels import assert_one_line

from data import DataError, catalog
from rc2l_jax.training import check

# Each spoils a folder, and returns what should be said of it.


def contradicting_values(root):
    SCENES["masks of Roboflow"][0](root)
    write(root / "valid" / "_classes.csv", scenes.VALUES.replace("9, tree", "8, tree"))
    return r"valid/_classes\.csv: has 8 for tree, and another _classes\.csv has 9"


def unknown_value(root):
    SCENES["masks of Roboflow"][0](root)
    write(root / "train" / "photo 1 é_mask.png", scenes.png(np.full(scenes.SIZE, 7, np.uint8)))
    return r"photo 1 é_mask\.png: has the values \[7\], to which _classes\.csv gives no name"


def colours_without_a_list(root):
    SCENES["colours in classes.txt"][0](root)
    write(root / "classes.txt", "\n".join(NAMES))
    for name, seed in scenes.VAL.items():
        write(root / "labels" / "val" / name, scenes.png(scenes.mask(seed)))
    return (
        r"labels/train/photo 0 é\.png: the mask has mode RGB, .* behind its name in classes\.txt "
        r"\(road #804080\), or add labelmap\.txt"
    )


def one_coloured_mask(root):
    colours_without_a_list(root)
    for name, seed in scenes.TRAIN.items():
        if seed != 2:
            write(root / "labels" / "train" / name, scenes.png(scenes.mask(seed)))
    return r"labels/train/photo 2 é\.png: the mask has mode RGB"


def colour_of_an_unlisted_class(root):
    SCENES["colours"][0](root)
    write(root / "classes.txt", "background\nroad")
    return r"/labelmap\.txt: 'tree' \(#008000\) is not in classes\.txt; add the name there"


def value_of_an_unlisted_class(root):
    SCENES["masks of Roboflow"][0](root)
    write(root / "classes.txt", "background\nroad")
    return r"train/_classes\.csv: 'tree' \(value 9\) is not in classes\.txt; add the name there"


def one_colour_for_two(root):
    SCENES["colours"][0](root)
    write(root / "labelmap.txt", scenes.LABELMAP.replace("0,128,0", "128,64,128"))
    return (
        r"labelmap\.txt: 'road' and 'tree' are both #804080, so .* --config\.data\.merge_classes="
    )


def one_listed_colour_for_two(root):
    SCENES["colours in classes.txt"][0](root)
    write(root / "classes.txt", "background #000000\nroad #008000\ntree #008000")
    return r"classes\.txt: 'road' and 'tree' are both #008000"


def one_colour_in_two_files(root):
    SCENES["colours"][0](root)
    write(root / "classes.txt", "background\nroad\ntree #804080")
    return r"labelmap\.txt and .*classes\.txt: 'road' and 'tree' are both #804080"


def one_value_for_two(root):
    SCENES["masks of Roboflow"][0](root)
    for split in ("train", "valid"):
        write(root / split / "_classes.csv", scenes.VALUES.replace("9, tree", "5, tree"))
    return r"train/_classes\.csv: 'road' and 'tree' are both value 5"


@pytest.mark.parametrize(
    "spoil",
    [
        contradicting_values, unknown_value, colours_without_a_list, one_coloured_mask,
        colour_of_an_unlisted_class, value_of_an_unlisted_class, one_colour_for_two,
        one_listed_colour_for_two, one_colour_in_two_files, one_value_for_two,
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line_that_names_the_file(tmp_path, capsys, spoil):
    assert_one_line(tmp_path, capsys, spoil)


def test_what_is_said_of_a_mask_names_a_file_of_its_own_split(tmp_path):
    """Records of a split stay as they are while files of another one are mended."""
    root = tmp_path / "data"
    SCENES["colours in classes.txt"][0](root)
    write(root / "classes.txt", "\n".join(NAMES))
    dataset = catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
    for split, number in (("train", 3), ("val", 2)):
        (error,) = dataset.errors([(split, i) for i in range(number)])
        assert f"labels/{split}/photo" in error


def test_one_reason_for_masks_to_train_and_to_measure_with_is_said_once(tmp_path):
    root = tmp_path / "data"
    colour_of_an_unlisted_class(root)
    with pytest.raises(DataError) as caught:
        check.prepare(config_of(root, tmp_path / "prepared"))
    (problem,) = caught.value.problems
    assert problem.startswith("config.data.labeled_split and config.data.eval_split: ")


def test_classes_that_become_one_may_share_a_colour(tmp_path):
    root = tmp_path / "data"
    one_colour_for_two(root)
    for folder, names in (("train", scenes.TRAIN), ("val", scenes.VAL)):
        for name, seed in names.items():
            write(root / "labels" / folder / name, scenes.coloured(seed, tree="road"))
    config = config_of(root, tmp_path / "prepared", merge_classes="road=tree")
    dataset = catalog.open_dataset(config.data)
    assert dataset.class_names == ("background", "road")
    for example, mask in masks_of(dataset).items():
        np.testing.assert_array_equal(mask, scenes.mask(int(example.split()[1]), tree=1))
