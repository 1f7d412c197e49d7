"""What can be said of an encoded image before a decoder takes time and memory for it."""

from __future__ import annotations

import numpy as np

from data.host_tf import reason, tf

# TensorFlow's limit for JPEG; its one for PNG, four times as much, takes 2 GiB a thread.
MAX_PIXELS = 2**29 // 3
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_JPEG_PIXELS_A_BYTE = 8 * 64  # a block of 64 pixels takes one bit at the least
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers that lead a JPEG's size


class ImageError(ValueError):
    """An image that cannot be decoded; the message says why, and does not name it."""


def decode(image: bytes) -> np.ndarray:
    """Pixels uint8 [H, W, 3] of an image that training can decode.

    Raises:
      ImageError: it cannot.
    """
    check_claims(image)
    try:
        # The decoder training uses: what passes here cannot fail there.
        decoded = tf.io.decode_image(image, channels=3, expand_animations=False)
    except tf.errors.OpError as error:
        raise ImageError(reason(error)) from error
    return np.asarray(decoded)


def is_jpeg(image: bytes) -> bool:
    """Whether an encoded image is a JPEG, whatever its file is called."""
    return image.startswith(_JPEG)


def check_claims(image: bytes) -> None:
    """Refuses a PNG or JPEG that claims more than its bytes can hold, or more than memory should.

    One flipped bit is enough for that. libpng takes all the memory that a chunk claims to need, up
    to 2 GiB, before it looks for its content, and libjpeg fills what is missing with grey.

    Raises:
      ImageError: it does.
    """
    pixels_a_byte, (height, width) = MAX_PIXELS, (0, 0)
    if image.startswith(_PNG):
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
    """PNG: chunks of length (4 bytes), name (4), content and checksum (4), the last one IEND."""
    start = len(_PNG)
    while start < len(image):
        length, name = int.from_bytes(image[start : start + 4], "big"), image[start + 4 : start + 8]
        start += 12 + length
        if name == b"IEND":  # what comes behind it is not read
            return
    if start > len(image):
        raise ImageError("it ends within one of its parts")


def _jpeg_size(image: bytes) -> tuple[int, int]:
    """What a JPEG's header says; (0, 0) if it has none, which the decoder will find, too."""
    start = 2
    while start + 9 <= len(image) and image[start] == 0xFF:
        marker = image[start + 1]
        if marker in _FRAMES:
            height, width = image[start + 5 : start + 7], image[start + 7 : start + 9]
            return int.from_bytes(height, "big"), int.from_bytes(width, "big")
        # A marker may follow any number of fill bytes; of others the length comes next.
        start += 1 if marker == 0xFF else 2 + int.from_bytes(image[start + 2 : start + 4], "big")
    return 0, 0
