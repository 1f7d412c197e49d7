"""Images of any kind on disk: measured without decoding, and read when needed."""

from __future__ import annotations

import contextlib
import dataclasses
import stat
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from data import git_lfs
from data.host_tf import tf
from data.images import ImageError
from data.orientation import SWAPPED, orientation_of_file, turn
from data.photos import as_rgb, missing_package, register_heic
from rc2l_jax.input_pipeline import decode
from rc2l_jax.prediction.frames import OpenFrames

# Larger images are refused: a small file can declare a size for which there is not enough memory.
MAX_PIXELS = 1 << 28
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is lower, and at first only warns
# Formats whose further images are frames or pages; in other formats they are thumbnails or layers.
_WITH_FRAMES = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")
_AS_EVALUATION = ("JPEG", "MPO", "PNG")  # read with the decoder of training and evaluation
_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")


class PhotoError(ValueError):
    """An input that cannot be predicted. Says why; the caller names the file."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """An image, or one frame of a moving one.

    Attributes:
      path: the file.
      frame: the number of its frame, from 0; None if the file is a single image.
      size: height and width as displayed, that is with its EXIF orientation applied.
      orientation: its EXIF orientation, 1 to 8. A TIFF's is read again with its pixels.
      name: the name of its results: relative, with "/", and without the file's suffix, unless
        another photo would have the same name without.
      other_name: the name with the suffix if `name` is without, and without if it is with.
    """

    path: Path
    frame: int | None
    size: tuple[int, int]
    orientation: int
    name: str = ""
    other_name: str = ""

    @property
    def file_name(self) -> str:
        """Its path below the input, as labelling tools know it; of a frame, that of a PNG file."""
        if self.frame is not None:
            return f"{self.name}.png"
        return max(self.name, self.other_name, key=len)

    @property
    def folder(self) -> str:
        """The name of the folder that `file_name` is below."""
        depth = len(PurePosixPath(self.file_name).parts)
        return self.path.absolute().parents[depth - 1].name


def measure(path: Path) -> list[Photo]:
    """Reads the header of a file, and returns its photo, or a photo for each frame.

    Raises:
      PhotoError: the file is not an image that can be read.
    """
    if path.suffix.lower() in _VIDEOS:
        raise PhotoError(
            "a video; extract its frames first: mkdir frames && "
            f"ffmpeg -i {path.name} frames/%06d.png"
        )
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe could wait for ever
            raise PhotoError("a pipe or a device, not a file")
        register_heic()
        with Image.open(path) as image:
            return _frames(image, path)
    except PhotoError:
        raise
    except Exception as error:  # on damaged bytes Pillow can raise anything
        raise PhotoError(_reason(error, path)) from error


def _frames(image: Image.Image, path: Path) -> list[Photo]:
    """Returns the photo of an open file, or a photo for each frame."""
    count = getattr(image, "n_frames", 1) if image.format in _WITH_FRAMES else 1
    if count == 1:
        return [Photo(path, None, *_displayed(image, path))]
    if image.format != "TIFF":
        shown = _displayed(image, path)
        return [Photo(path, i, *shown) for i in range(count)]
    pages = []
    for i in range(count):  # pages can differ in size and orientation
        image.seek(i)
        pages.append(Photo(path, i, *_displayed(image, path)))
    return pages


def _displayed(image: Image.Image, path: Path) -> tuple[tuple[int, int], int]:
    """Returns height and width with the orientation applied, and the orientation."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PhotoError(
            f"{width} x {height} pixels, more than {MAX_PIXELS:,} in all; cut it into parts"
        )
    orientation = orientation_of_file(image, path)
    if image.format == "TIFF" and orientation != 1:
        # Whether loading turns a TIFF depends on Pillow's version, so the loaded image is measured.
        return ImageOps.exif_transpose(image).size[::-1], orientation
    return ((width, height) if orientation in SWAPPED else (height, width)), orientation


def read(photo: Photo, frames: OpenFrames | None = None) -> np.ndarray:
    """Reads a photo's pixels as displayed, in RGB. Transparency is dropped.

    JPEG and PNG are decoded as for training and evaluation, so that scores are the same.

    Args:
      photo: a photo that `measure` returned.
      frames: open files of moving images, which threads may share. None opens the file for this
        frame only, which takes long if many frames of one file are read.

    Returns:
      uint8 [H, W, 3].

    Raises:
      PhotoError: the file is damaged, or has changed since `measure` read its header.
    """
    try:
        with contextlib.ExitStack() as stack:
            if frames is None:
                frames = stack.enter_context(contextlib.closing(OpenFrames()))
            pixels = _decode(photo, frames)
    except PhotoError:
        raise
    except ImageError as error:
        raise PhotoError(str(error)) from error
    except Exception as error:  # on damaged bytes the decoders can raise anything
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
                pass  # damaged, or a variant that only Pillow can read
        return _pixels(image, photo)


def _pixels(image: Image.Image, photo: Photo) -> np.ndarray:
    if image.format == "TIFF":
        return np.asarray(as_rgb(ImageOps.exif_transpose(image)))
    return turn(np.asarray(as_rgb(image)), photo.orientation)


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        with path.open("rb") as file:
            if git_lfs.is_pointer(file.read(64)):
                return git_lfs.IS_POINTER
        if missing := missing_package([path.name]):
            return missing[0]
        return "not an image of a known kind"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror})"
    return f"damaged ({' '.join(str(error).split())[:100] or type(error).__name__})"
