"""Generated photos and masks, as files about as large, and as slow to read, as real ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

QUALITY = 90  # makes JPEG files about as large as VOC's, 100 kB


def picture(seed: int, size: tuple[int, int], grain: float = 12.0) -> np.ndarray:
    """Soft shapes and grain.

    Args:
      seed: another one gives another picture.
      size: height and width.
      grain: standard deviation, in grey levels.

    Returns:
      uint8 [*size, 3].
    """
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    soft = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), np.float32)
    return np.clip(soft + rng.normal(0, grain, soft.shape), 0, 255).astype(np.uint8)


def regions(seed: int, size: tuple[int, int]) -> np.ndarray:
    """A mask with three classes in curved regions, and void between them.

    Args:
      seed: another one gives another mask.
      size: height and width.

    Returns:
      uint8 [*size], ids 0 to 20 and 255.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(rows - rng.integers(size[0]), columns - rng.integers(size[1]))
    distance += 20 * np.sin(columns / 30 + rng.normal())
    classes = rng.integers(1, 21, 3)
    ids = np.zeros(size, np.uint8)
    for shown, radius in zip(classes, (180, 120, 60)):
        ids[distance < radius] = 255
        ids[distance < radius - 5] = shown
    return ids


def encode(pixels: np.ndarray, kind: str) -> bytes:
    """Encodes pixels as "JPEG" or "PNG"."""
    buffer = io.BytesIO()
    options = {"quality": QUALITY} if kind == "JPEG" else {}
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    return buffer.getvalue()


def write_folder(root: Path, count: int, size: tuple[int, int], kind: str, grain: float) -> None:
    """Writes a data set of the "folder" kind: `count` images to train on, 1 to evaluate on.

    Args:
      root: the folder, which is made.
      count: number of training images.
      size: height and width.
      kind: "JPEG" or "PNG", of the images; masks are PNG.
      grain: standard deviation of the images' grain, in grey levels.
    """
    for part in ("images", "labels"):
        for split in ("train", "val"):
            (root / part / split).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(f"class {i}" for i in range(21)))
    for i in range(count + 1):
        name = f"train/{i:05d}" if i < count else "val/0"
        suffix = {"JPEG": ".jpg", "PNG": ".png"}[kind]
        image = encode(picture(i, size, grain), kind)
        (root / "images" / f"{name}{suffix}").write_bytes(image)
        (root / "labels" / f"{name}.png").write_bytes(encode(regions(i, size), "PNG"))
