"""Reads masks, checks their class ids, and encodes them in the one form that records hold."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from data import git_lfs
from data.images import MAX_PIXELS
from data.label_values import VOID

# Pillow's modes of PNG files that hold numbers, but not 8-bit ids -> what is wrong with them.
_ALMOST_IDS = {
    "I": "16 bits a pixel",
    "I;16": "16 bits a pixel",
    "LA": "a second channel, for transparency",
}
# Smoothing makes at least so many ids, of each of which less than this share has like neighbours.
# Together they have less than the share _EDGES of all pixels.
_BLENDED_IDS, _ALIKE, _EDGES = 8, 0.5, 0.25
_BIT_DEPTH = 24  # position of the byte in a PNG file that says how many bits a pixel has
Reader = Callable[[bytes, str], np.ndarray]  # (content, file for messages) -> ids uint8 [H, W]
Image.MAX_IMAGE_PIXELS = None  # Pillow's limit is off: ours, MAX_PIXELS, tells users what to do


# In what is said of a mask whose size is not its photo's.
SIZES_DIFFER = "export both at the same size"


class MaskError(ValueError):
    """A mask that cannot be used; the message names the file and the remedy."""


class ColouredMaskError(MaskError):
    """A mask of colours, of which nothing says which class they are."""


def read_ids(content: bytes, where: str) -> np.ndarray:
    """Reads a mask's file; of an image with a palette it returns the indices.

    Args:
      content: the file's bytes.
      where: the file, for messages.

    Returns:
      uint8 [H, W].

    Raises:
      MaskError: the file is not an image of ids.
    """
    if git_lfs.is_pointer(content):
        raise MaskError(f"{where}: {git_lfs.IS_POINTER}.")
    try:
        # Only PNG: JPEG changes ids, and for some formats Pillow would start other programs.
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            _check_form(image, content, where)  # before memory is allocated for pixels
            return np.asarray(image)
    except MaskError:
        raise
    except Exception as error:  # damaged bytes make Pillow raise any kind of error
        unknown = isinstance(error, UnidentifiedImageError)
        raise MaskError(
            f"{where}: cannot be read as an image ({'not a PNG' if unknown else error}); "
            "write it again as an 8-bit PNG."
        ) from error


def _check_form(image: Image.Image, content: bytes, where: str) -> None:
    """Checks what a PNG's header says."""
    if image.width * image.height > MAX_PIXELS:
        raise MaskError(
            f"{where}: the mask is {image.width}x{image.height} (width x height), and no image can "
            f"have more than {MAX_PIXELS} pixels; export both at the same size."
        )
    if image.mode in ("1", "L") and content[_BIT_DEPTH] < 8:
        raise MaskError(
            f"{where}: has fewer than 8 bits a pixel, in which ids are read as shades of grey; "
            "write it again as an 8-bit PNG."
        )
    if image.mode in _ALMOST_IDS:
        raise MaskError(
            f"{where}: the mask has {_ALMOST_IDS[image.mode]}; save it as an 8-bit PNG with one "
            "channel of ids, no larger than 255."
        )
    if image.mode not in ("L", "P"):
        raise ColouredMaskError(
            f"{where}: the mask has mode {image.mode}, not class ids; in a folder of your own, "
            "write each class's colour behind its name in classes.txt (road #804080), or add "
            f"labelmap.txt (docs/masks.md); or save an 8-bit PNG of ids ({VOID} = void)."
        )


def check_ids(ids: np.ndarray, where: str, size: tuple[int, int], num_classes: int) -> None:
    """Checks ids against their image and the classes.

    Args:
      ids: uint8 [H, W].
      where: the file, for messages.
      size: height and width of the mask's image.
      num_classes: K; ids 0..K-1 and 255 are allowed.

    Raises:
      MaskError: the mask's size is not the image's, or an id is not allowed.
    """
    if problem := other_size(ids.shape, size):
        raise MaskError(f"{where}: {problem}.")
    present = np.flatnonzero(np.bincount(ids.ravel(), minlength=256))
    wrong = present[(present >= num_classes) & (present != VOID)]
    if not wrong.size:
        return
    blended = _blended(ids, wrong)
    share = np.isin(ids, blended).mean()
    if len(blended) >= _BLENDED_IDS and share < _EDGES:
        raise MaskError(
            f"{where}: {len(blended)} ids that are no class ({blended[0]} to {blended[-1]}) lie "
            f"along edges, in {share:.1%} of the pixels: the mask was saved with smoothed edges "
            "(anti-aliasing, a resize that blends) or as JPEG. Export it again without: draw with "
            "hard edges, resize by nearest neighbour, save as PNG."
        )
    raise MaskError(
        f"{where}: ids {wrong.tolist()} are neither classes 0..{num_classes - 1} nor {VOID} "
        "(void); remap them (or, in a folder of your own, add their names to classes.txt)."
    )


def other_size(shape: tuple[int, ...], size: tuple[int, int]) -> str:
    """What to say of a mask [H, W] whose size is not that of its image; "" if it is."""
    if shape == size:
        return ""
    hint = "; one of them is turned" if shape == size[::-1] else ""
    return (
        f"the mask is {shape[1]}x{shape[0]} and its image {size[1]}x{size[0]} "
        f"(width x height){hint}; {SIZES_DIFFER}"
    )


def _blended(ids: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Those of the ids `wrong` that are mixtures of neighbouring ids.

    In masks that someone drew, most pixels have the id of a neighbour in both directions. Pixels
    of smoothed edges and of JPEG's noise have not.
    """
    beside, below = ids[:, :-1] == ids[:, 1:], ids[:-1] == ids[1:]
    alike = np.zeros((2, *ids.shape), bool)
    alike[0, :, :-1] |= beside
    alike[0, :, 1:] |= beside
    alike[1, :-1] |= below
    alike[1, 1:] |= below
    counts = np.bincount(ids.ravel(), minlength=256)
    share = np.bincount(ids[alike.all(0)], minlength=256) / np.maximum(counts, 1)
    return wrong[share[wrong] < _ALIKE]


def stored(
    read: Callable[[], np.ndarray], where: str, size: tuple[int, int], num_classes: int
) -> tuple[bytes, str]:
    """Reads, checks and encodes a mask.

    Args:
      read: returns the ids, uint8 [H, W]; may raise `MaskError`.
      where: the file, for messages.
      size: height and width of the mask's image.
      num_classes: K; ids 0..K-1 and 255 are allowed.

    Returns:
      (PNG with one channel, "") or (b"", what is wrong with the mask and how to mend it).
    """
    try:
        ids = read()
        check_ids(ids, where, size, num_classes)
    except MaskError as error:
        return b"", str(error)
    return encode_png(ids), ""


def encode_png(array: np.ndarray) -> bytes:
    """Encodes uint8 [H, W] or [H, W, 3] as a PNG, compressed fast rather than well."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def decode_mask(content: bytes) -> np.ndarray:
    """Ids uint8 [H, W] of a mask that `stored` returned."""
    return np.asarray(Image.open(io.BytesIO(content)))
