"""Reads the folder layout images/{split}/NAME.jpg with labels/{split}/NAME.png."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data.errors import DataError
from data.masks import normalize_mask
from data.records import Example, decodable_size, digest

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_LAYOUT = "expected images/{split}/NAME.jpg (or .png) and labels/{split}/NAME.png"


def check_layout(root: Path, splits: Sequence[str]) -> None:
    """Fails unless every folder of the layout is there.

    Raises:
      DataError: names the missing or empty folders.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set config.data.dir to the data set's folder.")
    problems = []
    for kind in ("images", "labels"):
        for split in splits:
            folder = root / kind / split
            if not folder.is_dir():
                problems.append(f"{folder}: no such folder; {_LAYOUT}.")
            elif kind == "images" and not _images(folder):
                problems.append(f"{folder}: split {split!r} is empty; {_LAYOUT}.")
    if problems:
        raise DataError(problems)


def fingerprint(root: Path, splits: Sequence[str]) -> str:
    """Changes when a file is added, removed, renamed or written: paths, sizes, times.

    Raises:
      DataError: the layout is wrong.
    """
    check_layout(root, splits)
    files = (f for k in ("images", "labels") for s in splits for f in (root / k / s).iterdir())
    lines = []
    for file in sorted(files):
        stat = file.stat()
        lines.append(f"{file.relative_to(root).as_posix()} {stat.st_size} {stat.st_mtime_ns}")
    return digest(*lines)


def read_split(root: Path, split: str, num_classes: int) -> Iterator[tuple[Example, bytes, bytes]]:
    """Yields (example, encoded image, PNG mask) in the order of names.

    A mask that is missing or wrong is noted in `Example.label_error` and stored as b"": the image
    can still be used without a label.

    Raises:
      DataError: after the last image, naming all that cannot be read.
    """
    problems = []
    seen: dict[str, Path] = {}
    for file in _images(root / "images" / split):
        if file.stem in seen:
            problems.append(f"{file}: has the same name as {seen[file.stem].name}; remove one.")
            continue
        seen[file.stem] = file
        content = file.read_bytes()
        try:
            size = decodable_size(content)
        except ValueError as error:
            problems.append(f"{file}: not a readable image ({error}); replace or remove it.")
            continue
        mask = root / "labels" / split / f"{file.stem}.png"
        label, error = _read_mask(mask, size, num_classes)
        yield Example(file.stem, *size, label_error=error), content, label
    if problems:
        raise DataError(problems)


def _read_mask(mask: Path, size: tuple[int, int], num_classes: int) -> tuple[bytes, str]:
    try:
        content = mask.read_bytes()
    except FileNotFoundError:
        return b"", f"{mask}: missing mask; add it, or use the image in the unlabelled split only."
    except OSError as error:
        return b"", f"{mask}: cannot be opened ({error.strerror}); check the file's permissions."
    return normalize_mask(content, mask, size, num_classes)


def _images(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
