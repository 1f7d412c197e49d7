"""data/photos.py: photos of all formats become the pixels that Pillow shows."""

from __future__ import annotations

import importlib.util
import io

import labelled_scenes as scenes
import numpy as np
import pytest
from PIL import Image, ImageOps
from test_labelled_folders import NAMES, config_of

from data import DataError, catalog, photos
from data.images import ImageError, decode, is_jpeg, is_png
from data.photos import read
from rc2l_jax.training import check

SHADES = np.add.outer(np.arange(20) * 3, np.arange(24) * 5).astype(np.uint8)
PIXELS = np.stack([SHADES, SHADES // 2, 255 - SHADES], axis=2)


def saved(picture, kind, **options):
    if kind == "HEIF":
        photos.register_heic()
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"quality": 95}, 12),
        ("AVIF", {"quality": 95}, 12),
        ("HEIF", {"quality": 95}, 12),
    ],
)
def test_photos_of_other_formats_become_what_training_decodes(kind, options, tolerance):
    photo = read(saved(Image.fromarray(PIXELS), kind, **options))
    np.testing.assert_allclose(photo.pixels.astype(int), PIXELS, atol=tolerance)
    lossy = kind in ("WEBP", "AVIF", "HEIF")
    assert is_jpeg(photo.encoded) == lossy and is_png(photo.encoded) != lossy
    np.testing.assert_allclose(decode(photo.encoded).astype(int), photo.pixels, atol=12)


def test_of_16_bits_the_upper_8_stay():
    deep = (np.arange(480, dtype=np.uint16) * 131).reshape(20, 24)
    for kind in ("TIFF", "PNG"):
        photo = read(saved(Image.fromarray(deep), kind))
        np.testing.assert_array_equal(photo.pixels, np.repeat((deep >> 8)[..., None], 3, 2))
        assert decode(photo.encoded).shape == (20, 24, 3)


def test_a_moving_image_is_its_first_frame():
    frames = [Image.fromarray(np.full((20, 24), shade, np.uint8)) for shade in (40, 90)]
    photo = read(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(photo.pixels, np.full((20, 24, 3), 40))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_other_formats_are_turned_upright_too(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(Image.fromarray(PIXELS), kind, exif=exif, **options)
    reference = saved(Image.fromarray(PIXELS), "PNG", exif=exif)
    with Image.open(io.BytesIO(reference)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    photo = read(content)
    np.testing.assert_array_equal(photo.pixels, expected)
    assert photo.orientation == orientation


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "AVIF", "HEIF", "GIF"])
def test_damaged_photos_are_refused(kind):
    content = saved(Image.fromarray(PIXELS), kind)
    with pytest.raises(ImageError):
        read(content[: len(content) // 3])
    with pytest.raises(ImageError, match="floating-point"):
        read(saved(Image.fromarray(SHADES.astype(np.float32)), "TIFF"))


SUFFIXES = ("TIF", "webp", "HEIC", "avif", "bmp", "JFIF")
KINDS = ("TIFF", "WEBP", "HEIF", "AVIF", "BMP", "JPEG")


@pytest.fixture
def root(tmp_path):
    """A data set of one photo of each format, in capitals or not, and its mask."""
    for seed, (suffix, kind) in enumerate(zip(SUFFIXES, KINDS)):
        content = saved(Image.fromarray(np.roll(PIXELS, seed, 0)), kind)
        scenes.write(tmp_path / "data" / "images" / "train" / f"a {seed}.{suffix}", content)
        mask = scenes.png(scenes.mask(seed))
        scenes.write(tmp_path / "data" / "labels" / "train" / f"a {seed}.png", mask)
    scenes.write(tmp_path / "data" / "classes.txt", "\n".join(NAMES))
    return tmp_path / "data"


def test_a_folder_of_all_formats_is_checked_and_read(root, tmp_path, capsys):
    config = config_of(root, tmp_path / "prepared")
    check.check(config)
    assert "config and data are fine" in capsys.readouterr().out
    dataset = catalog.open_dataset(config.data)
    images, _ = dataset.fetch([("train", i) for i in range(5)], labels=False)
    assert all(is_jpeg(image) or is_png(image) for image in images)


def test_a_list_names_photos_of_any_format(root, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("images/train/a 0.TIF labels/train/a 0.png\na 2.HEIC\n")
    config = config_of(root, tmp_path / "prepared", labeled_split=str(listed))
    config.data.eval_split = "train#rest5@0"
    assert catalog.open_dataset(config.data).class_names == NAMES


def test_heic_without_its_package_is_one_line_with_the_command(root, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pillow_heif" else found(name)
    )
    line = r"data: 1 photo is HEIC, such as images/train/a 2\.HEIC: .*: pip install pillow-heif$"
    with pytest.raises(DataError, match=line):
        catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
    unlabeled = config_of(root, tmp_path / "prepared", unlabeled_dir=str(root / "images"))
    (root / "images" / "train" / "a 2.HEIC").rename(root / "images" / "train" / "a 2.HEIF")
    with pytest.raises(DataError, match=r"a 2\.HEIF: .*: pip install pillow-heif$"):
        catalog.open_dataset(unlabeled.data)
