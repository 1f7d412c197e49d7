"""A few hundred image files as they come from bad disks, wrong exports and careless cameras.

Everything is drawn from fixed seeds, so that a name stands for the same bytes on every machine with
the same Pillow. All files are made from one picture of `SIZE`, so that what is still readable fits
its mask.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator

import numpy as np
from broken_png import HUGE, crc, encode, palette, png, png_damage, png_forms
from PIL import Image

SIZE = (24, 32)  # height and width
NUM_CLASSES = 3

Files = dict[str, bytes]


def pixels() -> np.ndarray:
    """uint8 [H, W, 3]: soft noise."""
    cells = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(cells).resize(SIZE[::-1], Image.Resampling.BICUBIC))


def ids() -> np.ndarray:
    """uint8 [H, W]: a mask of `NUM_CLASSES` classes and void."""
    result = np.zeros(SIZE, np.uint8)
    result[4:20, 6:18], result[8:16, 20:30], result[0] = 1, 2, 255
    return result


# JPEG.


def jpeg_forms(rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Unusual JPEG files, and JPEG files whose segments are wrong."""
    image = Image.fromarray(rgb)
    cmyk = encode(image.convert("CMYK"), "JPEG")
    adobe = cmyk.index(b"Adobe") + 11
    plain, progressive = encode(image, "JPEG"), encode(image, "JPEG", progressive=True)
    yield "cmyk", cmyk
    yield "ycck", cmyk[:adobe] + b"\x02" + cmyk[adobe + 1 :]
    yield "adobe 7", cmyk[:adobe] + b"\x07" + cmyk[adobe + 1 :]
    yield "grey", encode(image.convert("L"), "JPEG")
    yield "progressive", progressive
    yield "restarts", encode(image, "JPEG", restart_marker_blocks=1)
    yield "no end", plain[:-2]
    yield "garbage behind", plain + b"garbage" * 99
    yield "twice", plain + plain
    yield "filled", plain[:2] + b"\xff" * 40 + plain[2:]
    for name, marker in (
        ("quantization", 0xDB),
        ("huffman", 0xC4),
        ("frame", 0xC0),
        ("scan", 0xDA),
    ):
        at = plain.index(bytes([0xFF, marker]))
        length = 2 + int.from_bytes(plain[at + 2 : at + 4], "big")
        yield f"no {name}", plain[:at] + plain[at + length :]
        yield f"{name} of length 0", plain[: at + 2] + b"\0\0" + plain[at + 4 :]
    for kind, marker, start in (("plain", 0xC0, plain), ("progressive", 0xC2, progressive)):
        at = start.index(bytes([0xFF, marker]))
        yield f"{kind} 12 bit", start[: at + 4] + b"\x0c" + start[at + 5 :]
        yield f"{kind} lossless", start[: at + 1] + b"\xc3" + start[at + 2 :]
        yield f"{kind} arithmetic", start[: at + 1] + b"\xc9" + start[at + 2 :]
        for height, width in HUGE:
            claimed = struct.pack(">HH", height, width)
            yield f"{kind} claims {height}x{width}", start[: at + 5] + claimed + start[at + 9 :]
    for name, exif in EXIF.items():
        yield f"exif {name}", encode(image, "JPEG", exif=b"Exif\0\0" + exif)


def _orientation(value: int) -> bytes:
    return (
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HH", value, 0) + b"\0" * 4
    )


EXIF = {
    "turned": _orientation(6),
    "upside down": _orientation(3),
    "of 77": _orientation(77),
    "empty": b"",
    "cut": _orientation(6)[:15],
    "noise": np.random.default_rng(1).bytes(60),
    "loop": b"MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08",
    "far": b"II*\0\xff\xff\xff\x7f" + b"\0" * 20,
    "many": b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x05\0\xff\xff\xff\x7f\0\0\0\0" * 5,
}


# Other kinds, and noise.

_MAGIC = {
    "jpeg": b"\xff\xd8\xff\xe0",
    "png": b"\x89PNG\r\n\x1a\n",
    "gif": b"GIF89a",
    "bmp": b"BM",
    "webp": b"RIFF\0\0\0\0WEBP",
}


def other_kinds(rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Files that are neither JPEG nor PNG."""
    image = Image.fromarray(rgb)
    frames = {"save_all": True, "append_images": [Image.fromarray(255 - rgb)], "duration": 50}
    array, archive = io.BytesIO(), io.BytesIO()
    np.save(array, rgb)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("image.png"), encode(rgb, "PNG"))
    yield from {
        "empty": b"",
        "one byte": b"\x89",
        "text": b"This is no image.\n" * 20,
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "zip": archive.getvalue(),
        "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 24\n(/etc) run showpage\n%%EOF\n",
        "npy": array.getvalue(),
        "zeros": bytes(4096),
        "noise": np.random.default_rng(2).bytes(4096),
        "link of git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "tiff": encode(image, "TIFF"),
        "gif": encode(image, "GIF"),
        "gif animated": encode(image, "GIF", **frames),
        "bmp": encode(image, "BMP"),
        "bmp alpha": encode(image.convert("RGBA"), "BMP"),
        "webp": encode(image, "WEBP"),
        "webp animated": encode(image, "WEBP", **frames),
        "ico": encode(image, "ICO", sizes=[(16, 16)]),
        "jpeg 2000": encode(image, "JPEG2000"),
    }.items()
    for kind, magic in _MAGIC.items():
        yield f"{kind} by its first bytes", magic
        yield f"noise behind those of {kind}", magic + np.random.default_rng(3).bytes(200)
    gif, bmp = encode(image, "GIF"), encode(image, "BMP")
    for height, width in HUGE[:2]:
        yield (
            f"gif canvas of {height}x{width}",
            gif[:6] + struct.pack("<HH", width, height) + gif[10:],
        )
        yield (
            f"bmp claims {height}x{width}",
            bmp[:18] + struct.pack("<ii", width, height) + bmp[26:],
        )
    yield "bmp claims -32", bmp[:18] + struct.pack("<ii", -32, 24) + bmp[26:]


def truncated(name: str, whole: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    """A file cut off at random places."""
    rng = np.random.default_rng([4, len(whole)])
    for place in sorted(rng.choice(len(whole), count, replace=False)):
        yield f"{name} cut at {place}", whole[:place]


def flipped(name: str, whole: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    """A file with one to four bits flipped anywhere."""
    rng = np.random.default_rng([5, len(whole)])
    for number in range(count):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), 1 + number % 4):
            content[place] ^= 1 << int(rng.integers(8))
        yield f"{name} flipped {number}", bytes(content)


def flipped_header(name: str, whole: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    """A PNG with one bit of its header flipped, and a checksum that fits the flipped header."""
    rng = np.random.default_rng([6, len(whole)])
    for number in range(count):
        content = bytearray(whole)
        content[int(rng.integers(16, 29))] ^= 1 << int(rng.integers(8))
        content[29:33] = struct.pack(">I", crc(b"IHDR", content[16:29]))
        yield f"{name} header {number}", bytes(content)


def images() -> dict[str, Files]:
    """Family -> name -> bytes, to be used as an image."""
    rgb = pixels()
    plain, progressive = encode(rgb, "JPEG"), encode(rgb, "JPEG", progressive=True)
    return {
        "png_forms": dict(png_forms(ids(), rgb)),
        "png_damage": dict(png_damage(ids())),
        "jpeg": dict(jpeg_forms(rgb)),
        "other": dict(other_kinds(rgb)),
        "cut": {
            **dict(truncated("jpeg", plain, 14)),
            **dict(truncated("progressive", progressive, 8)),
            **dict(truncated("png", png(rgb), 8)),
            **dict(truncated("webp", encode(rgb, "WEBP"), 4)),
            **dict(truncated("gif", encode(rgb, "GIF"), 4)),
        },
        "flipped": {
            **dict(flipped("jpeg", plain, 24)),
            **dict(flipped("progressive", progressive, 12)),
            **dict(flipped("png", png(rgb), 10)),
            **dict(flipped_header("png", png(rgb), 10)),
            **dict(flipped("gif", encode(rgb, "GIF"), 6)),
            **dict(flipped("bmp", encode(rgb, "BMP"), 4)),
            **dict(flipped("webp", encode(rgb, "WEBP"), 6)),
        },
    }


def masks() -> dict[str, Files]:
    """Family -> name -> bytes, to be used as a mask."""
    mask = png(ids(), colour=3, before=palette(256))
    return {
        "png_forms": dict(png_forms(ids(), pixels())),
        "png_damage": dict(png_damage(ids())),
        "other": dict(other_kinds(pixels())),
        "jpeg": dict(jpeg_forms(np.stack([ids()] * 3, -1))),
        "changed": {
            **dict(truncated("mask", mask, 10)),
            **dict(flipped("mask", mask, 10)),
            **dict(flipped_header("mask", mask, 14)),
        },
    }
