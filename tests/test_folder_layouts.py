"""data/folder/: folders of other names than images/train and labels/train are understood."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import labelled_scenes as scenes
import numpy as np
import pytest
from labelled_scenes import ALL, TRAIN, VAL, write
from test_labelled_folders import NAMES, config_of, masks_of

from data import DataError, catalog, splits
from rc2l_jax.input_pipeline.subsets import listed, open_split, open_subsets
from rc2l_jax.training import check

PARTS = (TRAIN, VAL)
HELD_BACK = "drawn with seed 0 by their names, are held back as 'val'"


def beside(root, *folders):
    """Photos with Labelme's files beside them."""
    for folder, names in zip(folders, PARTS):
        for name, seed in names.items():
            scenes.photo(root / folder / name, seed)
            write(root / folder / f"{Path(name).stem}.json", scenes.labelme(name, seed))


def painted(root, **folders):
    """Folders of masks by the folders of their photos, and classes.txt."""
    for (photos, masks), names in zip(folders.items(), (ALL,) if len(folders) == 1 else PARTS):
        for name, seed in names.items():
            scenes.photo(root / photos / name, seed)
            write(root / masks / name, scenes.png(scenes.mask(seed)))
    write(root / "classes.txt", "\n".join(NAMES))


def supervisely(root):
    for folder, names in zip(("ds1", "ds2"), PARTS):
        for name, seed in names.items():
            scenes.photo(root / folder / "img" / name, seed)
            write(root / folder / "ann" / f"{name}.json", scenes.supervisely(seed))
    write(root / "meta.json", {"classes": [{"title": "road"}, {"title": "tree"}]})


# Name -> what writes it, and the folders that the photos' ids begin with.
SEVERAL = {
    "folders of photos and Labelme's files": (
        lambda root: beside(root, "2024-01", "2024-02"), ("2024-01", "2024-02"),
    ),
    "folders with a space": (
        lambda root: beside(root, "my photos", "photos of May"), ("my photos", "photos of May"),
    ),
    "a project of two data sets": (supervisely, ("ds1", "ds2")),
    "folders in images": (
        lambda root: painted(root, **{"images/day1": "labels/day1", "images/day2": "labels/day2"}),
        ("day1", "day2"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
def test_labelled_folders_without_train_are_train_together(tmp_path, name):
    scene, folders = SEVERAL[name]
    scene(tmp_path / "data")
    dataset = catalog.open_dataset(config_of(tmp_path / "data", tmp_path / "prepared").data)
    ids = dataset.ids.splits
    expected = {f"{f}/{Path(n).stem}" for f, names in zip(folders, PARTS) for n in names}
    assert ids.keys() == {"train", "val"} and ids["train"] and ids["val"]
    assert {*ids["train"], *ids["val"]} == expected and len(expected) == 5
    for example, mask in masks_of(dataset).items():
        np.testing.assert_array_equal(mask, scenes.mask(int(example.split()[-2])), err_msg=example)
    found = f"data: the photos of {', '.join(folders)} are together the split 'train'"
    assert any(found in note for note in dataset.notes)
    assert any(HELD_BACK in note for note in dataset.notes)


def test_equal_names_in_two_folders_are_two_photos(tmp_path):
    for folder in ("a", "b"):
        for seed in range(3):
            road = scenes.labelme("1.png", seed + (folder == "b"))
            scenes.photo(tmp_path / "data" / folder / f"{seed}.png", seed + 10 * (folder == "b"))
            write(tmp_path / "data" / folder / f"{seed}.json", road)
    dataset = catalog.open_dataset(config_of(tmp_path / "data", tmp_path / "prepared").data)
    made = masks_of(dataset)
    assert len(made) == 6
    for example, mask in made.items():
        _, folder, seed = example.split("/")
        np.testing.assert_array_equal(mask, scenes.mask(int(seed) + (folder == "b")))


def test_records_know_photos_by_the_names_that_they_have_now(tmp_path):
    """With a second folder the names of the first one's photos begin with its name."""
    root = tmp_path / "data"
    for folders in (["a"], ["a", "b"]):
        beside(root, *folders)
        dataset = catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
        for split, ids in dataset.ids.splits.items():
            assert [example.id for example in dataset.records(split).examples] == list(ids)
            assert all(id.startswith(("a/", "b/")) == (len(folders) == 2) for id in ids)


@pytest.mark.parametrize("first", ["day1", "images/day1", "train", ""])
def test_a_photo_stays_held_back_or_not_when_folders_are_added(tmp_path, first):
    root = tmp_path / "data"

    def held(folder, seeds):
        for seed in seeds:
            scenes.photo(root / folder / f"{seed}.png", seed)
            write(root / folder / f"{seed}.json", scenes.labelme(f"{seed}.png", 1))
        data = config_of(root, tmp_path / "prepared", labeled_split=of_train).data
        ids = catalog.open_dataset(data).ids.splits
        return {id.removeprefix(f"{Path(first).name}/") for id in ids["val"]}

    of_train = "train"
    before = held(first, range(30))
    of_train = "train+day2" if first == "train" else "train"
    after = held(Path(first).with_name("day2") if first else "day2", range(30, 60))
    assert before and {id for id in after if not id.startswith("day2/")} == before < after


def test_about_a_fifth_is_held_back_where_each_photo_has_a_folder_of_its_own(tmp_path):
    for number in range(40):
        folder = tmp_path / "data" / f"scene{number}"
        scenes.photo(folder / "image.png", number)
        write(folder / "image.json", scenes.labelme("image.png", 1))
    ids = catalog.open_dataset(config_of(tmp_path / "data", tmp_path / "prepared").data).ids.splits
    assert 3 <= len(ids["val"]) <= 13 and len(ids["train"]) == 40 - len(ids["val"])


def test_photos_without_labels_in_several_folders_are_unlabelled(tmp_path):
    root = tmp_path / "data"
    beside(root, "2024-01", "2024-02")
    for folder, seed in (("2024-01", 8), ("2024-02", 9)):
        scenes.photo(root / folder / "new.png", seed)
    config = config_of(root, tmp_path / "prepared")
    config.unsup_weight = 1.0
    for text in ("train", "2024-01+2024-02"):
        config.data.labeled_split = text
        dataset, subsets = open_subsets(config)
        assert dataset.ids.splits["unlabeled"] == ["2024-01/new", "2024-02/new"]
        assert len(subsets.labeled) + len(subsets.evaluation) == 5 and subsets.evaluation


def test_a_sum_of_splits_holds_back_what_their_union_does(tmp_path):
    root = tmp_path / "data"
    supervisely(root)
    union = open_subsets(config_of(root, tmp_path / "prepared"))
    summed = config_of(root, tmp_path / "prepared", labeled_split="ds1 + ds2")
    data = open_subsets(summed)
    assert data.dataset.ids.splits["val"] == union.dataset.ids.splits["val"]
    assert {split for split, _ in data.subsets.labeled} <= {"ds1", "ds2"}
    assert len(data.subsets.labeled) == len(union.subsets.labeled)
    (note,) = (note for note in data.dataset.notes if HELD_BACK in note)
    assert "of the 5 labelled photos of 'ds1' and 'ds2'," in note
    assert open_split(summed).keys == data.subsets.evaluation


def test_the_lists_of_a_run_on_several_folders_name_its_photos_again(tmp_path):
    root = tmp_path / "data"
    beside(root, "2024-01", "2024-02")
    data = open_subsets(config_of(root, tmp_path / "prepared"))
    config = config_of(root, tmp_path / "prepared")
    for name, text in listed(data).items():
        (tmp_path / f"{name}.txt").write_text(text)
    config.data.labeled_split = str(tmp_path / "labeled.txt")
    config.data.eval_split = str(tmp_path / "evaluation.txt")
    again = open_subsets(config)

    def names(run, subset):
        found = (f"{split}/{run.dataset.ids.splits[split][i]}" for split, i in subset)
        return {re.sub(r"^(train|val)/", "", name) for name in found}

    for name in ("labeled", "evaluation"):
        before, after = getattr(data.subsets, name), getattr(again.subsets, name)
        assert names(data, before) == names(again, after) != set()


def test_splits_to_test_with_or_named_elsewhere_stay_what_they_are(tmp_path):
    root = tmp_path / "data"
    beside(root, "day", "testing")
    scenes.photo(root / "night" / "x.png", 9)
    write(root / "night" / "x.json", scenes.labelme("x.png", 1))
    config = config_of(root, tmp_path / "prepared", unlabeled_split="night")
    found = catalog.open_dataset(config.data).ids.splits
    assert found.keys() == {"train", "val", "testing", "night"}
    assert {*found["train"], *found["val"]} == {Path(name).stem for name in TRAIN}
    opened = open_split(config)  # a score is of the photos that were held back from the run
    assert [opened.id(i) for i in range(len(opened.keys))] == list(found["val"])


def test_a_hint_to_hold_back_is_about_all_that_is_named(tmp_path):
    root = tmp_path / "data"
    supervisely(root)
    config = config_of(root, tmp_path / "prepared", labeled_split="ds1#2@0+ds2")
    with pytest.raises(DataError, match=r"hold some of 'ds1' and 'ds2' back: ") as caught:
        open_subsets(config)
    values = dict(re.findall(r"--config\.data\.(\w+)=(\S+)", str(caught.value)))
    config.data.update(values)
    data = open_subsets(config)
    assert len(data.subsets.labeled) == 3 and len(data.subsets.evaluation) == 2
    assert {*splits.bases(values["eval_split"])} == {"ds1", "ds2"}


# Splits of other spellings.


@pytest.mark.parametrize("inner", ["", "images/"])
@pytest.mark.parametrize("year", ["", "2017"])
def test_upper_and_lower_case_of_splits_do_not_matter(tmp_path, inner, year):
    root = tmp_path / "data"
    beside(root, f"{inner}Train{year}", f"{inner}Val")
    scenes.photo(root / inner / "TEST" / "x.png", 9)
    scenes.photo(root / inner / "Unlabeled" / "y.png", 10)
    dataset = catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
    sizes = {split: len(ids) for split, ids in dataset.ids.splits.items()}
    assert sizes == {"train": 3, "val": 2, "test": 1, "unlabeled": 1}
    asked = config_of(root, tmp_path / "prepared", eval_split="Val")  # by its name
    assert {*catalog.open_dataset(asked.data).ids.splits} == {"train", "Val", "test", "unlabeled"}


def test_labels_may_spell_a_split_otherwise_than_photos(tmp_path):
    root = tmp_path / "data"
    painted(root, **{"images/Train": "labels/train", "images/val": "labels/VAL"})
    made = masks_of(catalog.open_dataset(config_of(root, tmp_path / "prepared").data))
    assert {example.split("/")[0] for example in made} == {"train", "val"}


@pytest.mark.parametrize("other", ["valid", "validation", "Val", "Testing", "val2017"])
def test_a_second_set_to_evaluate_on_is_never_trained_on(tmp_path, other):
    root = tmp_path / "data"
    beside(root, "day", "val")
    scenes.photo(root / other / "x.png", 9)
    write(root / other / "x.json", scenes.labelme("x.png", 1))
    found = catalog.open_dataset(config_of(root, tmp_path / "prepared").data).ids.splits
    assert {split: len(ids) for split, ids in found.items()} == {"train": 3, "val": 2, other: 1}


@pytest.mark.parametrize("splits", [("train", "val"), ("Train", "Valid"), ("a", "test2017")])
@pytest.mark.parametrize("above", ["set", "images/set"])
def test_splits_in_a_folder_are_not_trained_on_together(tmp_path, above, splits):
    root = tmp_path / "data"
    beside(root, *(f"{above}/{split}" for split in splits))
    config = config_of(root, tmp_path / "prepared")
    with pytest.raises(DataError) as caught:
        catalog.open_dataset(config.data)
    inner = ", ".join(split for split in splits if split != "a")
    assert str(caught.value).startswith(f"{root / above}: has splits of its own ({inner}), and ")
    config.data.labeled_split = "set"  # if they are none
    assert open_subsets(config).evaluation


def test_the_folder_that_an_archive_was_unpacked_to_is_named(tmp_path):
    root = tmp_path / "data"
    painted(root / "set", **{"images/train": "labels/train", "images/val": "labels/val"})
    with pytest.raises(DataError, match=re.escape(f"set config.data.dir to {root / 'set'}")):
        catalog.open_dataset(config_of(root, tmp_path / "prepared").data)


# Names of folders.


@pytest.mark.parametrize("usual", [False, True])
@pytest.mark.parametrize("tool", ["Labelme", "COCO"])
def test_names_as_a_mac_stores_them_are_of_one_photo_each(tmp_path, tool, usual):
    root = tmp_path / "data"
    names = {unicodedata.normalize("NFD", name): seed for name, seed in ALL.items()}
    for name, seed in names.items():
        scenes.photo(root / ("images" if usual else ".") / name, seed)
        if tool == "Labelme":
            write(root / f"{name[:-4]}.json", scenes.labelme(name, seed))
    if tool == "COCO":
        write(root / unicodedata.normalize("NFD", "é.json"), scenes.coco(names))
    data = open_subsets(config_of(root, tmp_path / "prepared"))
    assert len(data.subsets.labeled) + len(data.subsets.evaluation) == 5
    for example, mask in masks_of(data.dataset).items():
        np.testing.assert_array_equal(mask, scenes.mask(int(example.split()[-2])), err_msg=example)


@pytest.mark.parametrize(
    "folders",
    [
        {"photos": "mask"}, {"image": "label"}, {"images": "gt"}, {"Images": "annotation"},
        {"train": "train_masks", "valid": "valid_masks"},
        {"train": "train_labels", "val": "val_labels"},
        {"train_images": "train_gt", "val_images": "val_gt"},
        {"set/a": "set/a_mask", "set/b": "set/b_mask"},
        {"images/train": "mask/train", "images/val": "mask/val"},
    ],
    ids=str,
)  # fmt: skip
def test_folders_of_other_names_are_read(tmp_path, folders):
    painted(tmp_path / "data", **folders)
    dataset = catalog.open_dataset(config_of(tmp_path / "data", tmp_path / "prepared").data)
    made = masks_of(dataset)
    assert len(made) == 5
    for example, mask in made.items():
        np.testing.assert_array_equal(mask, scenes.mask(int(example.split()[-2])), err_msg=example)
    if len(folders) == 2 and "set/a" not in folders:
        assert dataset.ids.splits["val"] == [Path(name).stem for name in VAL]


def test_a_name_that_only_ends_as_masks_do_is_a_name(tmp_path):
    beside(tmp_path / "data", "face_masks", "more")
    made = masks_of(catalog.open_dataset(config_of(tmp_path / "data", tmp_path / "prepared").data))
    assert len(made) == 5 and any("/face_masks/" in example for example in made)


@pytest.mark.parametrize(
    ("photos", "named"), [("images", "If truth holds the labels"), ("days", "one of days, truth")]
)
def test_a_folder_that_was_not_understood_is_named(tmp_path, capsys, photos, named):
    painted(tmp_path / "data", **{photos: "truth"})
    with pytest.raises(DataError, match="1 problem found"):
        check.check(config_of(tmp_path / "data", tmp_path / "prepared"))
    printed = capsys.readouterr().out
    assert "data/labels: no such folder; expected images/{split}/NAME.jpg" in printed
    assert f"{named}" in printed and "call it 'labels'" in printed


def test_a_missing_mask_is_named_where_its_folder_has_the_others(tmp_path):
    root = tmp_path / "data"
    painted(root, train="train_masks", val="val_masks")
    first, second = sorted(TRAIN)[:2]
    (root / "train_masks" / first).unlink()
    dataset = catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
    (error,) = (error for error in dataset.errors([("train", 0), ("train", 1)]) if error)
    masked = root / "train_masks" / f"{Path(first).stem}.png"
    assert error.startswith(f"{masked}: missing mask; add it, or move")
    assert "images" not in error and (root / "train_masks" / second).exists()
    for name in VAL:
        (root / "val_masks" / name).unlink()
    dataset = catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
    (error,) = {*dataset.errors([("val", index) for index in range(len(VAL))])}
    assert error.startswith(f"{root / 'val'}: none of its {len(VAL)} images has a mask; add masks")
    assert str(root / "train_masks" / second) in error
