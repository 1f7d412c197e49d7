"""data/cityscapes_semseg/, on replicas of the official files: both kinds of ids, folders, zips."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import replicas
from test_data import folder_config

from data import DataError, catalog, masks
from data.cityscapes_semseg import cityscapes_semseg_dataset_builder as cityscapes
from rc2l_jax.input_pipeline import train_batches
from rc2l_jax.input_pipeline.subsets import open_split, open_subsets

COUNTS = {"train": 8, "val": 5, "train_extra": 6}
IDS = replicas.cityscapes_ids(COUNTS)
# id -> trainId in cityscapesScripts' labels.py, written down a second time.
TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12,
    26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(cityscapes, "COUNTS", {s: COUNTS[s] for s in ("train", "val")})


def city_config(root, prepared, **data):
    return folder_config(root, prepared, name="cityscapes_semseg", num_classes=19, **data)


def train_ids_of(example):
    ids = replicas.label_ids_of(example)
    return np.vectorize(lambda i: TRAIN_IDS.get(i, 255))(ids).astype(np.uint8)


def folders(root):
    replicas.write_folder(root, replicas.leftimg8bit_files(IDS))
    return replicas.write_folder(root, replicas.gtfine_files(IDS))


def train_ids_only(root):
    replicas.write_folder(root, replicas.leftimg8bit_files(IDS))
    return replicas.write_folder(root, replicas.gtfine_files(IDS, "labelTrainIds", train_ids_of))


def zip_files(root):
    fine, extra = (
        {s: n for s, n in IDS.items() if (s == "train_extra") is e} for e in (False, True)
    )
    replicas.write_zip(root / "leftImg8bit_trainvaltest.zip", replicas.leftimg8bit_files(fine))
    replicas.write_zip(root / "leftImg8bit_trainextra.zip", replicas.leftimg8bit_files(extra))
    replicas.write_zip(root / "gtFine_trainvaltest.zip", replicas.gtfine_files(IDS))
    return root


@pytest.mark.parametrize("layout", [folders, train_ids_only, zip_files])
def test_every_layout_gives_the_same_data_set(layout, tmp_path):
    root = layout(tmp_path / "city")
    dataset = catalog.open_dataset(city_config(root, tmp_path / "prepared").data)
    assert {split: list(ids) for split, ids in dataset.ids.splits.items()} == IDS
    images = {name.rpartition("/")[2]: content for name, content in replicas.leftimg8bit_files(IDS)}
    for split in ("train", "val"):
        keys = [(split, i) for i in range(COUNTS[split])]
        for name, image, label in zip(IDS[split], *dataset.fetch(keys, labels=True)):
            assert image == images[f"{name}_leftImg8bit.png"]
            np.testing.assert_array_equal(masks.decode_mask(label), train_ids_of(name))


def test_train_extra_serves_as_unlabelled_images(tmp_path):
    root = folders(tmp_path / "city")
    config = city_config(root, tmp_path / "prepared", unlabeled_split="train#rest2@0+train_extra")
    _, subsets = open_subsets(config)
    assert len(subsets.unlabeled) == COUNTS["train"] - 2 + COUNTS["train_extra"]
    assert (
        next(train_batches.train_batches(config, open_subsets(config), 0, 1)).unlabeled_image.shape[
            1
        ]
        == 2
    )
    config.data.labeled_split = "train_extra"
    config.data.unlabeled_split = "train"
    with pytest.raises(DataError, match=r"train_extra/troisdorf/.*_labelIds\.png: missing mask"):
        train_batches.train_batches(config, open_subsets(config), 0, 1)


def test_published_lines_name_the_images(tmp_path):
    root = folders(tmp_path / "city")
    first, second, third, fourth = IDS["train"][:4]
    (tmp_path / "labeled.txt").write_bytes(
        f"leftImg8bit/train/jena/{first}_leftImg8bit.png "
        f"gtFine/train/jena/{first}_gtFine_labelTrainIds.png\r\n"
        f"/images/train/{second}.png\t/segmentation/train/{second}_gtFine.png\r\n"
        f"{third}\r\n"
        f"{fourth}_leftImg8bit".encode()
    )
    config = city_config(root, tmp_path / "prepared")
    config.data.labeled_split, config.data.unlabeled_split = str(tmp_path / "labeled.txt"), "train"
    _, subsets = open_subsets(config)
    assert subsets.labeled == tuple(("train", i) for i in range(4))


def test_of_unknown_names_train_extra_is_blamed_only_where_it_is_missing(tmp_path):
    root = folders(tmp_path / "city")
    (tmp_path / "labeled.txt").write_text("nowhere_000000_000000")
    config = city_config(root, tmp_path / "prepared", labeled_split=f"{tmp_path}/labeled.txt")
    for there in (True, False):
        if not there:
            (root / "leftImg8bit" / "train_extra").rename(tmp_path / "elsewhere")
        with pytest.raises(DataError, match="1 of 1 entries are not in the data set") as caught:
            open_subsets(config)
        assert ("holds no leftImg8bit/train_extra" in str(caught.value)) == (not there)


# Bad input.


@pytest.mark.parametrize("bad", [34, 255])
def test_ids_that_are_no_label_ids_are_refused(tmp_path, bad):
    root = folders(tmp_path / "city")
    name = IDS["train"][0]
    ids = replicas.label_ids_of(name)
    ids[5, 5] = bad
    file = root / "gtFine" / "train" / "jena" / f"{name}_gtFine_labelIds.png"
    file.write_bytes(replicas.encode(ids))
    config = city_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight = 0.0
    with pytest.raises(
        DataError, match=rf"{name}_gtFine_labelIds\.png: ids \[{bad}\] are no label"
    ):
        train_batches.train_batches(config, open_subsets(config), 0, 1)


def test_label_ids_named_as_train_ids_are_refused(tmp_path):
    root = tmp_path / "city"
    replicas.write_folder(root, replicas.leftimg8bit_files(IDS))
    replicas.write_folder(root, replicas.gtfine_files(IDS, "labelTrainIds"))
    config = city_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight = 0.0
    with pytest.raises(DataError, match=r"ids \[19, .* 33\] are neither classes 0\.\.18 nor 255"):
        train_batches.train_batches(config, open_subsets(config), 0, 1)


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(DataError, match=r"config.data.dir is not set.*cityscapes-dataset.com"):
        catalog.open_dataset(city_config("", tmp_path / "prepared").data)
    root = folders(tmp_path / "city")
    config = city_config(root, tmp_path / "prepared")
    (root / "leftImg8bit" / "train" / "jena" / f"{IDS['train'][0]}_leftImg8bit.png").unlink()
    with pytest.raises(DataError, match="7 of the 8 images of leftImg8bit/train are there"):
        open_subsets(config)
    assert len(open_split(config).keys) == COUNTS["val"]  # an evaluation needs no other split
    (root / "gtFine").rename(root / "gtCoarse")
    with pytest.raises(DataError, match=r"neither gtFine nor gtFine_trainvaltest\.zip"):
        catalog.open_dataset(config.data)


def test_a_zip_file_that_is_cut_off(tmp_path):
    root = zip_files(tmp_path / "city")
    file = root / "gtFine_trainvaltest.zip"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"gtFine_trainvaltest\.zip: damaged or cut off"):
        catalog.open_dataset(city_config(root, tmp_path / "prepared").data)


def test_a_damaged_file_in_a_zip_file(tmp_path):
    root = zip_files(tmp_path / "city")
    with zipfile.ZipFile(root / "gtFine_trainvaltest.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in replicas.gtfine_files(IDS):
            archive.writestr(name, content)
        start = archive.infolist()[0].header_offset + 30 + len(archive.infolist()[0].filename)
    content = bytearray((root / "gtFine_trainvaltest.zip").read_bytes())
    content[start : start + 40] = b"\xff" * 40
    (root / "gtFine_trainvaltest.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"gtFine_trainvaltest\.zip: damaged or cut off"):
        open_subsets(city_config(root, tmp_path / "prepared"))
