"""data/merging.py and `data.num_classes` = 0: which classes a run has, and how many."""

from __future__ import annotations

import labelled_scenes as scenes
import numpy as np
import pytest
from etils import epath
from labelled_scenes import SCENES
from test_data import folder_config, write_folder
from test_labelled_folders import config_of, masks_of, seed_of
from trained import unpack

from data import DataError, catalog, merging
from rc2l_jax.models.maskformer import build_model
from rc2l_jax.run.restore import restore_run
from rc2l_jax.run.stored_config import run_config, stored_config


@pytest.mark.parametrize(
    ("text", "names", "ids"),
    [
        ("", "abcde", [0, 1, 2, 3, 4]),
        ("x=b,d", "axce", [0, 1, 2, 1, 3]),
        ("x = d , b ;y=a,e;", "yxc", [0, 1, 2, 1, 0]),
        ("b=d", "abce", [0, 1, 2, 1, 3]),
        ("__ignore__=a,c", "bde", [255, 0, 255, 1, 2]),
    ],
)
def test_classes_that_become_one(text, names, ids):
    merged = merging.merge("abcde", text)
    assert merged.names == tuple(names)
    assert merged.table[:5].tolist() == ids and (merged.table[5:] == 255).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=b,f", "names 'f', which the data set does not have; its classes are: a, b, c, d, e"),
        ("x=b;y=b", "'b' is in two groups; take it out of one"),
        ("x", r"'x' is not NEW=OLD,OLD; write top=shirt,blouse"),
        ("x=", "'x=' is not NEW=OLD"),
        ("=a", "'=a' is not NEW=OLD"),
        ("x=a,b,c,d,e", "leaves fewer than 2 classes"),
    ],
)
def test_a_merge_that_cannot_be_made(text, message):
    with pytest.raises(DataError, match=f"config.data.merge_classes.*{message}"):
        merging.merge("abcde", text)


@pytest.mark.parametrize("name", ["Label Studio", "colours", "YOLO", "MATLAB"])
def test_classes_are_merged_by_name_in_every_format(tmp_path, name):
    root = tmp_path / "data"
    SCENES[name][0](root)
    config = config_of(root, tmp_path / "prepared", merge_classes="green=tree,background")
    dataset = catalog.open_dataset(config.data)
    assert dataset.class_names == ("green", "road") and config.data.num_classes == 2
    for example, mask in masks_of(dataset).items():
        expected = scenes.mask(seed_of(example), road=1, tree=0)
        np.testing.assert_array_equal(mask, expected)


def test_masks_of_ids_are_merged_and_merges_are_prepared_apart(tmp_path):
    root, prepared = write_folder(tmp_path / "data"), tmp_path / "prepared"
    before = catalog.open_dataset(folder_config(root, prepared).data)
    config = folder_config(root, prepared, num_classes=0, merge_classes="street=road,pavement")
    merged = catalog.open_dataset(config.data)
    assert config.data.num_classes == 10
    names = list(before.class_names)
    names[names.index("road")] = "street"
    names.remove("pavement")
    assert merged.class_names == tuple(names)
    old, new = masks_of(before), masks_of(merged)
    moved = [
        names.index({"road": "street", "pavement": "street"}.get(x, x)) for x in before.class_names
    ]
    for example, mask in old.items():
        expected = np.where(mask == 255, 255, np.array([*moved, *[255] * 245])[mask])
        np.testing.assert_array_equal(new[example], expected)
    assert before.records("train").path != merged.records("train").path


def test_prepared_records_alone_keep_their_merge(tmp_path):
    root, prepared = tmp_path / "data", tmp_path / "prepared"
    SCENES["YOLO"][0](root)
    config = config_of(root, prepared, merge_classes="all=road,tree")
    masks_of(catalog.open_dataset(config.data))
    config.data.dir = ""
    assert catalog.open_dataset(config.data).class_names == ("background", "all")
    config.data.merge_classes = "other=road,tree"
    with pytest.raises(
        DataError, match=r"was made without config.data.merge_classes \(it has no o"
    ):
        catalog.open_dataset(config.data)


# The number of classes.


def test_a_number_that_is_given_must_be_right(tmp_path):
    root = tmp_path / "data"
    SCENES["MATLAB"][0](root)
    config = config_of(root, tmp_path / "prepared", num_classes=3)
    catalog.open_dataset(config.data)
    config.data.num_classes = 4
    with pytest.raises(
        DataError, match=r"classes\.txt names 3 classes .*num_classes is 4: correct"
    ):
        catalog.open_dataset(config.data)
    (root / "classes.txt").unlink()
    for number, name in enumerate(("YOLO", "Label Studio")):
        SCENES[name][0](tmp_path / str(number))
        config = config_of(tmp_path / str(number), tmp_path / "prepared", num_classes=4)
        with pytest.raises(DataError, match=r"names 3 classes and .*num_classes is 4"):
            catalog.open_dataset(config.data)


def test_a_run_knows_its_number(tmp_path):
    run = epath.Path(unpack(tmp_path / "run"))
    config = run_config(run)
    config.data.num_classes = 0
    restore_run(config, run)
    assert config.data.num_classes == 7 == stored_config(run)["data"]["num_classes"]


def test_no_network_is_built_before_the_number_is_known(tmp_path):
    config = config_of(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="num_classes = 0, and no data set was opened"):
        build_model(config)
