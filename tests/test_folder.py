"""data/folder/, layout.py, lists.py and orientation.py: users' own images as they come."""

from __future__ import annotations

import errno
import functools
import io
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import replicas
from PIL import Image, ImageOps
from test_data import folder_config

from data import DataError, catalog, masks
from data.images import decode, is_jpeg
from data.orientation import orientation_of
from rc2l_jax.input_pipeline import train_batches
from rc2l_jax.input_pipeline.loading import check_usable
from rc2l_jax.input_pipeline.subsets import describe_subsets, open_subsets
from rc2l_jax.training import check

CLASSES = ("background", "cat", "dog")
IMAGES = ("train/a/1.jpg", "train/a/2.PNG", "train/b/1.jpeg", "val/x.jpg", "val/my photo é.png")


def write_image(path, seed, size=(20, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, format="PNG" if path.suffix.lower() == ".png" else "JPEG")


def mask_of(seed, size=(20, 24)):
    ids = np.zeros(size, np.uint8)
    ids[5:15, 5:15] = 1 + seed % 2
    ids[0] = 255
    return ids


@pytest.fixture
def root(tmp_path):
    """A data set of nested folders, JPEG and PNG, masks with and without palette, a name twice."""
    root = tmp_path / "mein Ordner"
    for seed, name in enumerate(IMAGES):
        write_image(root / "images" / name, seed)
        mask = (root / "labels" / name).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        ids = mask_of(seed)
        mask.write_bytes(replicas.palette_png(ids) if seed % 2 else replicas.encode(ids))
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def own_config(root, prepared, **data):
    texts = {"labeled_split": "train#2@0", "unlabeled_split": "train#rest2@0"}
    return folder_config(root, prepared, name="folder", **({"num_classes": 3} | texts | data))


def test_nested_folders_and_both_kinds_of_masks(root, tmp_path):
    dataset = catalog.open_dataset(own_config(root, tmp_path / "prepared").data)
    assert dataset.class_names == CLASSES
    assert dict(dataset.ids.splits) == {"train": ["a/1", "a/2", "b/1"], "val": ["my photo é", "x"]}
    seeds = {name.rpartition(".")[0]: seed for seed, name in enumerate(IMAGES)}
    for split, names in dataset.ids.splits.items():
        _, labels = dataset.fetch([(split, i) for i in range(len(names))], labels=True)
        for name, label in zip(names, labels):
            np.testing.assert_array_equal(
                masks.decode_mask(label), mask_of(seeds[f"{split}/{name}"])
            )


def test_unlabelled_images_may_lie_anywhere(root, tmp_path):
    photos = tmp_path / "photos"
    for seed, name in enumerate(("2024/01/a.jpg", "2024/02/a.jpg", "b.png", "no image.txt")):
        write_image(photos / name, 100 + seed)
    texts = {"unlabeled_split": "unlabeled+train", "unlabeled_dir": str(photos)}
    config = own_config(root, tmp_path / "prepared", **texts)
    _, subsets = open_subsets(config)
    assert len(subsets.unlabeled) == 3 + 1
    batch = next(train_batches.train_batches(config, open_subsets(config), 0, 1))
    assert batch.unlabeled_image.shape == (1, 2, 32, 32, 3)
    assert (batch.unlabeled_label == 255).all()
    config.data.unlabeled_dir = ""
    with pytest.raises(
        DataError, match=r"'unlabeled': .*_dir is not set.* --config.unsup_weight=0"
    ):
        open_subsets(config)
    config.data.unlabeled_dir = str(tmp_path / "none")
    with pytest.raises(DataError, match=r"none: no such folder; correct config.data.unlabeled_dir"):
        open_subsets(config)
    (root / "images" / "unlabeled").mkdir()
    write_image(root / "images" / "unlabeled" / "z.png", 200)
    config.data.unlabeled_dir = str(photos)
    with pytest.raises(DataError, match="has a split 'unlabeled' of its own; rename"):
        open_subsets(config)
    config.data.unlabeled_dir = ""
    assert len(open_subsets(config)[1].unlabeled) == 1 + 1
    (root / "images" / "unlabeled" / "z.png").unlink()
    config.data.unlabeled_dir = str(tmp_path / "none")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"none: holds no photos; correct"):
        open_subsets(config)


def test_copies_of_labelled_and_of_validation_photos_are_not_unlabelled(root, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "copy.jpg").write_bytes((root / "images" / "train" / "a" / "1.jpg").read_bytes())
    write_image(photos / "new.png", 100)
    texts = {"labeled_split": "train", "unlabeled_split": "unlabeled", "unlabeled_dir": str(photos)}
    config = own_config(root, tmp_path / "prepared", **texts)
    check.check(config)
    printed = capsys.readouterr().out
    assert "unlabeled: 1 example (unlabeled), " in printed
    assert "warning: 1 unlabelled image left out: labelled as well, or a copy" in printed
    evaluated = (root / "images" / "val" / "my photo é.png").read_bytes()
    (photos / "leak.png").write_bytes(evaluated)
    check.check(config)
    printed = capsys.readouterr().out
    assert "unlabeled: 1 example (unlabeled), " in printed
    assert "warning: 2 unlabelled images left out: labelled as well, or a copy" in printed
    (root / "images" / "train" / "a" / "2.PNG").write_bytes(evaluated)
    mask = (root / "labels" / "val" / "my photo é.png").read_bytes()
    (root / "labels" / "train" / "a" / "2.png").write_bytes(mask)
    with pytest.raises(DataError, match="train/a/2 is a copy of val/my photo é"):
        open_subsets(config)


def test_images_in_no_folder_are_one_split(root, tmp_path):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            for file in sorted((root / kind / split).rglob("*")):
                if file.is_file():
                    file.rename(root / kind / f"{split}{file.parent.name}{file.name}")
    for folder in sorted(root.rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    (tmp_path / "train.txt").write_text("traina1\ntraina2.PNG")
    (tmp_path / "val.txt").write_text("images/valvalx.jpg\nvalvalmy photo é.png")
    config = own_config(root, tmp_path / "prepared", labeled_split=str(tmp_path / "train.txt"))
    config.data.eval_split, config.data.unlabeled_split = str(tmp_path / "val.txt"), ""
    config.unsup_weight = 0.0
    dataset, subsets = open_subsets(config)
    assert list(dataset.ids.splits) == ["all"]
    assert len(subsets.labeled) == len(subsets.evaluation) == 2


def test_a_name_in_two_folders_needs_its_folder(root, tmp_path):
    listed = tmp_path / "list.txt"
    config = own_config(root, tmp_path / "prepared", labeled_split=str(listed))
    config.data.unlabeled_split = "train"
    listed.write_text("1.jpg\n")
    with pytest.raises(DataError, match=r"several images: 1.jpg \(train/a/1 or train/b/1\); write"):
        open_subsets(config)
    listed.write_text("images\\train\\b\\1.jpeg\ntrain/a/1\n")
    _, subsets = open_subsets(config)
    assert subsets.labeled == (("train", 0), ("train", 2))


def test_lines_with_spaces_name_one_image(root, tmp_path):
    listed = tmp_path / "list.txt"
    lines = ("my photo é", "my photo é.png", "images/val/my photo é.png labels/val/my photo é.png",
             "val/my photo é.png\tlabels/val/my photo é.png")  # fmt: skip
    for line in lines:
        listed.write_text(line, encoding="utf-8")
        config = own_config(root, tmp_path / "prepared", eval_split=str(listed))
        assert open_subsets(config)[1].evaluation == (("val", 0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "classes.txt: missing; write the names"),
        ("a\n\nb", "line 2 is empty, but every line is a class id"),
        ("a\nb\na", "names a twice"),
        ("a", "names 1 class; use 2 to 254"),
        ("0: sky\n1: tree", "begins with a number.* first for id 0: 'sky', not '0: sky'"),
        ("1 sky\n2 tree", "begins with a number.* first for id 0: 'sky', not '1 sky'"),
        ("2 wheeler\n0\n3d", r"classes.txt names 3 classes and .*num_classes is 2: correct which"),
        ("\n".join(map(str, range(255))), "names 255 classes; use 2 to 254"),
        (b"\xff\xfea\x00", "cannot be read as a text file"),
    ],
)
def test_a_list_of_classes_that_cannot_be_used(root, tmp_path, text, message):
    file = root / "classes.txt"
    file.unlink()
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        catalog.open_dataset(own_config(root, tmp_path / "prepared", num_classes=2).data)


def test_ids_without_a_name_and_names_that_void_does_not_need(root, tmp_path, capsys):
    config = own_config(root, tmp_path / "prepared", num_classes=2, labeled_split="train")
    config.unsup_weight = 0.0
    (root / "classes.txt").write_text("background\nVoid")
    with pytest.raises(DataError, match="2 problems found"):
        check.check(config)
    printed = capsys.readouterr().out
    assert "classes.txt lists Void, which is learned as any other class; pixels that" in printed
    assert "ids [2] are neither classes 0..1 nor 255 (void); remap them (or, in a f" in printed


def test_255_as_a_class_is_noticed(root, tmp_path):
    """Drawing programs write binary masks as 0 and 255."""
    for name in IMAGES:
        mask = (root / "labels" / name).with_suffix(".png")
        mask.write_bytes(replicas.encode(np.where(mask_of(0) == 1, np.uint8(255), np.uint8(0))))
    config = own_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight = 0.0
    with pytest.raises(DataError, match=r"show 1 class, and 20.8% of their pixels are 255"):
        check.check(config)


def test_masks_that_are_mostly_void_are_noticed(root, tmp_path, capsys):
    config = own_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight = 0.0
    check.check(config)
    assert "(void): nothing is learned" not in capsys.readouterr().out
    for name in IMAGES:
        mask = (root / "labels" / name).with_suffix(".png")
        ids = masks.read_ids(mask.read_bytes(), str(mask)).copy()
        ids[8:] = 255
        mask.write_bytes(replicas.encode(ids))
    check.check(config)
    printed = capsys.readouterr().out
    for split in ("labeled", "evaluation"):
        assert f"warning: {split}: 65.0% of the masks' pixels are 255 (void): nothing" in printed


def test_a_folder_name_that_cannot_be_a_split_is_named(root, tmp_path):
    (root / "images" / "train").rename(root / "images" / "train set")
    with pytest.raises(DataError, match="train set: a split's name may hold letters"):
        catalog.open_dataset(own_config(root, tmp_path / "prepared").data)


def test_a_mask_that_is_turned_against_its_photo_is_explained(root, tmp_path):
    mask = root / "labels" / "train" / "a" / "1.png"
    mask.write_bytes(replicas.encode(mask_of(0).T))
    config = own_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight = 0.0
    with pytest.raises(DataError, match=r"is 20x24 and its image 24x20 .*; one of them is turned"):
        train_batches.train_batches(config, open_subsets(config), 0, 1)


# What is damaged, mixed up or turned.


def test_records_of_two_folders_are_never_mixed(root, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(root, other)
    (other / "images" / "val").rename(other / "images" / "extra")
    (other / "labels" / "val").rename(other / "labels" / "extra")
    prepared = tmp_path / "prepared"
    catalog.open_dataset(own_config(root, prepared).data).records("val")
    catalog.open_dataset(own_config(other, prepared).data).records("extra")
    with pytest.raises(DataError, match=r"are not of one data set; set config.data.dir"):
        catalog.open_dataset(own_config("", prepared).data)


def test_renamed_classes_are_prepared_anew(root, tmp_path):
    config = own_config(root, tmp_path / "prepared")
    before = catalog.open_dataset(config.data).records("val")
    (root / "classes.txt").write_text("\n".join(reversed(CLASSES)))
    after = catalog.open_dataset(config.data).records("val")
    assert after.class_names == before.class_names[::-1]


def test_a_changed_mask_changes_what_a_run_says_of_its_images(root, tmp_path):
    def used():
        config = own_config(root, tmp_path / "prepared", labeled_split="train")
        config.unsup_weight = 0.0
        return describe_subsets(config, *open_subsets(config))

    before = used()
    mask = root / "labels" / "train" / "a" / "1.png"
    mask.write_bytes(replicas.encode(mask_of(1)))
    after = used()
    assert before["labeled"]["checksum"] == after["labeled"]["checksum"]
    assert before["labeled"]["content"] != after["labeled"]["content"]
    assert before["evaluation"] == after["evaluation"]


def test_a_message_names_the_folder_as_it_is_now(root, tmp_path):
    (root / "labels" / "train" / "a" / "1.png").unlink()
    config = own_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight = 0.0
    before = catalog.open_dataset(config.data).records("train")
    moved = root.rename(tmp_path / "moved")
    for now, named in ((moved, f"{moved}/labels/train/a/1.png: missing"), ("", "labels/train/a/1")):
        config.data.dir = str(now)
        after = catalog.open_dataset(config.data).records("train")
        assert after.path == before.path
        (error,) = filter(None, (example.label_error for example in after.examples))
        assert error.startswith(named)


def test_a_check_tells_where_records_lie_and_which_are_of_no_use(root, tmp_path, capsys):
    prepared = tmp_path / "prepared"
    config = own_config(root, prepared, labeled_split="train#1@0", unlabeled_split="train")
    first = catalog.open_dataset(config.data).records("train").path
    check.check(config)
    printed = capsys.readouterr().out
    assert f"folder train: 3 examples in {first}" in printed and "other cop" not in printed
    other = tmp_path / "other"  # another folder: its records are no earlier state of this one's
    shutil.copytree(root, other)
    (other / "labels" / "train" / "a" / "1.png").write_bytes(replicas.encode(mask_of(1)))
    catalog.open_dataset(own_config(other, prepared).data).records("train")
    (root / "labels" / "train" / "a" / "1.png").write_bytes(replicas.encode(mask_of(1)))
    shutil.copytree(first, first.with_name("1.0.0"))
    check.prepare(config)
    printed = capsys.readouterr().out
    assert (
        "1 other copy of these splits, made from earlier files or with other settings (0."
        in printed
    )
    assert f"still reads them, in {prepared / 'folder'}: {first.parent.name}\n" in printed
    assert str(first) not in printed and first.is_dir()


def test_masks_of_no_image_are_counted_once(root, tmp_path, capsys):
    masks_of_train = root / "labels" / "train"
    (masks_of_train / "a" / "1.png").rename(masks_of_train / "a" / "1_L.png")
    (masks_of_train / "b" / "1.png").rename(masks_of_train / "b" / "1.bmp")
    (masks_of_train / "labels.json").write_text("{}")
    config = own_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight = 0.0
    with pytest.raises(DataError, match="2 problems found"):
        check.check(config)
    printed = capsys.readouterr().out
    assert (
        "labels/train holds 2 files that belong to no image, such as a/1_L.png: a mask has its "
        "image's name and ends in .png, or is of a format in docs/masks.md\n" in printed
    )
    assert printed.count("belong to no image") == 1
    assert "1.png: missing mask; add it, or move the photo to the split 'unlabeled'" in printed


def test_a_split_without_masks_is_named_once(root, tmp_path, capsys):
    shutil.rmtree(root / "labels" / "val")
    config = own_config(root, tmp_path / "prepared")
    with pytest.raises(DataError, match="1 problem found"):
        check.check(config)
    printed = capsys.readouterr().out
    assert "labels/val: holds no mask for the 2 images of images/val; put NAME.png th" in printed
    with pytest.raises(DataError) as caught:
        check_usable(catalog.open_dataset(config.data), {"eval_split": [("val", 0), ("val", 1)]})
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("now", ["missing", "empty", "testing"])
def test_a_split_that_is_not_there_is_explained(root, tmp_path, now):
    folder = root / "images" / "val"
    write_image(root / "images" / "unlabeled" / "a.jpg", 9)
    if now == "empty":
        for file in folder.iterdir():
            file.unlink()
    else:
        folder.rename(root / ("elsewhere" if now == "missing" else "images/testing"))
    why = "holds no photo" if now == "empty" else "does not exist"
    there = "testing, train" if now == "testing" else "train"
    with pytest.raises(DataError) as caught:
        open_subsets(own_config(root, tmp_path / "prepared"))
    assert str(caught.value) == (
        f"config.data.eval_split = 'val': {folder} {why}: put photos with masks there, or name "
        f"another split ({there}), or hold some of 'train' back: "
        "--config.data.eval_split=train#1@0 --config.data.labeled_split=train#rest1@0"
    )
    (tmp_path / "list.txt").write_text("train/a/1\n")
    with pytest.raises(
        DataError, match=r"or leave config\.data\.labeled_split at 'train', of whose"
    ):
        open_subsets(own_config(root, tmp_path / "prepared", labeled_split=f"{tmp_path}/list.txt"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_turned_photos_without_masks_are_made_upright(root, tmp_path, suffix, orientation):
    shades = np.add.outer(np.arange(20) * 3, np.arange(30) * 5).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = root / "images" / "unlabeled" / f"photo.{suffix}"
    file.parent.mkdir()
    pixels = np.stack([shades, shades // 2, 255 - shades], axis=2)
    Image.fromarray(pixels).save(file, exif=exif, quality=95)
    dataset = catalog.open_dataset(own_config(root, tmp_path / "prepared").data)
    (image,), _ = dataset.fetch([("unlabeled", 0)], labels=False)
    with Image.open(file) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert orientation_of(image) == 1
    assert is_jpeg(image) == (suffix == "jpg")
    np.testing.assert_allclose(decode(image).astype(int), expected, atol=12)
    example = dataset.example(("unlabeled", 0))
    assert (example.height, example.width) == expected.shape[:2]
    if orientation == 1:
        assert image == file.read_bytes()


def turned_photo(root, orientation, mask):
    """Stores the first photo turned, with this mask; returns its pixels upright."""
    file = root / "images" / "train" / "a" / "1.png"
    (root / "images" / "train" / "a" / "1.jpg").unlink()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(stored).save(file, exif=exif)
    (root / "labels" / "train" / "a" / "1.png").write_bytes(replicas.encode(mask))
    with Image.open(file) as opened:
        return np.asarray(ImageOps.exif_transpose(opened))


def upright(mask, orientation):
    """Pillow's way to turn a mask."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG", exif=exif)
    with Image.open(buffer) as opened:
        return np.asarray(ImageOps.exif_transpose(opened))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("drawn", ["as stored", "upright"])
def test_a_mask_is_turned_along_if_it_fits_the_photo_as_it_is_stored_only(
    root, tmp_path, capsys, orientation, drawn
):
    """Where a mask fits both ways it counts as upright, as most tools show photos."""
    mask = mask_of(1)
    mask[3, 7] = 1
    swapped = orientation > 4
    mask = mask if drawn == "as stored" else upright(mask, orientation)
    expected = upright(mask, orientation) if drawn == "as stored" and swapped else mask
    pixels = turned_photo(root, orientation, mask)
    config = own_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight = 0.0
    check.check(config)
    how = "taken as upright, as it fits both ways"
    if swapped:
        how = "turned along" if drawn == "as stored" else "upright already"
    assert (
        "note: folder train: 1 labelled photo is stored turned (EXIF), such as a/1, and made "
        f"upright; their masks: 1 {how}\n" in capsys.readouterr().out
    )
    dataset = catalog.open_dataset(config.data)
    (image,), (label,) = dataset.fetch([("train", 0)], labels=True)
    np.testing.assert_array_equal(decode(image), pixels)
    np.testing.assert_array_equal(masks.decode_mask(label), expected)


def test_what_is_wrong_with_a_mask_that_fits_the_stored_photo_is_said(root, tmp_path):
    mask = mask_of(1)
    mask[3, 7] = 77
    turned_photo(root, 6, mask)
    config = own_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    (error,) = catalog.open_dataset(config.data).errors([("train", 0)])
    assert "ids [77] are neither classes" in error


def test_masks_of_few_bits_and_capital_suffixes(root, tmp_path):
    mask = root / "labels" / "train" / "a" / "1.png"
    mask.rename(mask.with_suffix(".PNG"))
    config = own_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight = 0.0
    next(train_batches.train_batches(config, open_subsets(config), 0, 1))
    black_and_white = bytearray(replicas.encode(mask_of(0)))
    black_and_white[24] = 4
    header = bytes(black_and_white[12:29])
    black_and_white[29:33] = zlib.crc32(header).to_bytes(4, "big")
    mask.with_suffix(".PNG").write_bytes(black_and_white)
    with pytest.raises(DataError, match=r"1\.PNG: (has fewer than 8 bits|cannot be read)"):
        train_batches.train_batches(config, open_subsets(config), 0, 1)


def test_a_link_that_leads_nowhere_is_named(root, tmp_path):
    (root / "images" / "train" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be opened .*remove the link"):
        open_subsets(own_config(root, tmp_path / "prepared"))


@pytest.mark.parametrize("what", ["data set", "data set above", "CamVid", "unlabelled photos"])
def test_a_folder_that_may_not_be_read_is_named(root, tmp_path, monkeypatch, what):
    """Its names may not be listed, or those above it may not even be searched."""
    folder, config = root, own_config(root, tmp_path / "prepared")
    if what == "CamVid":
        config.data.name = "camvid"
    if what == "unlabelled photos":
        folder = tmp_path / "photos"
        write_image(folder / "a.jpg", 9)
        config.data.unlabeled_dir = str(folder)
    refused = {"listdir", "scandir"} | ({"stat"} if what == "data set above" else set())

    def refuse(does, path=".", *args, **kwargs):
        if isinstance(path, (str, os.PathLike)) and Path(path).is_relative_to(folder):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return does(path, *args, **kwargs)

    for name in refused:
        monkeypatch.setattr(os, name, functools.partial(refuse, getattr(os, name)))
    with pytest.raises(DataError) as caught:
        open_subsets(config)
    (problem,) = caught.value.problems
    assert problem.startswith(
        f"{folder}: cannot be opened (Permission denied); allow reading it, or "
    )
    assert ("config.data.unlabeled_dir" in problem) == (what == "unlabelled photos")


def test_a_pipe_is_named_and_never_waited_for(root, tmp_path):
    os.mkfifo(root / "labels" / "train" / "a" / "pipe.png")
    os.mkfifo(root / "images" / "train" / "a" / "pipe.jpg")
    with pytest.raises(DataError, match=r"pipe\.jpg: is a pipe or a device"):
        open_subsets(own_config(root, tmp_path / "prepared"))


def test_a_jpeg_called_png_is_no_mask(root, tmp_path):
    """Read as a mask, its ids would be nearly right, and nobody would notice."""
    mask = root / "labels" / "train" / "a" / "1.png"
    mask.write_bytes(replicas.encode(mask_of(0), "JPEG"))
    config = own_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight = 0.0
    with pytest.raises(DataError, match=r"1\.png: cannot be read as an image \(not a PNG\)"):
        train_batches.train_batches(config, open_subsets(config), 0, 1)


def test_an_orientation_that_exif_does_not_know_turns_nothing(root, tmp_path):
    file = root / "images" / "train" / "a" / "1.jpg"
    exif = Image.Exif()
    exif[0x0112] = 77
    Image.open(file).save(file, exif=exif)
    config = own_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight = 0.0
    next(train_batches.train_batches(config, open_subsets(config), 0, 1))


def test_an_entry_for_a_missing_file_is_never_another_file(root, tmp_path):
    listed = tmp_path / "list.txt"
    config = own_config(root, tmp_path / "prepared", eval_split=str(listed))
    listed.write_text("x.jpg\nx (2).jpg")
    with pytest.raises(DataError, match=r"1 of 2 entries are not in the data set: x \(2\)\.jpg"):
        open_subsets(config)
    listed.write_text("siteA/x.jpg\nsiteB/x.jpg")
    with pytest.raises(DataError, match=r"name one image: siteA/x\.jpg and siteB/x\.jpg"):
        open_subsets(config)
