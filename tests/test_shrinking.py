"""data/shrinking.py: photos larger than `data.prepared_short_edge` become smaller records."""

from __future__ import annotations

import functools
import shutil

import labelled_scenes as scenes
import numpy as np
import pytest
from labelled_scenes import SCENES
from PIL import ExifTags, Image
from test_data import folder_config, write_folder
from test_labelled_folders import config_of, masks_of, seed_of
from test_photo_formats import saved
from test_records import sources

from configs import folder, folder_small
from data import DataError, catalog, photos, preparation, records
from data.images import decode, is_jpeg, is_png
from data.masks import decode_mask, encode_png
from data.shrinking import shrink_label, shrunken_size
from rc2l_jax.input_pipeline.subsets import describe_subsets, open_split, open_subsets
from rc2l_jax.training import check


@pytest.mark.parametrize(
    ("size", "short_edge", "expected"),
    [
        ((3000, 4000), 1024, (1024, 1365)),
        ((4032, 3024), 1024, (1365, 1024)),
        ((1024, 9000), 1024, (1024, 9000)),
        ((40, 50), 1024, (40, 50)),  # never enlarged
        ((3000, 4000), 0, (3000, 4000)),
        ((66, 99), 33, (33, 50)),
        ((100_000, 1_000), 999, (99_900, 999)),
    ],
)
def test_only_a_longer_short_edge_is_shrunk(size, short_edge, expected):
    assert shrunken_size(size, short_edge) == expected


def test_a_photo_is_shrunk_with_antialiasing_and_a_mask_by_its_pixels_centres():
    pixels = np.zeros((120, 180, 3), np.uint8)
    pixels[:, 1::2] = 200  # stripes of one pixel, which aliasing would leave or take away
    photo = photos.read(encode_png(pixels), 40)
    assert photo.size == (40, 60) and photo.full_size == (120, 180)
    assert abs(decode(photo.encoded)[:, 1:-1].astype(int) - 100).max() < 8
    ids = np.random.default_rng(0).choice([0, 3, 7, 255], (120, 180)).astype(np.uint8)
    small = decode_mask(shrink_label(encode_png(ids), (40, 60)))
    np.testing.assert_array_equal(small, ids[1::3, 1::3])


def test_photo_and_mask_stay_aligned():
    ids = np.zeros((97, 131), np.uint8)
    ids[30:61, 45:90] = 1
    photo = photos.read(encode_png(np.repeat(ids[..., None] * 250, 3, 2)), 34)
    small = decode_mask(shrink_label(encode_png(ids), photo.size))
    assert photo.size == (34, 46)
    np.testing.assert_array_equal(photo.pixels[..., 0] > 125, small == 1)


def test_large_photos_become_jpegs_and_others_keep_their_bytes():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
        content = saved(Image.fromarray(pixels), kind)
        assert is_jpeg(photos.read(content, 32).encoded)
        assert photos.read(content, 40).encoded == photos.read(content).encoded
        assert (photos.read(content, 40).encoded == content) == (kind in ("PNG", "JPEG"))


def test_what_is_too_long_for_a_jpeg_becomes_a_png():
    photo = photos.read(encode_png(np.zeros((34, 70_000, 3), np.uint8)), 33)
    assert photo.size == (33, 67_941) and is_png(photo.encoded)


@pytest.mark.parametrize("name", ["Labelme's files in labels", "COCO, one file", "YOLO", "MATLAB"])
def test_masks_of_every_tool_are_drawn_in_full_and_then_shrunk(tmp_path, name):
    root, prepared = tmp_path / "data", tmp_path / "prepared"
    SCENES[name][0](root)
    config = config_of(root, prepared)
    config.data.prepared_short_edge = 10  # of 20 x 24
    dataset = catalog.open_dataset(config.data)
    found = masks_of(dataset)
    assert len(found) == 5
    for example, mask in found.items():
        np.testing.assert_array_equal(mask, scenes.mask(seed_of(example))[1::2, 1::2], example)
    example = dataset.example(("train", 0))
    assert (example.height, example.width) == (10, 12)


@pytest.mark.parametrize("upright", [True, False])
def test_a_turned_photo_is_shrunk_upright_with_its_mask(tmp_path, upright):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # stored lying on its left side
    root, ids = tmp_path / "data", scenes.mask(1)
    for split in ("train", "val"):
        pixels = np.rot90(ids * 100)
        content = saved(Image.fromarray(pixels), "JPEG", exif=exif, quality=95)
        scenes.write(root / "images" / split / f"{split}.jpg", content)
        mask = scenes.png(ids if upright else np.rot90(ids))
        scenes.write(root / "labels" / split / f"{split}.png", mask)
    scenes.write(root / "classes.txt", "background\nroad\ntree")
    config = config_of(root, tmp_path / "prepared")
    config.data.prepared_short_edge = 10
    dataset = catalog.open_dataset(config.data)
    np.testing.assert_array_equal(masks_of(dataset)["train/train"], ids[1::2, 1::2])
    (image,), _ = dataset.fetch([("train", 0)], labels=False)
    seen = decode(image)[..., 0].astype(int)
    assert seen.shape == (10, 12) and seen[1, 1] < 40 and abs(seen[7, 7] - 200) < 40


# Records of one size are never taken for those of another.


def edge_config(root, prepared, edge, **data):
    return folder_config(root, prepared, prepared_short_edge=edge, **data)


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "data", size=(48, 64))


def test_each_size_has_records_of_its_own(root, tmp_path):
    opened = {
        edge: catalog.open_dataset(edge_config(root, tmp_path / "prepared", edge).data)
        for edge in (0, 32, 40, 100)
    }
    found = {edge: dataset.records("train") for edge, dataset in opened.items()}
    assert len({of_it.path for of_it in found.values()}) == 4
    assert {edge: of_it.examples[0].height for edge, of_it in found.items()} == {
        0: 48, 32: 32, 40: 40, 100: 48
    }  # fmt: skip
    assert [x.digest for x in found[0].examples] == [x.digest for x in found[32].examples]
    assert [edge for edge, of_it in found.items() if of_it.notes] == [32, 40]


def test_records_without_the_key_are_those_of_former_versions(root, tmp_path):
    config = folder_config(root, tmp_path / "prepared")
    dataset = catalog.open_dataset(config.data)
    found = dataset.records("train")
    split = catalog.BUILDERS["camvid"].listing(config.data).splits["train"]
    fingerprint = records.digest(split.fingerprint(), *dataset.class_names)
    assert found.path.parent.name == f"train-{fingerprint}"
    file = found.path / "examples.json"
    file.write_text(file.read_text().replace('"short_edge": 0, ', ""))
    assert "short_edge" not in file.read_text()
    config.data.dir = ""
    assert catalog.open_dataset(config.data).records("train").short_edge == 0


def test_records_alone_are_taken_by_their_size(root, tmp_path):
    prepared = tmp_path / "prepared"
    for edge in (0, 32):
        dataset = catalog.open_dataset(edge_config(root, prepared, edge).data)
        paths = {split: dataset.records(split).path for split in ("train", "val")}
        if edge == 0:
            full = paths
    small = catalog.open_dataset(edge_config("", prepared, 32).data)
    assert small.records("train").path == paths["train"]
    assert (
        catalog.open_dataset(edge_config("", prepared, 0).data).records("val").path == full["val"]
    )
    with pytest.raises(
        DataError, match=r"made with config\.data\.prepared_short_edge = 0 or 32, not 40; set it"
    ):
        catalog.open_dataset(edge_config("", prepared, 40).data)
    for path in full.values():
        shutil.rmtree(path.parent)
    with pytest.raises(DataError, match=r"prepared_short_edge = 32, not 0; set it to that"):
        catalog.open_dataset(edge_config("", prepared, 0).data)


def test_scores_at_another_size_are_of_other_images(root, tmp_path):
    used = {}
    for edge in (0, 32, 100):
        config = edge_config(root, tmp_path / "prepared", edge)
        used[edge] = describe_subsets(config, *open_subsets(config))
    for name in ("labeled", "evaluation"):
        assert used[0][name]["content"] != used[32][name]["content"]
        assert used[0][name] == used[100][name]  # nothing was shrunk
    assert open_split(edge_config(root, tmp_path / "prepared", 32)).dataset.notes


def test_an_interrupted_preparation_counts_all_that_it_shrank(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_SHARD_SIZE", 4)
    given = sources(12)
    path = records.records_path(str(tmp_path), "shapes", "train", "f")
    prepare = functools.partial(preparation.prepare, path, "shapes", "", ("a", "b"), short_edge=16)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([*given[:11], type(given[0])(given[11].id, "", interrupt)])
    assert list(path.parent.rglob("*.shard.json"))
    prepare(given)
    (note,) = records.open_records(path).notes
    assert note.startswith("shapes train: 12 of 12 photos shrunk to a short edge of 16 pixels, and")
    assert "which are scored at that size (data.prepared_short_edge)" in note


# What check and prepare say.


def test_check_and_prepare_say_what_was_shrunk_and_which_copies_are_left(root, tmp_path, capsys):
    Image.new("RGB", (30, 40)).save(root / "images" / "train" / "train4.png")
    Image.new("L", (30, 40)).save(root / "labels" / "train" / "train4.png")
    full = catalog.open_dataset(edge_config(root, tmp_path / "prepared", 0).data)
    former = full.records("train").path.parent.name
    config = edge_config(root, tmp_path / "prepared", 32, max_scale=1.0)
    for mode in (check.prepare, check.check):
        mode(config)
        said = capsys.readouterr().out
        assert "note: camvid train: 4 of 5 photos shrunk to a short edge of 32 pixels, and" in said
        assert "note: camvid val: 3 of 3 photos shrunk" in said
        assert (
            "1 other copy of these splits, made from earlier files or with other settings" in said
        )
        assert former in said
    assert "all 43x32" in said
    assert "warning: data.prepared" not in said


def large_photos(folder, tmp_path, size):
    """A config of a folder, and what is known of photos that are that large."""
    config = folder.get_config()
    dataset = catalog.open_dataset(folder_config(folder_of_one(tmp_path), tmp_path / "p").data)
    found = dataset.records("train").examples
    large = [type(found[0])(x.id, *size, *x.row()[3:]) for x in found]
    object.__setattr__(dataset.records("train"), "examples", tuple(large))
    return config, dataset


def folder_of_one(tmp_path):
    root = tmp_path / "data"
    return root if root.exists() else write_folder(root, num_train=2, num_val=1)


@pytest.mark.parametrize(
    ("module", "size", "edge", "advised"),
    [
        (folder_small, (3024, 4032), 0, 1024),
        (folder_small, (2160, 3840), 0, 1024),
        (folder, (3024, 4032), 0, 1024),
        (folder, (1080, 1920), 0, None),
        (folder_small, (720, 960), 0, None),  # CamVid's: quick to decode
        (folder_small, (1024, 1365), 1024, None),
        (folder_small, (3024, 4032), 3024, 1024),
    ],
)
def test_the_check_recommends_a_size_for_photos_far_larger_than_needed(
    tmp_path, module, size, edge, advised
):
    config, dataset = large_photos(module, tmp_path, size)
    config.data.prepared_short_edge = edge
    subsets = check.splits.Subsets((("train", 0),), (("train", 1),), (), ())
    found = [
        x for x in check.config_warnings(config, dataset, subsets) if "prepared_short_edge" in x
    ]
    assert len(found) == (advised is not None)
    if advised:
        megapixels = size[0] * size[1] / 1e6
        assert f"have {megapixels:.1f} megapixels on average" in found[0]
        assert f"--config.data.prepared_short_edge={advised} shrinks" in found[0]
    config.data.crop_size = 1024  # times max_scale
    for warning in check.config_warnings(config, dataset, subsets):
        assert "prepared_short_edge=1024 " not in warning
    config.data.eval_short_edge = 0  # evaluation wants the photos as they are
    config.data.prepared_short_edge = 0
    assert not [x for x in check.config_warnings(config, dataset, subsets) if "megapixels" in x]


def test_a_size_below_what_training_asks_for_is_a_warning():
    config, subsets = folder_small.get_config(), check.splits.Subsets((), (), (), ())
    for edge, warned in ((0, False), (239, True), (240, False)):
        config.data.prepared_short_edge = edge
        found = check.config_warnings(config, None, subsets)
        assert [x for x in found if "is below 240" in x] == found and bool(found) == warned
    config.eval.scales = (0.5, 2.0)
    (warning,) = check.config_warnings(config, None, subsets)
    assert "is below 320" in warning, "twice the short edge of evaluation"
