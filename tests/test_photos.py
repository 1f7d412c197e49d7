"""rc2l_jax/prediction/inputs.py, photos.py, frames.py: images are found, named and read."""

from __future__ import annotations

import errno
import importlib.util
import os
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from rc2l_jax.prediction import inputs, photos
from rc2l_jax.prediction.frames import OpenFrames
from rc2l_jax.prediction.photos import Photo, PhotoError

SIZE = (20, 30)


def rgb(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def save(path: Path, image: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


def read(photo: Photo) -> np.ndarray:
    frames = OpenFrames()
    try:
        return photos.read(photo, frames)
    finally:
        frames.close()


def read_one(path: Path) -> np.ndarray:
    (photo,) = photos.measure(path)
    pixels = read(photo)
    assert pixels.dtype == np.uint8 and pixels.shape == (*photo.size, 3)
    return pixels


def names(found: inputs.Photos) -> list[str]:
    return [photo.name for photo in found.photos]


# Kinds of pixels. Lossless formats must give exactly the same pixels.


@pytest.mark.parametrize("kind", ["L", "1", "P", "RGBA", "LA"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_modes_become_what_they_show(tmp_path, kind, suffix):
    image = Image.fromarray(rgb()).convert(kind)
    path = save(tmp_path / f"image.{suffix}", image)
    np.testing.assert_array_equal(read_one(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_of_16_bits_the_upper_8_count(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 1 << 16, SIZE).astype(np.uint16)
    values[0, 0] = 0xFFFF
    path = save(tmp_path / f"image.{suffix}", Image.fromarray(values))
    expected = np.repeat((values >> 8)[..., None], 3, axis=2)
    # Rounding to 8 bits and cutting off are both fine.
    np.testing.assert_allclose(read_one(path).astype(int), expected, atol=1)


def test_cmyk_jpegs_show_their_colours(tmp_path):
    plane = np.broadcast_to(np.array([200, 40, 90], np.uint8), (*SIZE, 3))
    path = save(tmp_path / "image.jpg", Image.fromarray(plane.copy()).convert("CMYK"), quality=95)
    assert Image.open(path).mode == "CMYK"
    np.testing.assert_allclose(read_one(path).astype(int), plane, atol=6)


def test_ycck_jpegs_show_their_colours(tmp_path):
    # As Photoshop writes it: C, M and Y are stored as Y, Cb and Cr, and everything is inverted.
    y, cb, cr, k = 120, 90, 150, 200
    planes = [Image.new("L", SIZE[::-1], 255 - value) for value in (y, cb, cr, k)]
    path = save(tmp_path / "image.jpg", Image.merge("CMYK", planes), quality=95)
    content = path.read_bytes()
    transform = content.index(b"Adobe") + 11  # Pillow writes 0 there, which means: no transform
    path.write_bytes(content[:transform] + b"\x02" + content[transform + 1 :])
    ink = [y + 1.402 * (cr - 128), 0, y + 1.772 * (cb - 128)]
    ink[1] = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    expected = (255 - np.array(ink)) * k / 255
    np.testing.assert_allclose(read_one(path), np.broadcast_to(expected, (*SIZE, 3)), atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    # A smooth image, so that a JPEG decoder's rounding is small.
    shades = np.add.outer(np.arange(SIZE[0]) * 3, np.arange(SIZE[1]) * 5).astype(np.uint8)
    image = Image.fromarray(np.stack([shades, shades // 2, 255 - shades], axis=2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95}}.get(suffix, {})
    path = save(tmp_path / f"image.{suffix}", image, exif=exif, **options)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert expected.shape[:2] == (SIZE[::-1] if orientation > 4 else SIZE)
    np.testing.assert_allclose(read_one(path).astype(int), expected, atol=6)


def test_exif_data_behind_the_pixels_of_a_png_count(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = save(tmp_path / "image.png", rgb()).read_bytes()
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + data))
    (tmp_path / "image.png").write_bytes(content[:-12] + chunk + content[-12:])
    pixels = read_one(tmp_path / "image.png")
    np.testing.assert_array_equal(pixels, np.rot90(rgb(), -1))


def test_damaged_exif_data_lose_no_image(tmp_path):
    path = save(tmp_path / "image.jpg", rgb(), exif=b"Exif\0\0no such thing")
    assert read_one(path).shape == (*SIZE, 3)


# Frames.


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_every_frame_is_an_image(tmp_path, suffix):
    frames = [Image.fromarray(np.full((*SIZE, 3), 60 * i, np.uint8)) for i in range(4)]
    options = {"lossless": True} if suffix == "webp" else {}
    save(tmp_path / f"clip.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    found = inputs.find(str(tmp_path), tmp_path / "out")
    assert names(found) == [f"clip_{i:06d}" for i in range(4)]
    for i, photo in enumerate(found.photos):
        np.testing.assert_allclose(read(photo).astype(int), 60 * i, atol=1)


def moving(path: Path, count: int) -> list[Photo]:
    """Writes frames that change little, so that files store only what differs from the last one."""
    images = []
    for i in range(count):
        pixels = np.zeros((*SIZE, 3), np.uint8)
        pixels[: i + 1, i] = 255 - i
        images.append(Image.fromarray(pixels))
    options = {"lossless": True} if path.suffix == ".webp" else {}
    save(path, images[0], save_all=True, append_images=images[1:], **options)
    frames = photos.measure(path)
    assert len(frames) == count
    return frames


@pytest.fixture
def opened(monkeypatch) -> list[Path]:
    """The paths of all files that Pillow opens, in order."""
    paths, original = [], Image.open

    def spy(path: Path) -> Image.Image:
        paths.append(path)
        return original(path)

    monkeypatch.setattr(Image, "open", spy)
    return paths


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_frames_in_a_row_are_decoded_in_one_pass(tmp_path, opened, suffix):
    found = moving(tmp_path / f"clip.{suffix}", 12)
    expected = [read(photo) for photo in found]
    opened.clear()
    frames = OpenFrames()
    for photo, pixels in zip(found, expected):
        np.testing.assert_array_equal(photos.read(photo, frames), pixels)
    assert len(opened) == 1
    for i in (4, 3, 3, 11, 0):  # in whatever order
        np.testing.assert_array_equal(photos.read(found[i], frames), expected[i])
    frames.close()
    np.testing.assert_array_equal(photos.read(found[5]), expected[5])  # without open frames


def test_readers_side_by_side_only_move_on(tmp_path, opened):
    found = moving(tmp_path / "clip.gif", 24)
    opened.clear()
    frames = OpenFrames()
    for i in range(8):  # as three threads would read, each a third of the frames
        for start in (0, 8, 16):
            photos.read(found[start + i], frames)
    assert len(opened) <= 3
    with frames.at(found[0].path, 0) as lent:
        frames.close()
        assert lent.fp is not None
    assert lent.fp is None and not frames._idle


def test_a_damaged_frame_spoils_no_other(tmp_path, monkeypatch):
    found = moving(tmp_path / "clip.gif", 4)
    expected, frames, original = [read(photo) for photo in found], OpenFrames(), photos.as_rgb

    def fail_at_2(image: Image.Image) -> Image.Image:
        if image.tell() == 2:
            raise OSError("broken data stream")
        return original(image)

    monkeypatch.setattr(photos, "as_rgb", fail_at_2)
    for i in (0, 1, 2, 3):
        if i == 2:
            with pytest.raises(PhotoError, match="damaged"):
                photos.read(found[i], frames)
        else:
            np.testing.assert_array_equal(photos.read(found[i], frames), expected[i])
    frames.close()


def test_pages_of_a_tiff_have_sizes_of_their_own(tmp_path):
    pages = [Image.fromarray(rgb(i, (10 + i, 20))) for i in range(3)]
    save(tmp_path / "pages.tif", pages[0], save_all=True, append_images=pages[1:])
    found = photos.measure(tmp_path / "pages.tif")
    assert [photo.size for photo in found] == [(10, 20), (11, 20), (12, 20)]
    for photo, page in zip(found, pages):
        np.testing.assert_array_equal(read(photo), np.asarray(page))


# What is no image.


def huge_png(path: Path) -> None:
    """A PNG of a few bytes that says it has 10 gigapixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IEND\xaeB`\x82")


def truncated(path: Path, suffix: str) -> None:
    whole = save(path.with_suffix(suffix), rgb(0, (200, 300)))
    content = whole.read_bytes()
    whole.unlink()
    path.write_bytes(content[: len(content) // 2])


UNMEASURABLE = {
    "text.jpg": (lambda path: path.write_text("no image"), "not an image of a known kind"),
    "empty.png": (lambda path: path.write_bytes(b""), "not an image of a known kind"),
    "huge.png": (huge_png, "100000 x 100000 pixels, more than"),
    "photo.HEIC": (
        lambda path: path.write_bytes(b"\0\0\0\x18ftypheic"),
        "not an image of a known kind",
    ),
    "pipe.png": (os.mkfifo, "a pipe or a device"),
    "clip.mp4": (lambda path: path.write_bytes(b""), r"ffmpeg -i clip.mp4 frames/%06d.png"),
}
UNREADABLE = {
    "cut.jpg": (lambda path: truncated(path, ".jpg"), "damaged"),
    "cut.png": (lambda path: truncated(path, ".png"), "damaged"),
    "cut.webp": (lambda path: truncated(path, ".webp"), "damaged"),
    "float.tif": (lambda path: save(path, np.zeros(SIZE, np.float32)), "floating-point"),
    "deep.tif": (lambda path: save(path, np.full(SIZE, 1 << 20, np.int32)), "more than 16 bits"),
}


@pytest.mark.parametrize("name", [*UNMEASURABLE, *UNREADABLE])
def test_what_cannot_be_read_says_why(tmp_path, name):
    make, message = (UNMEASURABLE | UNREADABLE)[name]
    make(tmp_path / name)
    with pytest.raises(PhotoError, match=message):
        for photo in photos.measure(tmp_path / name):
            assert name in UNREADABLE
            read(photo)


def test_heic_is_read_upright(tmp_path):
    file, pixels = tmp_path / "photo.HEIC", np.full((40, 60, 3), (200, 40, 90), np.uint8)
    image = pillow_heif.from_bytes("RGB", (60, 40), pixels.tobytes())
    image.save(file, quality=-1)
    (photo,) = photos.measure(file)
    assert photo.size == (40, 60)
    assert np.abs(read(photo).astype(int) - pixels).max() <= 3


def test_heic_without_its_package_names_the_command(tmp_path, monkeypatch):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PhotoError, match="pip install pillow-heif"):
        photos.measure(tmp_path / "photo.heic")


def test_a_file_that_changes_before_it_is_read_is_noticed(tmp_path):
    (photo,) = photos.measure(save(tmp_path / "image.png", rgb()))
    save(tmp_path / "image.png", rgb(0, (7, 9)))
    with pytest.raises(PhotoError, match="another size"):
        read(photo)
    (tmp_path / "image.png").unlink()
    with pytest.raises(PhotoError, match="cannot be opened"):
        read(photo)


# Finding and naming.


def test_folders_are_searched_in_depth_and_keep_their_order(tmp_path):
    for name in ("b/2.png", "b/10.png", "a.png", ".hidden/x.png", "b/.x.png", "out/masks/a.png"):
        save(tmp_path / "in" / name, rgb())
    (tmp_path / "in" / "note.txt").write_text("")
    found = inputs.find(str(tmp_path / "in"), tmp_path / "in" / "out")
    assert names(found) == ["a", "b/10", "b/2"]
    assert [path.name for path in found.skipped] == ["note.txt", "out"]
    assert "nothing there is an input (1 file)" in found.skipped[tmp_path / "in" / "out"]


def test_a_glob_and_a_single_image_mean_what_they_say(tmp_path):
    for name in ("a/1.png", "a/2.jpg", "b/1.png", "odd[1].png"):
        save(tmp_path / name, rgb())

    def find(source):
        return names(inputs.find(str(tmp_path / source), tmp_path / "out"))

    assert find("*/1.png") == ["a/1", "b/1"]
    assert find("a/*") == ["1", "2"]
    assert find("**/2.jpg") == ["a/2"]
    assert find("odd[1].png") == ["odd[1]"]
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    for source in ("c/*.png", "c/1.png", "gone.png"):
        with pytest.raises(PhotoError, match="no such file or folder"):
            find(source)


def test_links_are_followed_but_never_in_a_circle(tmp_path):
    for folder in ("in/a", "other"):
        save(tmp_path / folder / f"{Path(folder).name}.png", rgb())
    (tmp_path / "in" / "a" / "up").symlink_to("..")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "other")  # from which a link leads back
    (tmp_path / "other" / "back").symlink_to(tmp_path / "in")
    found = names(inputs.find(str(tmp_path / "in"), tmp_path / "out"))
    assert found == ["a/a", "b/other"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch, capsys):
    for folder in ("in", "in/locked"):
        save(tmp_path / folder / "a.png", rgb())
    scandir = os.scandir

    def refusing(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert names(inputs.find(str(tmp_path / "in"), tmp_path / "out")) == ["a"]
    warning = capsys.readouterr().err
    assert f"{tmp_path}/in/locked is left out: cannot be listed (Permission denied)" in warning


@pytest.mark.parametrize("source", ["in", "in/a.png", "in/*.png"])
def test_results_never_go_where_the_images_are(tmp_path, source):
    save(tmp_path / "in" / "a.png", rgb())
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for output in ("in", ".", "link"):
        with pytest.raises(PhotoError, match=r"--output=.* is the folder of --input=.*/in"):
            inputs.find(str(tmp_path / source), tmp_path / output)
    assert names(inputs.find(str(tmp_path / source), tmp_path / "in" / "out")) == ["a"]


def test_what_a_glob_means_and_cannot_be_read_is_named(tmp_path):
    save(tmp_path / "in" / "a.png", rgb())
    (tmp_path / "in" / "folder.png").mkdir()
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    found = inputs.find(str(tmp_path / "in" / "*.png"), tmp_path / "out")
    assert names(found) == ["a"]
    assert sorted(path.name for path in found.skipped) == ["gone.png", "pipe.png"]


def test_two_images_never_get_one_name(tmp_path):
    for name in ("a.jpg", "a.png", "A.bmp", "b.png", "c/a.png"):
        save(tmp_path / name, rgb())
    found = inputs.find(str(tmp_path), tmp_path / "out")
    assert sorted(names(found)) == ["A.bmp", "a.jpg", "a.png", "b", "c/a"]
    others = sorted(photo.other_name for photo in found.photos)
    assert others == ["A", "a", "a", "b.png", "c/a.png"]


CLASHES = {
    "still the same": (("a.jpg", "a.png", "a.jpg.png"), "would both become 'a.jpg'"),
    "a folder": (("a.jpg", "a.png/b.jpg"), "has a folder's name"),
}


@pytest.mark.parametrize("case", CLASHES)
def test_names_that_clash_are_an_error(tmp_path, case):
    files, message = CLASHES[case]
    for name in files:
        save(tmp_path / name, rgb())
    with pytest.raises(PhotoError, match=message):
        inputs.find(str(tmp_path), tmp_path / "out")


def test_a_folder_may_have_brackets_in_its_name(tmp_path):
    for name in ("a.jpg", "b.png"):
        save(tmp_path / "photos[1]" / name, rgb())
    save(tmp_path / "photos1" / "c.jpg", rgb())  # what the brackets mean in a glob
    folder, out = tmp_path / "photos[1]", tmp_path / "out"
    for source in (folder / "*.jpg", folder / "a.jpg", folder / "**" / "[a].*"):
        assert names(inputs.find(str(source), out)) == ["a"]
    assert names(inputs.find(str(tmp_path / "photos[[]1[]]" / "*"), out)) == [
        "photos[1]/a",
        "photos[1]/b",
    ]
    assert names(inputs.find(str(tmp_path / "photos[0-9]" / "*"), out)) == ["photos1/c"]
    with pytest.raises(PhotoError, match="no such file or folder"):
        inputs.find(str(folder / "*.gif"), out)


@pytest.mark.parametrize("source", ["", "**/*", "*/*"])
def test_what_file_servers_leave_is_no_input(tmp_path, source):
    save(tmp_path / "photos" / "day" / "a.jpg", rgb())
    save(tmp_path / "photos" / "day" / "@eaDir" / "a.jpg" / "SYNOPHOTO_THUMB_M.jpg", rgb())
    save(tmp_path / "photos" / "__MACOSX" / "day.jpg", rgb())
    for name in ("Thumbs.db", "desktop.ini", "day/Thumbs.db"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    found = inputs.find(str(tmp_path / "photos" / source), tmp_path / "out")
    assert names(found) == ["day/a"] and not found.skipped


def test_names_of_files_are_read_as_they_are_stored(tmp_path):
    path = save(tmp_path / "photos" / unicodedata.normalize("NFD", "Kühe.png"), rgb())
    (photo,) = inputs.find(str(tmp_path / "photos"), tmp_path / "out").photos
    assert photo.path == path
    np.testing.assert_array_equal(read(photo), rgb())
