"""data/ (layout.py, masks.py, catalog.py, shapes/) and rc2l_jax/training/check.py."""

import io
import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageDraw
from shared import shared

from configs import base
from data import DataError, catalog, layout, masks, preparation, published, trees
from data.camvid import camvid_dataset_builder as camvid
from data.folder import places
from data.shapes import drawing
from rc2l_jax.evaluation import evaluate_run, ranking
from rc2l_jax.input_pipeline import eval_batches, train_batches
from rc2l_jax.input_pipeline.subsets import describe_subsets, listed, open_split, open_subsets
from rc2l_jax.training import check, train


def folder_config(root, prepared, **data):
    """The config of a run on a folder with CamVid's layout."""
    config = base.get_config()
    config.batch_size, config.unlabeled_batch_size, config.eval_batch_size = 2, 2, 2
    config.data.update(
        name="camvid", dir=str(root), prepared_dir=str(prepared), num_classes=11, crop_size=32,
        eval_short_edge=32, labeled_split="train#2@0", unlabeled_split="train#rest2@0",
    )  # fmt: skip
    config.data.update(data)
    return config


def write_folder(root, num_train=5, num_val=3, size=(24, 32)):
    """Writes a folder with CamVid's layout; mask i of a split is class i below a row of void."""
    rng = np.random.default_rng(0)
    for split, count in (("train", num_train), ("val", num_val)):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{split}{i}.png")
            mask = np.full(size, i, np.uint8)
            mask[0] = 255
            Image.fromarray(mask).save(root / "labels" / split / f"{split}{i}.png")
    return root


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data")


# Masks and folders.


def save(path, array):
    array = np.asarray(array)
    Image.fromarray(array if array.dtype == np.uint16 else array.astype(np.uint8)).save(path)


def test_palette_masks_are_stored_as_ids(tmp_path):
    file = tmp_path / "mask.png"
    image = Image.fromarray(np.array([[0, 1], [10, 255]], np.uint8), "P")
    image.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    image.save(file)

    def read():
        return masks.read_ids(file.read_bytes(), str(file))

    content, error = masks.stored(read, str(file), (2, 2), 11)
    assert error == ""
    assert Image.open(file).mode == "P"
    np.testing.assert_array_equal(masks.decode_mask(content), [[0, 1], [10, 255]])


BAD_MASKS = {
    "rgb": (
        np.zeros((24, 32, 3)),
        r"mode RGB, not class ids; .* behind its name in classes\.txt \(road #804080\), or",
    ),
    "16_bits": (np.zeros((24, 32), np.uint16), "the mask has 16 bits a pixel; save it as an 8-bit"),
    "grey_alpha": (np.zeros((24, 32, 2)), "a second channel, for transparency; save it as an 8-b"),
    "out_of_range": (np.full((24, 32), 11), r"ids \[11\] are neither classes 0..10 nor 255"),
    "size": (np.zeros((12, 32)), "32x12 and its image 32x24"),
    "missing": (None, "missing mask"),
    "truncated": (b"\x89PNG\r\n\x1a\n", "cannot be read as an image"),
}


def spoil(path, content):
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save(path, content)


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_a_bad_mask_fails_where_it_is_read_and_only_there(folder, tmp_path, kind):
    content, message = BAD_MASKS[kind]
    spoil(folder / "labels" / "train" / "train3.png", content)
    config = folder_config(folder, tmp_path / "prepared")
    listed = tmp_path / "list.txt"
    listed.write_text("train3\ntrain4\n")
    config.data.labeled_split, config.data.unlabeled_split = str(listed), "train"
    with pytest.raises(DataError, match=message) as caught:
        train_batches.train_batches(config, open_subsets(config), 0, 1)
    assert "train3.png" in str(caught.value)
    listed.write_text("train0\ntrain1\n")  # now it is unlabelled
    assert next(train_batches.train_batches(config, open_subsets(config), 0, 1)).image.shape == (
        1,
        2,
        32,
        32,
        3,
    )


def test_a_bad_mask_fails_evaluation(folder, tmp_path):
    spoil(folder / "labels" / "val" / "val1.png", BAD_MASKS["rgb"][0])
    with pytest.raises(DataError, match=r"eval_split: .*val1\.png: the mask has mode RGB"):
        open_config = folder_config(folder, tmp_path / "prepared")
        eval_batches.eval_batches(open_config, open_split(open_config), 1)


def test_images_that_cannot_be_read_are_all_named(folder, tmp_path):
    whole = (folder / "images" / "train" / "train0.png").read_bytes()
    (folder / "images" / "train" / "train0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "images" / "train" / "train2.png").write_bytes(b"")
    (folder / "images" / "train" / "train1.jpg").write_bytes(whole)
    config = folder_config(folder, tmp_path / "prepared")
    with pytest.raises(DataError, match=r"train1\.png: has the same name as train1\.jpg"):
        open_subsets(config)
    (folder / "images" / "train" / "train1.jpg").unlink()
    alone = folder_config(folder, tmp_path / "prepared", labeled_split="train")
    alone.unsup_weight = 0.0
    with pytest.raises(DataError) as caught:
        train_batches.train_batches(alone, open_subsets(alone), 0, 1)
    first, second = caught.value.problems
    assert f"{folder}/images/train/train0.png: not a readable image" in first
    assert f"{folder}/images/train/train2.png: not a readable image" in second
    (folder / "images" / "train" / "train0.png").write_bytes(whole)
    (folder / "images" / "train" / "train2.png").write_bytes(whole + b" ")
    _, subsets = open_subsets(config)
    assert {name: len(keys) for name, keys in subsets.named().items()} == {
        "labeled": 2, "unlabeled": 3, "evaluation": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no image", "not a readable image (Unknown image file format); replace"),
        (None, "not a readable image (jpeg::Uncompress failed. Invalid JPEG data or crop window);"),
    ],
)
def test_a_damaged_image_is_named_and_tensorflow_is_silent(
    folder, tmp_path, capfd, content, message
):
    file = folder / "images" / "train" / "train0.jpg"
    if content is None:
        whole = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
        Image.fromarray(noise).save(whole, "JPEG")
        content = whole.getvalue()[: whole.tell() // 2]
    (folder / "images" / "train" / "train0.png").unlink()
    file.write_bytes(content)
    config = folder_config(folder, tmp_path / "prepared", labeled_split="train")
    config.unsup_weight = 0.0
    with pytest.raises(DataError) as caught:
        train_batches.train_batches(config, open_subsets(config), 0, 1)
    assert message in str(caught.value)
    assert capfd.readouterr().err == ""


def test_all_problems_of_photos_and_masks_are_listed_at_once(folder, tmp_path, capsys):
    spoil(folder / "images" / "train" / "train0.png", b"no image")
    spoil(folder / "labels" / "train" / "train3.png", BAD_MASKS["rgb"][0])
    spoil(folder / "images" / "val" / "val0.png", b"")
    spoil(folder / "labels" / "val" / "val1.png", BAD_MASKS["size"][0])
    config = folder_config(folder, tmp_path / "prepared")
    config.data.labeled_split, config.data.unlabeled_split = "train", ""
    config.unsup_weight = 0.0
    names = ("train0.png: not a", "train3.png: the mask", "val0.png: not a", "val1.png: the mask")
    with pytest.raises(DataError, match="4 problems found"):
        check.check(config)
    lines = capsys.readouterr().out.splitlines()
    for name in names:
        (_,) = [line for line in lines if name in line]
    for call in (check.prepare, lambda config: train.train_and_evaluate(config, tmp_path / "run")):
        with pytest.raises(DataError) as caught:
            call(config)
        for name, problem in zip(names, caught.value.problems, strict=True):
            assert name in problem
    assert not (tmp_path / "run").exists(), "wrong data leave no run directory behind"


def test_an_unlabelled_image_that_cannot_be_read_is_left_out_and_said(
    folder, tmp_path, capsys, monkeypatch
):
    whole = (folder / "images" / "train" / "train0.png").read_bytes()
    listed = tmp_path / "list.txt"
    listed.write_text("train1\ntrain2\n")
    for name in ("train0", "train3"):  # empty files are no copies of each other
        spoil(folder / "images" / "train" / f"{name}.png", b"")
    config = folder_config(folder, tmp_path / "prepared")
    config.data.labeled_split, config.data.unlabeled_split = str(listed), "train"
    data = open_subsets(config)
    ids = [data.dataset.ids.id(key) for key in data.subsets.unlabeled]
    assert "train4" in ids and not {"train0", "train3"} & {*ids}
    before = describe_subsets(config, *data)["unlabeled"]
    assert before["examples"] == len(ids)
    next(train_batches.train_batches(config, data, 0, 1))
    for mode in (check.check, check.prepare):
        mode(config)
        said = capsys.readouterr().out
        for name in ("train0", "train3"):
            assert f"left out: {folder}/images/train/{name}.png: not a readable image" in said
        assert sum(line.startswith("left out: ") for line in said.splitlines()) == 2
        if mode == check.check:
            assert "warning: 2 unlabelled images left out, as damaged: train0, train3 (" in said
            assert "config and data are fine" in said
    config.max_bad_examples = 1
    with pytest.raises(DataError, match=r"^2 of 3 unlabelled .*max_bad_examples = 1") as caught:
        open_subsets(config)
    assert "train0.png: not a readable" in str(caught.value)
    config.max_bad_examples = 2
    (folder / "images" / "train" / "train0.png").write_bytes(whole)  # mended: it is used
    monkeypatch.setattr(published, "NAMES", {before["checksum"]: "a list"})
    assert describe_subsets(config, *open_subsets(config))["unlabeled"]["published"] == ""
    (folder / "images" / "train" / "train3.png").write_bytes(whole + b" ")
    after = describe_subsets(config, *open_subsets(config))["unlabeled"]
    assert after["published"] == "a list", "which it was not without its damaged images"
    assert after["examples"] == before["examples"] + 2
    assert after["checksum"] == before["checksum"] and after["content"] != before["content"]


def test_the_lists_of_a_run_name_its_examples_again(folder, tmp_path):
    for name in ("images", "labels"):  # the same id in two splits
        shutil.copy(folder / name / "train" / "train1.png", folder / name / "val" / "train1.png")
    spoil(folder / "images" / "val" / "train1.png", (folder / "images/val/val0.png").read_bytes())
    config = folder_config(folder, tmp_path / "prepared")
    config.data.eval_split = str(tmp_path / "evaluated.txt")
    (tmp_path / "evaluated.txt").write_text("val1\nval/train1\n")
    data = open_subsets(config)
    texts = listed(data)
    assert texts["evaluation"] == "train1\nval1\n".replace("train1", "val/train1")
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    again = folder_config(
        folder,
        tmp_path / "prepared",
        labeled_split=str(tmp_path / "labeled.txt"),
        unlabeled_split=str(tmp_path / "unlabeled.txt"),
        eval_split=str(tmp_path / "evaluation.txt"),
    )
    assert open_subsets(again).subsets == data.subsets
    config.unsup_weight = 0.0
    assert listed(open_subsets(config)) == texts | {"unlabeled": ""}


def test_an_error_if_no_unlabelled_image_can_be_read(folder, tmp_path):
    config = folder_config(folder, tmp_path / "prepared")
    listed = tmp_path / "list.txt"
    listed.write_text("train3\n")
    spoil(folder / "images" / "train" / "train3.png", b"no image")
    config.data.unlabeled_split, config.data.labeled_split = str(listed), f"{tmp_path}/other.txt"
    (tmp_path / "other.txt").write_text("train0\ntrain1\n")
    with pytest.raises(DataError, match=r"train3\.png: not a readable image"):
        open_subsets(config)


def test_an_image_that_cannot_be_opened_leaves_no_records(folder, tmp_path, monkeypatch):
    def refuse(self, name):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(trees.FolderTree, "read", refuse)
    with pytest.raises(DataError, match=r"train0\.png: cannot be opened \(Permission denied\)"):
        open_subsets(folder_config(folder, tmp_path / "prepared"))
    assert [f for f in (tmp_path / "prepared").rglob("*") if f.is_file()] == []


def test_missing_folders_and_empty_splits_are_named(folder, tmp_path):
    with pytest.raises(DataError, match=r"no such folder; set config.data.dir"):
        layout.read_splits(tmp_path / "nowhere", 11)
    for file in (folder / "images" / "val").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"eval_split = 'val': .*images/val holds no image; put"):
        open_subsets(folder_config(folder, tmp_path / "prepared"))
    os.rename(folder / "labels", folder / "masks")
    with pytest.raises(DataError, match=f"{folder / 'labels'}: no such folder"):
        layout.read_splits(folder, 11)


def test_config_values_that_name_no_data(folder, tmp_path):
    with pytest.raises(DataError, match=r"config.data.dir is not set"):
        catalog.open_dataset(folder_config("", tmp_path).data)
    with pytest.raises(DataError, match="'cityscape' is not a data set; use one of: camvid, city"):
        catalog.open_dataset(folder_config(folder, tmp_path, name="cityscape").data)
    with pytest.raises(DataError, match="num_classes = 21, but camvid has 11"):
        catalog.open_dataset(folder_config(folder, tmp_path / "p", num_classes=21).data)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="prepared records cannot be written there"):
        catalog.open_dataset(folder_config(folder, tmp_path / "file" / "p").data).records("train")


def test_a_disk_that_is_full_during_preparation_is_said(folder, tmp_path, monkeypatch):
    class Full(preparation.ArrayRecordWriter):
        def write(self, record):
            raise RuntimeError("No space left on device")  # as array_record does

    monkeypatch.setattr(preparation, "ArrayRecordWriter", Full)
    with pytest.raises(DataError, match=r"cannot be written there \(No space left.*Make room"):
        catalog.open_dataset(folder_config(folder, tmp_path / "p").data).records("train")
    monkeypatch.undo()
    found = catalog.open_dataset(folder_config(folder, tmp_path / "p").data).records("train")
    assert found.examples, "the same command makes them once there is room"


def test_names_that_records_cannot_hold_are_named(tmp_path):
    (tmp_path / "caf\udce9.jpg").write_bytes(b"")  # Latin-1, as a zip of Windows has it
    (tmp_path / "a.jpg").write_bytes(b"")
    for read in (layout.read_unlabeled, places.find):
        with pytest.raises(DataError, match=r"1 name is not UTF-8: 'caf\\udce9.jpg'; rename"):
            read(tmp_path)


def test_changed_files_are_prepared_anew(folder, tmp_path):
    data = folder_config(folder, tmp_path / "prepared").data
    first = catalog.open_dataset(data).records("train")
    assert catalog.open_dataset(data).records("train").path == first.path
    validation = catalog.open_dataset(data).records("val").path
    save(folder / "labels" / "train" / "train0.png", np.full((24, 32), 7))
    second = catalog.open_dataset(data)
    assert second.records("train").path != first.path
    assert second.records("val").path == validation  # nothing of it has changed
    _, (mask,) = second.fetch([("train", 0)], labels=True)
    assert np.unique(masks.decode_mask(mask)).tolist() == [7]


def test_fetch_gives_the_records_asked_for_in_any_order(folder, tmp_path):
    dataset = catalog.open_dataset(folder_config(folder, tmp_path / "prepared").data)
    keys = [("val", 2), ("train", 4), ("train", 0), ("val", 2)]
    images, labels = dataset.fetch(keys, labels=True)
    assert [int(masks.decode_mask(label)[-1, 0]) for label in labels] == [2, 4, 0, 2]
    assert images[1] == (folder / "images" / "train" / "train4.png").read_bytes()
    assert dataset.fetch(keys, labels=False)[1] == [b""] * 4


def test_camvid_has_its_published_counts(tmp_path):
    config = folder_config(shared("camvid"), tmp_path, labeled_split="train", unlabeled_split="")
    dataset = catalog.open_dataset(config.data)
    assert {split: len(ids) for split, ids in dataset.ids.splits.items()} == {
        "train": 367,
        "val": 101,
    }
    assert dataset.class_names[0] == "sky"
    assert dataset.class_names[10] == "bicyclist"
    examples = [e for split in ("train", "val") for e in dataset.records(split).examples]
    assert {(e.height, e.width, e.label_error) for e in examples} == {(360, 480, "")}
    keys = [("train", i) for i in range(0, 367, 10)] + [("val", i) for i in range(0, 101, 10)]
    counts, images, most = check.mask_counts(dataset, keys)
    assert 8 <= most <= 11 and images[0] <= len(keys) == images[3]  # a road is everywhere
    shares = 100 * counts / counts.sum()
    published = [15.8, 24.1, 1.0, 29.3, 6.7, 11.2, 1.1, 1.4, 4.6, 0.6, 0.5]
    np.testing.assert_allclose(shares[:11], published, rtol=0.35, atol=0.5)


# Drawn shapes.


def test_drawing_is_a_pure_function_of_its_arguments():
    image, label = drawing.draw(0, "train", 3, 64)
    again, label_again = drawing.draw(0, "train", 3, 64)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, label_again)
    for other in ((1, "train", 3, 64), (0, "val", 3, 64), (0, "train", 4, 64)):
        assert (drawing.draw(*other)[0] != image).mean() > 0.5


def test_objects_have_a_void_border_and_are_large_enough():
    counts = np.zeros(7, int)
    for index in range(60):
        image, label = drawing.draw(0, "train", index, 64)
        assert image.dtype == label.dtype == np.uint8
        present = np.setdiff1d(np.unique(label), [255])
        assert present.max() <= 6
        counts[present] += 1
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
            rolled = np.roll(label, shift, axis=(0, 1))[1:-1, 1:-1]
            inner = label[1:-1, 1:-1]
            differ = (rolled != inner) & (rolled != 255) & (inner != 255)
            assert not differ.any(), f"example {index}: two ids touch without void between them"
    assert counts[0] == 60
    assert (counts[1:] >= 5).all(), counts


def test_colour_hints_at_the_class_but_does_not_give_it_away():
    rng = np.random.default_rng(0)
    guesses = []
    for class_id in range(1, 7):
        for _ in range(200):
            red, green, blue = drawing._object_colour(rng, class_id)
            hue = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))
            guesses.append(1 + round(hue / 60) % 6 == class_id)
    assert 0.8 < np.mean(guesses) < 0.99


def shapes_config(prepared, **shapes):
    config = folder_config("", prepared, name="shapes", num_classes=7, labeled_split="train#4@0")
    config.data.unlabeled_split = "train#rest4@0"
    config.data.shapes.update({"image_size": 32, "num_train": 12, "num_val": 3} | shapes)
    return config


def test_shapes_are_prepared_once_for_each_set_of_arguments(tmp_path):
    dataset = catalog.open_dataset(shapes_config(tmp_path).data)
    assert {s: len(dataset.records(s).examples) for s in dataset.ids.splits} == {
        "train": 12,
        "val": 3,
    }
    _, (mask,) = dataset.fetch([("val", 1)], labels=True)
    np.testing.assert_array_equal(masks.decode_mask(mask), drawing.draw(0, "val", 1, 32)[1])

    def path(**arguments):
        return catalog.open_dataset(shapes_config(tmp_path, **arguments).data).records("val").path

    assert path() == dataset.records("val").path
    assert path(seed=1) != path()
    assert path(num_train=13) == path()  # the other split's arguments are not its own


@pytest.mark.parametrize(
    ("key", "value"), [("image_size", 8), ("num_train", 0), ("num_val", 0), ("seed", -1)]
)
def test_shapes_arguments_that_are_refused(tmp_path, key, value):
    with pytest.raises(DataError, match=f"config.data.shapes.{key} = {value}"):
        catalog.open_dataset(shapes_config(tmp_path, **{key: value}).data)


# The check command.


def test_check_reports_counts_and_the_histogram(folder, tmp_path, capsys):
    config = folder_config(folder, tmp_path / "prepared")
    listed = tmp_path / "list.txt"
    listed.write_text("train0\ntrain4\n")
    config.data.labeled_split, config.data.unlabeled_split = str(listed), "train"
    check.check(config)
    printed = capsys.readouterr().out
    assert "labeled: 2 examples" in printed
    assert "unlabeled: 3 examples" in printed
    assert "evaluation: 3 examples" in printed
    row = next(line.split() for line in printed.splitlines() if line.startswith("pavement"))
    assert row == ["pavement", "47.917%", "1", "0.000%", "0"]  # 23 of 24 rows
    assert "no labelled example shows building, pole, road, tree" in printed
    assert "sign_symbol, fence, car, pedestrian, bicyclist: they cannot be learned" in printed
    assert "max_segments" not in printed
    mask = folder / "labels" / "train" / "train0.png"
    two = np.array(Image.open(mask))
    two[:5] = 3 - two[-1, 0]
    Image.fromarray(two).save(mask)
    config.max_segments = 1
    check.check(config)
    assert "a labelled mask shows 2 classes, and max_segments = 1: " in capsys.readouterr().out


def test_one_class_is_not_several(capsys):
    names, shown = ("sky", "tree", "fence"), np.zeros(256, np.int64)
    shown[:2] = 1
    check.check_classes(names, {"labeled": shown, "evaluation": shown})
    assert capsys.readouterr().out == (
        "warning: no labelled example shows fence: it cannot be learned\n"
        "warning: no evaluation example shows fence: where predicted, it has IoU 0; if not, none\n"
    )


def test_check_lists_every_problem(folder, tmp_path, capsys):
    spoil(folder / "labels" / "train" / "train0.png", BAD_MASKS["rgb"][0])
    spoil(folder / "labels" / "train" / "train1.png", None)
    spoil(folder / "labels" / "val" / "val2.png", BAD_MASKS["size"][0])
    config = folder_config(folder, tmp_path / "prepared", labeled_split="train")
    config.data.unlabeled_split, config.unsup_weight = "", 0.0
    with pytest.raises(DataError, match="3 problems found"):
        check.check(config)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("train0.png", "train1.png", "val2.png"))


def blended(mask, how):
    """A mask as programs save it that draw or resize smoothly, or as JPEG."""
    if how == "JPEG":
        file = io.BytesIO()
        mask.save(file, "JPEG", quality=90)
        return np.asarray(Image.open(file))
    return np.asarray(mask.resize((160, 120), how))


@pytest.mark.parametrize("how", ["JPEG", Image.BILINEAR, Image.LANCZOS])
def test_a_mask_with_smoothed_edges_is_recognised(how):
    mask = Image.new("L", (320, 240), 0)
    ImageDraw.Draw(mask).ellipse((40, 60, 250, 190), fill=255)
    ImageDraw.Draw(mask).polygon([(10, 200), (150, 20), (300, 230)], fill=120)
    ids = blended(mask, how)
    with pytest.raises(
        masks.MaskError, match=r"m.png: \d+ ids that are no class .* saved with smoo"
    ):
        masks.check_ids(ids, "m.png", ids.shape, 3)
    hard = np.asarray(mask.resize((160, 120), Image.NEAREST))
    with pytest.raises(masks.MaskError, match=r"ids \[120\] are neither classes"):
        masks.check_ids(hard, "m.png", hard.shape, 3)


def test_many_small_things_without_a_class_are_not_taken_for_smoothed_edges():
    mask, random = Image.new("L", (320, 240), 0), np.random.default_rng(0)
    for i in range(60):
        x, y = random.integers(0, 300), random.integers(0, 220)
        ImageDraw.Draw(mask).line((x, y, x + 20, y + 12), fill=10 + i, width=3)
    with pytest.raises(masks.MaskError, match=r"ids \[10, 11, .* are neither classes 0\.\.2"):
        masks.check_ids(np.asarray(mask), "m.png", (240, 320), 3)


def test_what_file_servers_leave_is_no_part_of_a_data_set(folder, tmp_path):
    config = folder_config(folder, tmp_path / "prepared")
    before = open_subsets(config).dataset.ids.splits
    for kind in ("images", "labels"):
        for place in (f"train/@eaDir/{kind}.png", "@eaDir/train/a.png", "__MACOSX/train/a.png"):
            (folder / kind / place).parent.mkdir(parents=True)
            save(folder / kind / place, np.zeros((4, 4)))
        (folder / kind / "Thumbs.db").write_bytes(b"x")
    after = open_subsets(config)
    assert after.dataset.ids.splits == before and not after.dataset.notes


def named(form, folder):
    """Gives all files, and the split "train", accents in one form of Unicode."""
    for path in sorted(folder.rglob("*.png")):
        path.rename(path.with_name(unicodedata.normalize(form, f"Kühe_{path.name}")))
    (folder / "train").rename(folder / unicodedata.normalize(form, "früh"))


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_names_are_compared_in_one_form_of_unicode(folder, tmp_path, forms):
    for kind, form in zip(("images", "labels"), forms):
        named(form, folder / kind)
    (tmp_path / "list.txt").write_text(unicodedata.normalize("NFD", "Kühe_train0\nKühe_train3.png"))
    split = unicodedata.normalize("NFD", "früh")
    config = folder_config(folder, tmp_path / "prepared", labeled_split=str(tmp_path / "list.txt"))
    config.data.unlabeled_split = f"{split}#rest1@0"
    dataset, subsets = open_subsets(config)
    assert not dataset.notes
    assert not dataset.errors((*subsets.labeled, *subsets.unlabeled, *subsets.evaluation))
    found = [dataset.ids.id(key) for key in subsets.labeled]
    assert found == [unicodedata.normalize("NFC", f"Kühe_train{i}") for i in (0, 3)]
    assert dataset.ids.splits.keys() == {unicodedata.normalize("NFC", "früh"), "val"}
    config.data.eval_split = split
    assert len(open_split(config).keys) == 5


def test_two_names_that_look_alike_are_named(folder, tmp_path):
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "Kühe.png")
        save(folder / "images" / "train" / name, np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"'train/Ku\\u0308he.png' and 'train/K\\xfche.png' look"):
        open_subsets(folder_config(folder, tmp_path / "prepared"))


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_pointer_of_git_lfs_is_no_image_and_no_mask(folder, tmp_path, kind):
    file = folder / kind / "train" / "train1.png"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12345\n")
    config = folder_config(folder, tmp_path / "prepared", labeled_split="train")
    config.data.unlabeled_split, config.unsup_weight = "", 0.0
    with pytest.raises(DataError, match=f"{file}: .*a pointer of git-lfs .*git lfs pull"):
        train_batches.train_batches(config, open_subsets(config), 0, 1)


# Evaluation on other images.


def only(folder, split):
    """Leaves one split of a folder, under the name "test"."""
    for kind in ("images", "labels"):
        os.rename(folder / kind / split, folder / kind / "test")
        for other in ("train", "val"):
            shutil.rmtree(folder / kind / other, ignore_errors=True)


@pytest.mark.parametrize("name", ["camvid", "folder"])
def test_an_evaluation_needs_its_own_split_only(folder, tmp_path, name):
    only(folder, "val")
    (folder / "classes.txt").write_text("\n".join(camvid.CLASS_NAMES))
    config = folder_config(folder, tmp_path / "prepared", name=name, eval_split="test")
    config.data.unlabeled_dir = str(tmp_path / "of the machine that trained")
    split = open_split(config)
    assert [split.id(i) for i in range(len(split.keys))] == ["val0", "val1", "val2"]
    config.data.unlabeled_dir = ""
    with pytest.raises(DataError, match=r"labeled_split = 'train#2@0': .*images/train "):
        open_subsets(config)
    config.data.eval_split = "val"
    with pytest.raises(DataError, match=r"eval_split = 'val': .*images/val "):
        open_split(config)


def test_an_evaluation_finds_mistakes_before_it_opens_the_network(folder, tmp_path, monkeypatch):
    spoil(folder / "labels" / "val" / "val1.png", None)
    monkeypatch.delattr(evaluate_run, "restore_run")
    monkeypatch.delattr(ranking, "restore_run")
    config = folder_config(folder, tmp_path / "prepared")
    for evaluate in (evaluate_run.evaluate_checkpoint, ranking.best_and_worst):
        with pytest.raises(DataError, match=r"eval_split: .*labels/val/val1.png: missing mask"):
            evaluate(config, tmp_path / "run")


def test_training_finds_masks_that_its_evaluation_cannot_use(folder, tmp_path):
    spoil(folder / "labels" / "val" / "val1.png", None)
    config = folder_config(folder, tmp_path / "prepared")
    config.batch_size = config.unlabeled_batch_size = 8  # devices of the tests
    with pytest.raises(DataError, match=r"eval_split: .*labels/val/val1.png: missing mask"):
        train.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
