"""Decodes images, and first refuses those that claim more than the file or memory can hold."""

from __future__ import annotations

import numpy as np

from data import git_lfs
from data.host_tf import reason, tf

# TensorFlow's limit for JPEG. Its limit for PNG is four times as high: 2 GiB a thread.
MAX_PIXELS = 2**29 // 3
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_JPEG_PIXELS_A_BYTE = 8 * 64  # each block of 64 pixels takes at least one bit
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers of a JPEG's size


class ImageError(ValueError):
    """An image that cannot be decoded. The message says why, but not which image it is."""


def decode(image: bytes) -> np.ndarray:
    """Pixels uint8 [H, W, 3] of an image that training can decode.

    Raises:
      ImageError: training cannot decode the image.
    """
    if git_lfs.is_pointer(image):
        raise ImageError(git_lfs.IS_POINTER)
    check_claims(image)
    try:
        # Training uses the same decoder, so an image that passes here cannot fail there.
        decoded = tf.io.decode_image(image, channels=3, expand_animations=False)
    except tf.errors.OpError as error:
        raise ImageError(reason(error)) from error
    return np.asarray(decoded)


def is_jpeg(image: bytes) -> bool:
    """Whether an encoded image is a JPEG, whatever its file is called."""
    return image.startswith(_JPEG)


def is_png(image: bytes) -> bool:
    """Whether an encoded image is a PNG, whatever its file is called."""
    return image.startswith(_PNG)


def check_claims(image: bytes) -> None:
    """Refuses a PNG or JPEG that claims more pixels than its bytes, or our memory, can hold.

    One flipped bit is enough for such a claim. libpng allocates all that a chunk claims to need, up
    to 2 GiB, before it reads the content; libjpeg fills missing pixels with grey.

    Raises:
      ImageError: the image claims too much, or a chunk of a PNG is cut off.
    """
    pixels_a_byte, (height, width) = MAX_PIXELS, (0, 0)
    if is_png(image):
        _check_chunks(image)
        width, height = (int.from_bytes(image[place : place + 4], "big") for place in (16, 20))
    elif is_jpeg(image):
        height, width = _jpeg_size(image)
        pixels_a_byte = _JPEG_PIXELS_A_BYTE
    claimed = f"it claims to be {width}x{height} (width x height)"
    if height * width > MAX_PIXELS:
        raise ImageError(f"{claimed}; images of more than {MAX_PIXELS} pixels must be cut in tiles")
    if height * width > pixels_a_byte * len(image):
        raise ImageError(f"{claimed}, which {len(image)} bytes cannot hold")


def _check_chunks(image: bytes) -> None:
    """Refuses a PNG that ends within a chunk: length (4 bytes), name (4), content, checksum (4)."""
    start = len(_PNG)
    while start < len(image):
        length, name = int.from_bytes(image[start : start + 4], "big"), image[start + 4 : start + 8]
        start += 12 + length
        if name == b"IEND":  # the last chunk; decoders do not read on
            return
    if start > len(image):
        raise ImageError("it ends within one of its parts")


def _jpeg_size(image: bytes) -> tuple[int, int]:
    """Height and width in a JPEG's header; (0, 0) if there is none, which the decoder refuses."""
    start = 2
    while start + 9 <= len(image) and image[start] == 0xFF:
        marker = image[start + 1]
        if marker in _FRAMES:
            height, width = image[start + 5 : start + 7], image[start + 7 : start + 9]
            return int.from_bytes(height, "big"), int.from_bytes(width, "big")
        # 0xFF as a marker is a fill byte. After any other marker comes its segment's length.
        start += 1 if marker == 0xFF else 2 + int.from_bytes(image[start + 2 : start + 4], "big")
    return 0, 0
