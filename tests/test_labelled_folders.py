"""data/folder/: folders as labelling tools leave them become the same data set."""

from __future__ import annotations

from pathlib import Path

import labelled_scenes as scenes
import numpy as np
import pytest
from labelled_scenes import SCENES, write
from PIL import Image
from test_data import folder_config

from data import DataError, catalog, masks
from data.errors import counted
from data.folder import labels, named_photos, places
from data.folder.named_photos import names_in
from rc2l_jax.input_pipeline import train_batches
from rc2l_jax.input_pipeline.subsets import listed, open_subsets
from rc2l_jax.training import check

NAMES = ("background", "road", "tree")


def config_of(root, prepared, **data):
    splits = {"labeled_split": "train", "unlabeled_split": "unlabeled"}
    config = folder_config(root, prepared, name="folder", **{"num_classes": 0} | splits | data)
    config.unsup_weight = 0.0
    return config


def seed_of(example):
    return int(example.split()[1])


def masks_of(dataset):
    """Split/id of each example -> its mask."""
    found = {}
    for split, ids in dataset.ids.splits.items():
        keys = [(split, index) for index in range(len(ids))]
        assert not dataset.errors(keys)
        _, labels = dataset.fetch(keys, labels=True)
        found |= {f"{split}/{id}": masks.decode_mask(label) for id, label in zip(ids, labels)}
    return found


def contents(root):
    return {path: path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", SCENES)
def test_every_format_makes_the_same_masks_and_changes_no_file(tmp_path, name):
    root = tmp_path / "data"
    scene, found = SCENES[name]
    scene(root)
    before = contents(root)
    config = config_of(root, tmp_path / "prepared")
    dataset = catalog.open_dataset(config.data)
    assert dataset.class_names == NAMES and config.data.num_classes == 3
    assert set(dataset.ids.splits) == {"train", "val"}
    made = masks_of(dataset)
    assert len(made) == 5
    for example, mask in made.items():
        np.testing.assert_array_equal(mask, scenes.mask(seed_of(example)), err_msg=example)
    (note,) = (note for note in dataset.notes if ": masks: " in note)
    assert found in note
    assert contents(root) == before


def test_classes_of_ones_own_decide_the_ids_and_without_background_the_rest_is_void(tmp_path):
    scenes_with = {
        "YOLO": "data.yaml's numbers",
        "COCO, one file": "COCO's",
        "Labelme's files in labels": "",
    }
    for number, name in enumerate(scenes_with):
        root = tmp_path / str(number)
        SCENES[name][0](root)
        write(root / "classes.txt", "tree\nhouse\nroad\n")
        dataset = catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
        assert dataset.class_names == ("tree", "house", "road")
        assert any("pixels that nobody annotated are void" in note for note in dataset.notes)
        for example, mask in masks_of(dataset).items():
            expected = scenes.mask(seed_of(example), road=2, tree=0, rest=255)
            np.testing.assert_array_equal(mask, expected, err_msg=f"{name} {example}")


@pytest.mark.parametrize("background", ["_background_", "Background", "__background__"])
def test_the_rest_is_the_background_by_any_of_its_names(tmp_path, background):
    root = tmp_path / "data"
    SCENES["CVAT"][0](root)
    write(root / "classes.txt", f"__ignore__\nroad\ntree\n{background}")
    dataset = catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
    assert dataset.class_names == ("road", "tree", background)
    assert any(f"pixels that nobody annotated are '{background}'" in x for x in dataset.notes)
    for example, mask in masks_of(dataset).items():
        expected = scenes.mask(seed_of(example), road=0, tree=1, rest=2)
        np.testing.assert_array_equal(mask, expected)


def test_a_changed_annotation_or_list_of_classes_is_prepared_anew(tmp_path):
    root = tmp_path / "data"
    SCENES["COCO, one file"][0](root)
    config = config_of(root, tmp_path / "prepared")
    before = catalog.open_dataset(config.data).records("train").path
    assert catalog.open_dataset(config.data).records("train").path == before
    write(root / "annotations.json", scenes.coco(dict.fromkeys(scenes.ALL, 1)))
    dataset = catalog.open_dataset(config.data)
    assert dataset.records("train").path != before
    for mask in masks_of(dataset).values():
        np.testing.assert_array_equal(mask, scenes.mask(1))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("C:\\photos\\a\\1.jpg", "a/1"),
        ("../images/train/a/1.JPG", "a/1"),
        ("/data/upload/3/0123abcd-cat%20one.jpg", "cat one"),
        ("/data/local-files/?d=mine/a/1.png", "a/1"),
        ("https://example.org/x/cat.webp?size=3", "cat"),
        ("s3://bucket/cafe\u0301.jpg", "caf\u00e9"),
        ("deadbeef-cat", "cat"),
        ("v1.2 cat", "v1.2 cat"),
    ],
)
def test_a_photo_is_known_by_the_end_of_its_path_or_address(name, expected):
    assert expected in list(names_in(name))


def meant(root, listed, there):
    """The photos that are there -> the name by which COCO's file means it."""
    for name in there:
        scenes.photo(root / name, 0)
    write(root / "export.json", scenes.coco(dict.fromkeys(listed, 0)))
    found = places.find(root)
    of_it = labels.find(found, ()).of
    return {found.photos[s][id]: label.annotated.photo for (s, id), label in of_it.items()}


CAMERAS = [f"cam{camera}/000{number}.png" for camera in (1, 2) for number in (1, 2)]


@pytest.mark.parametrize("folder", ["", "images/train/"])
@pytest.mark.parametrize("unlisted", ["cam1/0003.png", "cam1/0001.png"])
def test_a_photo_that_was_deleted_is_not_that_of_another_folder(tmp_path, folder, unlisted):
    there = {*CAMERAS, unlisted, "cam3/0001.png"} - {"cam2/0001.png"}
    listed = {*CAMERAS} - {unlisted}
    expected = {folder + name: name for name in listed & there}
    assert meant(tmp_path, listed, [folder + name for name in there]) == expected


def test_folders_of_another_machine_do_not_matter(tmp_path):
    there = [f"images/train/{name}" for name in CAMERAS[:2]]
    assert len(meant(tmp_path, ["C:\\mine\\0001.png", "C:\\mine\\0002.png"], there)) == 2


def test_photos_are_looked_up_once_for_all_files_that_name_them(tmp_path, monkeypatch):
    """Names of the photos are indexed once, not for each of thousands of files."""
    indexed = []
    index = named_photos.places_by_text
    monkeypatch.setattr(
        named_photos, "places_by_text", lambda *of: indexed.append(of) or index(*of)
    )
    for number in range(3):
        scenes.photo(tmp_path / f"images/train/{number}.png", 0)
        labelme = scenes.labelme(f"{number}.png", 0)
        write(tmp_path / f"labels/train/mine{number}.json", labelme)
    of_it = labels.find(places.find(tmp_path), ()).of
    assert {id for _, id in of_it} == {"0", "1", "2"} and len(indexed) == 1


def test_photos_that_were_moved_to_another_split_keep_their_masks(tmp_path):
    listed = ["images/train/a.png", "images/train/b.png"]
    there = ["images/train/a.png", "images/val/b.png"]
    assert meant(tmp_path, listed, there) == dict(zip(there, listed))


def test_of_two_names_that_may_mean_a_photo_that_with_its_folder_counts(tmp_path):
    listed = ["train/a.png", "val/a.png"]
    assert meant(tmp_path, listed, ["images/train/a.png"]) == {"images/train/a.png": "train/a.png"}


def test_names_with_the_folders_as_they_are_called_mean_one_photo(tmp_path):
    there = ["train/images/a.png", "valid/images/a.png"]
    assert meant(tmp_path, there, there) == dict(zip(there, there))


@pytest.mark.parametrize("name", ["50%20off", "a%2Fb", "100%", "%41"])
def test_a_name_may_hold_what_addresses_quote(tmp_path, name):
    there = [f"{name}.png", f"cam%201/the {name}.png"]
    assert meant(tmp_path, there, there) == dict(zip(there, there))


def test_masks_are_drawn_anew_when_annotations_are_understood_otherwise(tmp_path, monkeypatch):
    SCENES["Supervisely"][0](tmp_path / "drawn")
    labelled_photos(tmp_path / "painted", range(3))

    def records(name):
        dataset = catalog.open_dataset(config_of(tmp_path / name, tmp_path / "prepared").data)
        return dataset.records("train").path

    before = records("drawn"), records("painted")
    monkeypatch.setattr("data.annotations.drawing.VERSION", "another")
    assert records("drawn") != before[0] and records("painted") == before[1]


@pytest.mark.parametrize("name", ["Labelme's files in one folder", "COCO, one file"])
def test_prepare_says_what_it_found_and_makes_what_training_reads(tmp_path, capsys, name):
    root, prepared = tmp_path / "data", tmp_path / "prepared"
    scene, found = SCENES[name]
    scene(root)
    config = config_of(root, prepared)
    check.prepare(config)
    printed = capsys.readouterr().out
    before = contents(prepared)
    data = open_subsets(config)
    notes = [line for line in printed.splitlines() if line.startswith("note: ")]
    assert notes == [f"note: {note}" for note in data.dataset.notes] and found in notes[0]
    assert ("are held back as 'val'" in printed) == (name != "COCO, one file")
    batch = next(train_batches.train_batches(config, data, 0, 1))
    assert (batch.image.shape[1], contents(prepared)) == (config.batch_size, before)
    for split, ids in data.dataset.ids.splits.items():
        path = data.dataset.records(split).path
        assert f"folder {split}: {counted(len(ids), 'example')} in {path}\n" in printed
        assert path.is_dir()
    for example, mask in masks_of(data.dataset).items():
        np.testing.assert_array_equal(mask, scenes.mask(seed_of(example)))


# Splits.


def labelled_photos(root, numbers):
    for number in numbers:
        scenes.photo(root / "images" / "train" / f"{number}.png", number)
        write(root / "labels" / "train" / f"{number}.png", scenes.png(scenes.mask(number % 5)))
    write(root / "classes.txt", "\n".join(NAMES))


def test_a_fifth_is_held_back_and_stays_so_when_photos_are_added(tmp_path, capsys):
    root, prepared = tmp_path / "data", tmp_path / "prepared"
    labelled_photos(root, range(40))
    config = config_of(root, prepared)
    check.check(config)
    before = catalog.open_dataset(config.data).ids.splits
    count = len(before["val"])
    assert 3 <= count <= 13
    line = f"does not exist: {count} of the 40 labelled photos of 'train', drawn with seed 0"
    assert line in capsys.readouterr().out
    labelled_photos(root, range(40, 80))
    after = catalog.open_dataset(config_of(root, prepared).data).ids.splits
    assert set(before["val"]) < set(after["val"]) and set(before["train"]) < set(after["train"])
    assert 0.1 < len(after["val"]) / 80 < 0.32


def test_the_lists_of_a_run_name_what_was_held_back_again(tmp_path):
    root, prepared = tmp_path / "data", tmp_path / "prepared"
    labelled_photos(root, range(12))
    data = open_subsets(config_of(root, prepared))
    ids = data.dataset.ids
    config = config_of(root, prepared)
    for name, text in listed(data).items():
        (tmp_path / f"{name}.txt").write_text(text)
    config.data.labeled_split = str(tmp_path / "labeled.txt")
    config.data.eval_split = str(tmp_path / "evaluation.txt")
    again = open_subsets(config)
    for name in ("labeled", "evaluation"):
        before, after = getattr(data.subsets, name), getattr(again.subsets, name)
        assert {*map(ids.id, before)} == {*map(again.dataset.ids.id, after)} != set()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_of_a_few_photos_some_are_held_back_and_some_are_not(tmp_path, count):
    labelled_photos(tmp_path / "data", range(count))
    splits = catalog.open_dataset(config_of(tmp_path / "data", tmp_path / "p").data).ids.splits
    assert splits["val"] and splits["train"]


def test_photos_without_labels_among_labelled_ones_are_unlabelled(tmp_path):
    root = tmp_path / "data"
    SCENES["Labelme's files beside the photos"][0](root)
    for seed in range(5, 9):
        scenes.photo(root / "images" / "train" / f"new {seed}.png", seed)
    config = config_of(root, tmp_path / "prepared")
    config.unsup_weight = 1.0
    dataset, subsets = open_subsets(config)
    assert (len(subsets.labeled), len(subsets.unlabeled), len(subsets.evaluation)) == (3, 4, 2)
    assert any("4 photos of 'train' without labels make the split 'unl" in x for x in dataset.notes)


def test_photos_without_labels_stay_an_error_where_labels_have_a_folder(tmp_path):
    root = tmp_path / "data"
    SCENES["Labelme's files in labels"][0](root)
    scenes.photo(root / "images" / "train" / "new 5.png", 5)
    config = config_of(root, tmp_path / "prepared")
    with pytest.raises(DataError, match="1 problem found"):
        check.check(config)


def test_masks_may_lie_beside_photos_of_another_suffix(tmp_path):
    root = tmp_path / "data"
    for seed in range(3):
        scenes.photo(root / f"{seed} {seed}.jpg", seed)
        write(root / f"{seed} {seed}.png", scenes.png(scenes.mask(seed)))
    write(root / "classes.txt", "\n".join(NAMES))
    dataset = catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
    made = masks_of(dataset)
    assert {len(ids) for ids in dataset.ids.splits.values()} == {1, 2}
    for example, mask in made.items():
        np.testing.assert_array_equal(mask, scenes.mask(seed_of(example)))


def test_shapes_drawn_on_a_photo_as_it_is_stored_are_turned_along(tmp_path):
    root = tmp_path / "data"
    SCENES["COCO, one file"][0](root)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = root / "images" / "train" / "photo 1 é.png"
    with Image.open(file) as opened:
        opened.save(file, exif=exif)
    dataset = catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
    made = masks_of(dataset)["train/photo 1 é"]
    np.testing.assert_array_equal(made, np.rot90(scenes.mask(1), -1))
    assert any(note.endswith("their masks: 1 turned along") for note in dataset.notes)
