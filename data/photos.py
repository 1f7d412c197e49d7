"""Photos of any format: which there are, and how their pixels become upright RGB.

Training decodes JPEG and PNG only. Photos of other formats are decoded here, with Pillow, and are
encoded again when they are prepared. So are photos that are shrunk.
"""

from __future__ import annotations

import functools
import importlib.util
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageOps, features

from data.errors import counted, some
from data.images import MAX_PIXELS, ImageError, decode, is_jpeg, is_png
from data.masks import encode_png
from data.orientation import UPRIGHT, encode_jpeg, orientation_in, orientation_of, turn
from data.photo_suffixes import AVIF_SUFFIXES, HEIC_SUFFIXES
from data.shrinking import shrink_photo, shrunken_size

if TYPE_CHECKING:
    from data.sources import Size

_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "TIFF", "WEBP")
_LOSSY = ("AVIF", "HEIF", "WEBP")  # become JPEGs: as PNGs they would be ten times as large
_JPEG_SIDE = 65_500  # libjpeg's limit, in pixels
HEIC_PACKAGE = "pillow-heif"
AVIF_PILLOW = "pillow>=11.3"  # reads AVIF; everything else works with earlier ones, too

_Encode = Callable[[np.ndarray], bytes]


class Photo(NamedTuple):
    """A photo as training gets it.

    Attributes:
      pixels: uint8 [H, W, 3], upright.
      encoded: JPEG or PNG; the file's own bytes unless they had to be encoded again.
      orientation: of the file, as EXIF has it, 1 to 8.
      full_size: height and width of the file's photo, upright; [H, W] unless it was shrunk.
    """

    pixels: np.ndarray
    encoded: bytes
    orientation: int
    full_size: Size

    @property
    def size(self) -> Size:
        """Height and width of its pixels."""
        return self.pixels.shape[:2]


def read(image: bytes, short_edge: int = 0) -> Photo:
    """Decodes a photo and turns it upright. Of a moving image it reads the first frame.

    Args:
      image: the file's bytes.
      short_edge: to what `shrunken_size` shrinks it; 0 leaves it as it is.

    Raises:
      ImageError: it cannot be decoded. The message says why, but not which photo it is.
    """
    pixels, orientation, encode = _decode(image)
    full_size = pixels.shape[:2]
    size = shrunken_size(full_size, short_edge)
    if size != full_size:
        # JPEG whatever it was: decoding a PNG would take four times as long, at every step.
        pixels, encode = shrink_photo(pixels, size), _encode_small
    return Photo(pixels, encode(pixels) if encode else image, orientation, full_size)


def _decode(image: bytes) -> tuple[np.ndarray, int, _Encode | None]:
    """Upright pixels, the file's orientation, and what encodes the pixels again.

    There is no such function if training can decode the file's own bytes.
    """
    if is_jpeg(image) or is_png(image):
        pixels, orientation = decode(image), orientation_of(image)
        if orientation == UPRIGHT:
            return pixels, orientation, None
        return turn(pixels, orientation), orientation, encode_jpeg if is_jpeg(image) else encode_png
    register_heic()
    try:
        with Image.open(io.BytesIO(image), formats=_known()) as opened:
            return _read(opened)
    except Image.UnidentifiedImageError:
        decode(image)  # says what is wrong with it
        raise ImageError("not an image of a known kind") from None
    except ImageError:
        raise
    except Exception as error:  # damaged bytes can raise any kind of error
        raise ImageError(" ".join(str(error).split()) or type(error).__name__) from error


def missing_package(names: Sequence[str]) -> list[str]:
    """A problem for each format that some photos have and the installed packages do not read."""
    formats = (
        ("HEIC", HEIC_SUFFIXES, _reads_heic, f"a package: pip install {HEIC_PACKAGE}"),
        (
            "AVIF",
            AVIF_SUFFIXES,
            _reads_avif,
            f'a later Pillow: pip install --upgrade "{AVIF_PILLOW}"',
        ),
    )
    problems = []
    for kind, suffixes, is_read, remedy in formats:
        of_kind = [name for name in names if name.lower().endswith(suffixes)]
        if of_kind and not is_read():
            problems.append(
                f"{counted(len(of_kind), 'photo is', 'photos are')} {kind}, such as "
                f"{some(of_kind[:1])}: reading that takes {remedy}"
            )
    return problems


def _reads_heic() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


def _reads_avif() -> bool:
    # A Pillow that knows AVIF may have been built without it; one that does not, have a plugin.
    return features.check("avif") if "avif" in features.modules else "AVIF" in _known()


def _read(opened: Image.Image) -> tuple[np.ndarray, int, _Encode]:
    """As `_decode`, for what Pillow opened."""
    if opened.width * opened.height > MAX_PIXELS:
        raise ImageError(
            f"it is {opened.width}x{opened.height} (width x height); images of more than "
            f"{MAX_PIXELS} pixels must be cut in tiles"
        )
    try:
        orientation = orientation_in(opened)
    except Exception:  # damaged EXIF data do not affect the pixels
        orientation = UPRIGHT
    # Pillow turns some TIFFs when it decodes them; then their EXIF data say so no longer.
    upright = ImageOps.exif_transpose(opened) if orientation != UPRIGHT else opened
    pixels = np.asarray(as_rgb(upright))
    return pixels, orientation, _encode_small if opened.format in _LOSSY else encode_png


def _encode_small(pixels: np.ndarray) -> bytes:
    """Encodes pixels with a loss that cannot be seen."""
    return encode_jpeg(pixels) if max(pixels.shape) <= _JPEG_SIDE else encode_png(pixels)


def as_rgb(image: Image.Image) -> Image.Image:
    """Converts any mode to RGB. Of 16 bits the upper 8 stay, as in TensorFlow's PNG decoder.

    Raises:
      ImageError: its pixels are floating-point numbers, or have more than 16 bits.
    """
    if image.mode == "F":
        raise ImageError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode != "I" or values.max(initial=0) > 255:
            values = values >> 8
        if values.min(initial=0) < 0 or values.max(initial=0) > 255:
            raise ImageError("its pixels have more than 16 bits; save it with 8 or 16 bits")
        image = Image.fromarray(values.astype(np.uint8))
    return image.convert("RGB")


@functools.cache
def register_heic() -> None:
    """Teaches Pillow to read HEIC, if the package for it is installed."""
    if _reads_heic():
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)


@functools.cache
def _known() -> tuple[str, ...]:
    """Those of the formats that the installed Pillow reads."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
