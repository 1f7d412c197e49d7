"""Writes PNG files chunk by chunk: Pillow writes only a few of their forms, and no wrong ones."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

HUGE = ((60_000, 60_000), (65_535, 65_535), (1, 65_535), (65_535, 1), (13_000, 13_000), (0, 0))


def encode(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    """An image as a file of Pillow's `kind`."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc(name, content))


def crc(name: bytes, content: bytes) -> int:
    """The checksum of a chunk."""
    return zlib.crc32(name + content)


def png(
    array: np.ndarray,
    *,
    depth: int = 8,
    colour: int | None = None,
    interlaced: bool = False,
    before: bytes = b"",
    size: tuple[int, int] | None = None,
    data: Callable[[bytes], bytes] = zlib.compress,
    end: bytes | None = None,
) -> bytes:
    """A PNG file.

    Args:
      array: [H, W] or [H, W, channels], of values that `depth` bits hold.
      depth: bits a value.
      colour: PNG's colour type; by default the one for the array's number of channels.
      interlaced: whether to interlace, by Adam7.
      before: chunks that come before the pixels.
      size: height and width that the header claims.
      data: rows -> content of IDAT.
      end: what comes after the pixels; by default IEND.
    """
    array = array[..., None] if array.ndim == 2 else array
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[array.shape[2]] if colour is None else colour
    height, width = size or array.shape[:2]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
        passes += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(_rows(array[y::dy, x::dx], depth) for y, x, dy, dx in passes)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), before, chunk(b"IDAT", data(rows))]
    return b"".join([*parts, chunk(b"IEND", b"") if end is None else end])


def _rows(part: np.ndarray, depth: int) -> bytes:
    """Rows of a PNG, none of them filtered."""
    flat = part.reshape(len(part), -1)
    if depth == 16:
        packed = flat.astype(">u2").view(np.uint8)
    else:
        bits = np.unpackbits(flat.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        packed = np.packbits(bits.reshape(len(part), -1), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in packed)


def palette(colours: int) -> bytes:
    """A chunk with a palette of `colours` colours."""
    return chunk(b"PLTE", bytes(i * 37 % 256 for i in range(3 * colours)))


def png_forms(grey: np.ndarray, rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """PNG files of all kinds of pixels; values of `grey` are below 4, or 255."""
    low = np.where(grey > 3, 3, grey)
    for depth in (1, 2, 4):
        values = low % 2**depth
        yield f"grey {depth} bit", png(values, depth=depth)
        yield (
            f"palette {depth} bit",
            png(values, depth=depth, colour=3, before=palette(2**depth)),
        )
    alpha = np.where(grey == 1, 0, 255).astype(np.uint8)[..., None]
    yield "grey 8 bit", png(grey)
    yield "grey 16 bit", png(grey.astype(np.uint16) * 257, depth=16)
    yield "rgb 16 bit", png(rgb.astype(np.uint16) * 257, depth=16)
    yield "rgb", png(rgb)
    yield "rgb interlaced", png(rgb, interlaced=True)
    yield "grey interlaced", png(grey, interlaced=True)
    yield "palette", png(grey, colour=3, before=palette(256))
    yield "palette interlaced", png(grey, colour=3, before=palette(256), interlaced=True)
    transparent = palette(256) + chunk(b"tRNS", bytes([0, 255]))
    yield "palette transparent", png(grey, colour=3, before=transparent)
    yield "palette too short", png(grey, colour=3, before=palette(2))
    yield "palette missing", png(grey, colour=3)
    yield "grey alpha", png(np.concatenate([grey[..., None], alpha], -1))
    yield "rgb alpha", png(np.concatenate([rgb, alpha], -1))
    yield (
        "animated",
        encode(
            Image.fromarray(grey), "PNG", save_all=True, append_images=[Image.fromarray(grey + 1)]
        ),
    )
    yield "colour type 5", png(grey, colour=5)
    yield "depth 3", png(low, depth=4).replace(b"\x04\0\0\0\0", b"\x03\0\0\0\0", 1)


def png_damage(grey: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """PNG files whose chunks are wrong."""
    whole = png(grey)
    yield "no end", png(grey, end=b"")
    yield "no pixels", whole[:33] + whole[-12:]
    yield "rows missing", png(grey, data=lambda rows: zlib.compress(rows[: len(rows) // 2]))
    yield "rows too many", png(grey, data=lambda rows: zlib.compress(rows * 3))
    yield "not compressed", png(grey, data=lambda rows: rows)
    yield (
        "checksum of the pixels",
        png(grey, data=lambda rows: zlib.compress(rows)[:-4] + b"\0" * 4),
    )
    yield "unknown filter", png(grey, data=lambda rows: zlib.compress(b"\x09" + rows[1:]))
    yield "unknown chunk", png(grey, before=chunk(b"ABCD", b"x" * 9))
    yield "long chunk", png(grey, before=struct.pack(">I", 2**31 - 1) + b"tEXt" + b"x" * 9)
    yield "text bomb", png(grey, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26))))
    yield "profile", png(grey, before=chunk(b"iCCP", b"a\0\0" + b"no profile"))
    yield "exif", png(grey, before=chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + b"x" * 30))
    yield "garbage behind", whole + b"garbage" * 99
    yield "twice", whole + whole
    yield "header twice", whole[:33] + whole[8:]
    for height, width in (*HUGE, (2**31 - 1, 2**31 - 1)):
        yield f"claims {height}x{width}", png(grey, size=(height, width))
    bomb = np.zeros((1, 20_000), np.uint8)

    def packed(row):
        return zlib.compress(row * 20_000, 1)

    yield "bomb of 1 bit", png(bomb, depth=1, size=(20_000, 20_000), data=packed)
