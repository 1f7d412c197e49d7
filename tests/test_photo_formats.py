"""data/photos.py: photos of all formats become the pixels that Pillow shows."""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib

import labelled_scenes as scenes
import numpy as np
import pytest
from PIL import Image, ImageOps, features
from test_labelled_folders import NAMES, config_of

from data import DataError, catalog, photos
from data.images import ImageError, decode, is_jpeg, is_png
from data.photos import read
from rc2l_jax.prediction.photos import PhotoError, measure
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


def deep_tiff(pixels, order="<", *, deflate=False):
    """A TIFF of 16 bits and 3 or 4 channels, which Pillow reads but does not write."""
    height, width, channels = pixels.shape
    strip = pixels.astype(f"{order}u2").tobytes()
    strip = zlib.compress(strip) if deflate else strip
    bits = struct.pack(f"{order}{channels}H", *[16] * channels).ljust(8, b"\0")
    entries = {
        256: width, 257: height, 258: 8, 259: 8 if deflate else 1, 262: 2, 273: 16,
        277: channels, 278: height, 279: len(strip), 284: 1, **({338: 2} if channels == 4 else {}),
    }  # fmt: skip
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        f"{order}I", 16 + len(strip) + len(strip) % 2
    )
    content += bits + strip + b"\0" * (len(strip) % 2) + struct.pack(f"{order}H", len(entries))
    for tag, value in entries.items():
        count = channels if tag == 258 else 1
        long = tag in (256, 257, 273, 278, 279)
        content += struct.pack(f"{order}HHI", tag, 4 if long else 3, count)
        # Several short numbers lie elsewhere, and this is their place.
        content += struct.pack(f"{order}I" if long or count > 1 else f"{order}Hxx", value)
    return content + bytes(4)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflate", [False, True])
def test_of_colours_of_16_bits_the_upper_8_stay(channels, order, deflate):
    deep = np.random.default_rng(0).integers(0, 1 << 16, (20, 24, channels), np.uint16)
    photo = read(deep_tiff(deep, order, deflate=deflate))
    np.testing.assert_array_equal(photo.pixels, deep[..., :3] >> 8)
    np.testing.assert_array_equal(decode(photo.encoded), photo.pixels)


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


SUFFIXES = ("TIF", "webp", "HEIC", "avif", "bmp", "JFIF", "Gif", "tiff", "TIFF")
KINDS = ("TIFF", "WEBP", "HEIF", "AVIF", "BMP", "JPEG", "GIF", "16 bits", "16 bits, colours")


def content_of(pixels, kind):
    """A file of that kind: of 16 bits the upper 8 are the pixels'; a GIF has a second frame."""
    deep = (pixels.astype(np.uint16) << 8) + 77
    if kind == "16 bits, colours":
        return deep_tiff(deep)
    if kind == "16 bits":
        return saved(Image.fromarray(deep[..., 0]), "TIFF")
    picture = Image.fromarray(pixels)
    if kind == "GIF":
        return saved(picture, kind, save_all=True, append_images=[Image.new("RGB", picture.size)])
    return saved(picture, kind)


@pytest.fixture
def root(tmp_path):
    """A data set of one photo of each format, in capitals or not, and its mask."""
    for seed, (suffix, kind) in enumerate(zip(SUFFIXES, KINDS)):
        content = content_of(np.roll(PIXELS, seed, 0), kind)
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
    keys = [(split, i) for split, ids in dataset.ids.splits.items() for i in range(len(ids))]
    images, _ = dataset.fetch(keys, labels=False)
    assert all(is_jpeg(image) or is_png(image) for image in images)
    found = dict(zip(map(dataset.ids.id, keys), map(decode, images)))
    assert len(found) == len(KINDS)
    exact = {"TIFF", "BMP", "16 bits", "16 bits, colours"}
    for seed, kind in enumerate(KINDS):
        expected = np.roll(PIXELS, seed, 0)
        if kind == "16 bits":
            expected = expected[..., :1].repeat(3, 2)
        pixels = found[f"a {seed}"].astype(int)
        if kind in exact:
            np.testing.assert_array_equal(pixels, expected, kind)
        else:  # JPEG's default quality mixes what `np.roll` made neighbours; a GIF has 256 colours
            assert pixels.shape == expected.shape and abs(pixels - expected).mean() < 12, kind


def test_a_list_names_photos_of_any_format(root, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("images/train/a 0.TIF labels/train/a 0.png\na 2.HEIC\n")
    config = config_of(root, tmp_path / "prepared", labeled_split=str(listed))
    config.data.eval_split = f"train#rest{len(KINDS) - 1}@0"
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


@pytest.fixture
def old_pillow(monkeypatch):
    """Pillow as it was before 11.3, which knows nothing of AVIF."""
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF")
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "AVIF"])
    monkeypatch.delitem(features.modules, "avif")
    monkeypatch.setattr(photos, "_known", photos._known.__wrapped__)


def test_avif_with_an_old_pillow_is_one_line_with_the_command(root, tmp_path, old_pillow):
    line = r'data: 1 photo is AVIF, such as images/train/a 3\.avif: .*: pip install --upgrade "p'
    with pytest.raises(DataError, match=line + r'illow>=11\.3"$'):
        catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
    unlabeled = config_of(root, tmp_path / "prepared", unlabeled_dir=str(root / "images"))
    (root / "images" / "train" / "a 3.avif").rename(root / "images" / "train" / "a 3.AVIF")
    with pytest.raises(DataError, match=r"a 3\.AVIF: .* pip install --upgrade"):
        catalog.open_dataset(unlabeled.data)
    with pytest.raises(PhotoError, match=r"1 photo is AVIF, such as a 3\.AVIF: .* --upgrade"):
        measure(root / "images" / "train" / "a 3.AVIF")


def test_pillow_may_have_been_built_without_avif_or_have_a_plugin(monkeypatch):
    assert photos.missing_package(["a.avif", "b.jpg"]) == []
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    assert len(photos.missing_package(["a.avif", "b.avif"])) == 1
    monkeypatch.delitem(features.modules, "avif")
    assert photos.missing_package(["a.avif"]) == []  # the plugin has registered itself


def test_both_missing_packages_are_named(root, tmp_path, old_pillow, monkeypatch):
    monkeypatch.setattr(photos, "_reads_heic", lambda: False)
    with pytest.raises(DataError) as caught:
        catalog.open_dataset(config_of(root, tmp_path / "prepared").data)
    heic, avif = caught.value.problems
    assert "photo is HEIC" in heic and "photo is AVIF" in avif
