"""data/voc_semseg/ and data/download.py, on replicas of the official files of VOC 2012 and SBD."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import replicas
from replicas import mask_of
from test_data import folder_config

from data import DataError, catalog, masks
from data.voc_semseg import sbd
from data.voc_semseg import voc_semseg_dataset_builder as voc
from rc2l_jax.input_pipeline import eval_batches, train_batches
from rc2l_jax.input_pipeline.subsets import open_split, open_subsets

COUNTS = {"train": 14, "val": 9, "aug": 20}
IDS = replicas.voc_ids(COUNTS)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Replicas here have fewer images than the official data set; test_configs.py has them all."""
    monkeypatch.setattr(voc, "COUNTS", COUNTS)


def voc_config(root, prepared, **data):
    texts = {"labeled_split": "train#4@0", "unlabeled_split": "train#rest4@0+aug"}
    return folder_config(root, prepared, name="voc_semseg", num_classes=21, **(texts | data))


def archives(root, ids=IDS):
    replicas.write_tar(root / voc.VOC.name, replicas.voc_files(ids), "VOCdevkit/VOC2012")
    replicas.write_tar(root / "benchmark.tgz", replicas.sbd_files(ids), "benchmark_RELEASE/dataset")
    return root


def unpacked(root, masks_folder="SegmentationClass", lists=True):
    """Writes all masks as PNG files to one folder, as users of UniMatch have them."""
    files = [f for f in replicas.voc_files(IDS) if lists or not f[0].startswith("ImageSets")]
    files += [(f"SegmentationClass/{n}.png", replicas.encode(mask_of(n, 21))) for n in IDS["aug"]]
    moved = [(name.replace("SegmentationClass", masks_folder), content) for name, content in files]
    return replicas.write_folder(root, moved)


def official(root):
    """Writes the content of both archives to where people unpack them."""
    replicas.write_folder(root / "VOCdevkit" / "VOC2012", replicas.voc_files(IDS))
    replicas.write_folder(root / "benchmark_RELEASE" / "dataset", replicas.sbd_files(IDS))
    return root


LAYOUTS = {
    "archives": archives,
    "unpacked": official,
    "unimatch": unpacked,
    "aug folder": lambda root: unpacked(root, "SegmentationClassAug"),
    "spaces and ü": lambda root: archives(root / "my dätä set"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_data_set(layout, tmp_path):
    root = LAYOUTS[layout](tmp_path / "voc")
    dataset = catalog.open_dataset(voc_config(root, tmp_path / "prepared").data)
    assert dataset.ids.splits == IDS
    assert len(dataset.ids.keys("trainaug")) == COUNTS["train"] + COUNTS["aug"]
    for split, names in IDS.items():
        keys = [(split, i) for i in range(len(names))]
        images, labels = dataset.fetch(keys, labels=True)
        for name, image, label in zip(names, images, labels):
            assert image == replicas.image_of(name)
            expected = mask_of(name, 21)
            if split == "aug" and layout not in ("unimatch", "aug folder"):
                expected[expected == 255] = 0  # SBD's masks have no border
            np.testing.assert_array_equal(masks.decode_mask(label), expected)


def test_a_batch_comes_out_of_the_archives(tmp_path):
    config = voc_config(archives(tmp_path / "voc"), tmp_path / "prepared")
    batch = next(train_batches.train_batches(config, open_subsets(config), 0, 1))
    assert batch.image.shape == batch.unlabeled_image.shape == (1, 2, 32, 32, 3)
    assert set(np.unique(batch.label)) > {0, 255}
    assert len(np.unique(batch.label)) >= 3


def test_runs_without_aug_need_no_sbd(tmp_path):
    root = archives(tmp_path / "voc")
    (root / "benchmark.tgz").write_bytes(b"never read")
    config = voc_config(root, tmp_path / "prepared", unlabeled_split="train#rest4@0")
    assert list(catalog.open_dataset(config.data).ids.splits) == ["train", "val"]
    (root / "benchmark.tgz").unlink()
    config = voc_config(root, tmp_path / "prepared")
    with pytest.raises(DataError, match=r"unlabeled_split = 'aug': .*no masks of SBD") as error:
        open_subsets(config)
    assert sbd.ARCHIVE.urls[0] in str(error.value)


def test_without_the_official_lists_the_runs_splits_are_list_files(tmp_path):
    root = unpacked(tmp_path / "voc", lists=False)
    config = voc_config(root, tmp_path / "prepared", labeled_split="train#4@0")
    with pytest.raises(DataError, match=r"'train#4@0': .* has no train.txt and val.txt, so all"):
        open_subsets(config)
    for split, names in IDS.items():
        lines = [f"JPEGImages/{n}.jpg SegmentationClass/{n}.png\n" for n in names]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    texts = {f"{kind}_split": str(tmp_path / f"{split}.txt") for kind, split in
             (("labeled", "train"), ("unlabeled", "aug"), ("eval", "val"))}  # fmt: skip
    _, subsets = open_subsets(voc_config(root, tmp_path / "prepared", **texts))
    counts = [len(keys) for keys in subsets.named().values()]
    assert counts == [COUNTS["train"], COUNTS["aug"], COUNTS["val"]]


def test_a_prepared_copy_needs_no_files(tmp_path):
    root = archives(tmp_path / "voc")
    config = voc_config(root, tmp_path / "prepared")
    first = next(train_batches.train_batches(config, open_subsets(config), 0, 1))
    next(eval_batches.eval_batches(config, open_split(config), 1))
    shutil.rmtree(root)
    config.data.dir = ""
    again = next(train_batches.train_batches(config, open_subsets(config), 0, 1))
    np.testing.assert_array_equal(again.image, first.image)
    config.data.labeled_split = "extra#2@0"
    with pytest.raises(DataError, match="no split 'extra'; use one of: aug, train, val, trainaug"):
        open_subsets(config)


# Bad input.


def test_another_archive_under_the_official_name(tmp_path):
    root = tmp_path / "voc"
    replicas.write_tar(root / voc.VOC.name, replicas.voc_files(IDS), "VOCdevkit/VOC2007")
    with pytest.raises(
        DataError, match=r"is not VOCtrainval.*VOCdevkit/VOC2007/ImageSets"
    ) as caught:
        open_subsets(voc_config(root, tmp_path / "prepared"))
    assert voc.VOC.md5 in str(caught.value)
    archives(root)
    replicas.write_tar(root / "benchmark.tgz", [("a", b"")], "benchmark_RELEASE/code")
    with pytest.raises(DataError, match=r"benchmark.tgz: is not SBD's"):
        open_subsets(voc_config(root, tmp_path / "prepared"))


@pytest.mark.parametrize("name", [voc.VOC.name, "benchmark.tgz"])
def test_an_archive_that_is_cut_off(tmp_path, name):
    root = archives(tmp_path / "voc")
    whole = (root / name).read_bytes()
    (root / name).write_bytes(whole[: len(whole) // 3])
    with pytest.raises(DataError, match=f"{name}: damaged or cut off .*download or copy it again"):
        open_subsets(voc_config(root, tmp_path / "prepared"))
    assert not list((tmp_path / "prepared").rglob("*.partial"))
    (root / name).write_bytes(b"<html>Sorry</html>")
    with pytest.raises(DataError, match=f"{name}: damaged or cut off"):
        open_subsets(voc_config(root, tmp_path / "prepared"))


def test_an_archive_unpacked_only_in_part(tmp_path):
    root = official(tmp_path / "voc")
    for name in IDS["train"][3:10]:
        (root / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{name}.jpg").unlink()
    with pytest.raises(DataError) as caught:
        open_subsets(voc_config(root, tmp_path / "prepared"))
    (problem,) = caught.value.problems
    assert "7 of the 14 images of 'train' are there (missing: " in problem
    assert ", ".join(IDS["train"][3:8]) + ", ..." in problem
    assert len(open_split(voc_config(root, tmp_path / "prepared")).keys) == COUNTS["val"]
    shutil.rmtree(root / "benchmark_RELEASE" / "dataset" / "cls")
    with pytest.raises(DataError, match="7 of the 14 images"):
        open_subsets(voc_config(root, tmp_path / "prepared"))


def test_missing_and_rgb_masks_are_named_where_they_are_used(tmp_path):
    root = official(tmp_path / "voc")
    folder = root / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    (folder / f"{IDS['train'][1]}.png").unlink()
    (folder / f"{IDS['train'][2]}.png").write_bytes(
        replicas.encode(np.zeros((12, 16, 3), np.uint8))
    )
    config = voc_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="aug")
    with pytest.raises(DataError) as caught:
        train_batches.train_batches(config, open_subsets(config), 0, 1)
    missing, rgb = caught.value.problems
    assert f"{IDS['train'][1]}.png: missing mask" in missing
    assert f"{IDS['train'][2]}.png: the mask has mode RGB" in rgb


def test_a_broken_mat_file_is_named(tmp_path):
    root = official(tmp_path / "voc")
    file = root / "benchmark_RELEASE" / "dataset" / "cls" / f"{IDS['aug'][0]}.mat"
    file.write_bytes(file.read_bytes()[:100])
    config = voc_config(root, tmp_path / "prepared", labeled_split="aug", unlabeled_split="train")
    with pytest.raises(DataError, match=rf"{IDS['aug'][0]}\.mat: cannot be read as one of SBD's"):
        train_batches.train_batches(config, open_subsets(config), 0, 1)


def test_an_empty_folder_says_what_to_put_there(tmp_path):
    (tmp_path / "voc").mkdir()
    with pytest.raises(
        DataError, match=r"holds neither VOCtrainval_11-May-2012.tar nor a folder"
    ) as e:
        open_subsets(voc_config(tmp_path / "voc", tmp_path / "prepared"))
    assert voc.VOC.urls[0] in str(e.value)


# Downloads.


def serve(monkeypatch, folder):
    """Gives both archives two addresses: one of a missing file, and one of a file in `folder`."""
    import hashlib

    for module, name in ((voc, "VOC"), (sbd, "ARCHIVE")):
        archive = getattr(module, name)
        file = folder / archive.name
        md5 = hashlib.md5(file.read_bytes()).hexdigest()
        replaced = voc.Archive(
            archive.name, ((folder / "no such file").as_uri(), file.as_uri()), md5
        )
        monkeypatch.setattr(module, name, replaced)


def test_without_a_folder_the_archives_are_downloaded_once(tmp_path, monkeypatch):
    served = archives(tmp_path / "served")
    serve(monkeypatch, served)
    config = voc_config("", tmp_path / "prepared")
    _, subsets = open_subsets(config)
    assert len(subsets.unlabeled) == COUNTS["train"] + COUNTS["aug"] - 4
    shutil.rmtree(served)
    open_subsets(config)
    assert sorted(f.name for f in voc.downloads(config.data).iterdir()) == [
        voc.VOC.name,
        "benchmark.tgz",
    ]


def test_a_download_that_fails_says_where_to_get_the_file(tmp_path, monkeypatch):
    served = archives(tmp_path / "served")
    serve(monkeypatch, served)
    (served / voc.VOC.name).write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        open_subsets(voc_config("", tmp_path / "prepared"))
    for words in (*voc.VOC.urls, voc.VOC.md5, "config.data.dir"):
        assert words in str(caught.value)


def test_a_failed_download_does_not_hide_prepared_records(tmp_path, monkeypatch):
    config = voc_config(archives(tmp_path / "voc"), tmp_path / "prepared")
    open_subsets(config)
    config.data.dir = ""
    voc.downloads(config.data).mkdir(parents=True)  # what an attempt without a network leaves
    assert len(open_subsets(config)[1].labeled) == 4
