"""Images of any kind on disk: found, measured without decoding them, and read when needed."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from data.errors import counted
from data.host_tf import tf
from data.orientation import SWAPPED, orientation_of_file, turn
from data.trees import FolderTree
from rc2l_jax.input_pipeline import decode
from rc2l_jax.prediction.frames import OpenFrames

# Declared in a header, so that a small file can ask for all of the memory.
MAX_PIXELS = 1 << 28
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is lower, and in part a warning
# Kinds whose further images are frames or pages; those of others are thumbnails or layers.
_WITH_FRAMES = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")
_AS_EVALUATION = ("JPEG", "MPO", "PNG")  # what training and evaluation read, with their decoder
_RESULTS = (".png", ".jpg", ".json", ".npz")  # of the files that bear a photo's name
_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
_OF_PHONES = (".heic", ".heif")


class PhotoError(ValueError):
    """An input that cannot be predicted; says why, but not which one."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """An image, or one frame of a moving one.

    Attributes:
      path: of the file.
      frame: which of its frames; None if it has one.
      size: height and width as displayed, that is with its EXIF orientation applied.
      orientation: EXIF's; that of a TIFF's page is read with it.
      name: for what is made of it: relative, with "/" and without a suffix; with its suffix if
        another photo would have the same name without.
      other_name: the other of the two, which it would have among other photos.
    """

    path: Path
    frame: int | None
    size: tuple[int, int]
    orientation: int
    name: str = ""
    other_name: str = ""


@dataclasses.dataclass
class Photos:
    """What was found.

    Attributes:
      photos: in the order of their paths and frames; no two have the same name.
      skipped: file -> why it is not among them.
    """

    photos: list[Photo]
    skipped: dict[Path, str]


def check_apart(source: str, outside: Path) -> None:
    """Refuses results that would lie among the images, before any image is looked for.

    Args:
      source, outside: see `find`.

    Raises:
      PhotoError: there is no such file or folder, or it lies where the results go.
    """
    root, taken = _root(source).resolve(), outside.resolve()
    if taken in (root, *root.parents):
        raise PhotoError(
            f"--output={outside} is the folder of --input={source}, or above it: results would lie "
            "among the images; choose another folder"
        )


def find(source: str, outside: Path) -> Photos:
    """Finds images and reads their headers.

    Args:
      source: an image, a folder (searched in whole depth, without hidden files), or a glob.
      outside: nothing below this folder is taken: it is where the results go.

    Raises:
      PhotoError: there is no such file or folder, it lies where the results go, or two images
        would have the same name.
    """
    check_apart(source, outside)
    root, taken = _root(source), outside.resolve()
    found, skipped, inside = [], {}, 0
    for file in _files(source):
        if taken in file.resolve().parents:
            inside += 1
            continue
        try:
            found += [_named(photo, root) for photo in measure(file)]
        except PhotoError as error:
            skipped[file] = str(error)
    if inside:
        skipped[outside] = f"is --output: nothing there is an input ({counted(inside, 'file')})"
    return Photos(_distinct(found), skipped)


def _root(source: str) -> Path:
    """The folder that names are relative to."""
    path = Path(source).expanduser()
    if path.exists():
        return path if path.is_dir() else path.parent
    fixed = next((i for i, part in enumerate(path.parts) if glob.has_magic(part)), None)
    if fixed is None:
        raise _missing(source)
    return Path(*path.parts[:fixed])


def _files(source: str) -> list[Path]:
    """The files that `source` means."""
    path = Path(source).expanduser()
    if path.is_dir():
        return [path / name for name in FolderTree(path).names]
    if path.exists():
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    if not matches:
        raise _missing(source)
    return [match for match in matches if not match.is_dir()]


def _missing(source: str) -> PhotoError:
    return PhotoError(f"--input={source}: no such file or folder, and no file has such a name")


def _named(photo: Photo, root: Path) -> Photo:
    relative = PurePosixPath(photo.path.relative_to(root).as_posix())
    frame = "" if photo.frame is None else f"_{photo.frame:06d}"
    short, long = f"{relative.with_suffix('')}{frame}", f"{relative}{frame}"
    return dataclasses.replace(photo, name=short, other_name=long)


def _distinct(photos: Sequence[Photo]) -> list[Photo]:
    """Names that several photos have keep their suffix; a.jpg and a.png are two images."""
    count = Counter(photo.name.casefold() for photo in photos)  # some file systems ignore case
    photos = [
        dataclasses.replace(p, name=p.other_name, other_name=p.name)
        if count[p.name.casefold()] > 1
        else p
        for p in photos
    ]
    by_name: dict[str, list[Photo]] = {}
    for photo in photos:
        by_name.setdefault(photo.name.casefold(), []).append(photo)
    for name, same in by_name.items():
        if len(same) > 1:
            files = " and ".join(dict.fromkeys(str(photo.path) for photo in same))
            raise PhotoError(f"{files} would both become {name!r}: rename one of them")
    folders = {str(parent) for name in by_name for parent in PurePosixPath(name).parents}
    for name, (photo, *_) in by_name.items():
        if any(f"{name}{suffix}" in folders for suffix in _RESULTS):
            raise PhotoError(f"what {photo.path} becomes has a folder's name: rename one of them")
    return photos


def measure(path: Path) -> list[Photo]:
    """Reads the header of a file: its photo, or its frames.

    Raises:
      PhotoError: it is not an image that can be read.
    """
    if path.suffix.lower() in _VIDEOS:
        raise PhotoError(
            "a video; extract its frames first: mkdir frames && "
            f"ffmpeg -i {path.name} frames/%06d.png"
        )
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to read a pipe is to wait for ever
            raise PhotoError("a pipe or a device, not a file")
        with Image.open(path) as image:
            return _frames(image, path)
    except PhotoError:
        raise
    except Exception as error:  # Pillow's readers raise whatever damaged bytes lead them to
        raise PhotoError(_reason(error, path)) from error


def _frames(image: Image.Image, path: Path) -> list[Photo]:
    """The photo of an open file, or its frames."""
    count = getattr(image, "n_frames", 1) if image.format in _WITH_FRAMES else 1
    if count == 1:
        return [Photo(path, None, *_displayed(image, path))]
    if image.format != "TIFF":
        shown = _displayed(image, path)
        return [Photo(path, i, *shown) for i in range(count)]
    pages = []
    for i in range(count):  # they differ
        image.seek(i)
        pages.append(Photo(path, i, *_displayed(image, path)))
    return pages


def _displayed(image: Image.Image, path: Path) -> tuple[tuple[int, int], int]:
    """Height and width with the orientation applied; the orientation."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PhotoError(
            f"{width} x {height} pixels, more than {MAX_PIXELS:,} in all; cut it into parts"
        )
    orientation = orientation_of_file(image, path)
    if image.format == "TIFF" and orientation != 1:
        # Whether Pillow turns it while it loads depends on its version.
        return ImageOps.exif_transpose(image).size[::-1], orientation
    return ((width, height) if orientation in SWAPPED else (height, width)), orientation


def read(photo: Photo, frames: OpenFrames | None = None) -> np.ndarray:
    """Reads the pixels: RGB as displayed, uint8 [H, W, 3], whatever is transparent.

    What training reads, JPEG and PNG, is decoded as there, so that scores are the same.

    Args:
      photo: as `measure` found it.
      frames: of the moving ones among the images that are read; a thread may use it with others.
        None for one of its own: many frames of one file then take long.

    Raises:
      PhotoError: the file is damaged, or another one than `measure` saw.
    """
    try:
        with contextlib.ExitStack() as stack:
            if frames is None:
                frames = stack.enter_context(contextlib.closing(OpenFrames()))
            pixels = _decode(photo, frames)
    except PhotoError:
        raise
    except Exception as error:  # see `measure`
        raise PhotoError(_reason(error, photo.path)) from error
    if pixels.shape[:2] != photo.size:
        raise PhotoError("has another size than its header says; save it again")
    return np.ascontiguousarray(pixels)


def _decode(photo: Photo, frames: OpenFrames) -> np.ndarray:
    if photo.frame is not None:
        with frames.at(photo.path, photo.frame) as image:
            return _pixels(image, photo)
    with Image.open(photo.path) as image:
        if image.format in _AS_EVALUATION:
            try:
                pixels = decode.decode_image(tf.constant(photo.path.read_bytes())).numpy()
                return turn(pixels, photo.orientation)
            except tf.errors.InvalidArgumentError:
                pass  # damaged, or of a kind that only Pillow knows
        return _pixels(image, photo)


def _pixels(image: Image.Image, photo: Photo) -> np.ndarray:
    if image.format == "TIFF":
        return np.asarray(_as_rgb(ImageOps.exif_transpose(image)))
    return turn(np.asarray(_as_rgb(image)), photo.orientation)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Converts any mode. Of 16 bits the upper eight count, as TensorFlow's PNG decoder has it."""
    if image.mode == "F":
        raise PhotoError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode != "I" or values.max(initial=0) > 255:
            values = values >> 8
        if values.min(initial=0) < 0 or values.max(initial=0) > 255:
            raise PhotoError("its pixels have more than 16 bits; save it with 8 or 16 bits")
        image = Image.fromarray(values.astype(np.uint8))
    return image.convert("RGB")


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        if path.suffix.lower() in _OF_PHONES:
            return "HEIC, as iPhones save it, is not read here; save it as JPEG or PNG"
        return "not an image of a known kind"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror})"
    return f"damaged ({' '.join(str(error).split())[:100] or type(error).__name__})"
