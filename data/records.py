"""Prepared records of one split: their form, their place, and random access to them.

A split's records are a TFDS data set in ArrayRecord files, so that any example is read directly. A
record holds `image` (the file's bytes, encoded again only if the photo was stored turned, in a
format that training does not decode, or larger than `data.prepared_short_edge`), `label` (PNG, one
channel) and `id`. Beside the records lies examples.json, with what must be known about an example
without reading it. It names files relative to the data set's folder, so that this folder may be
moved or copied. `data.preparation` writes all of this.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data.errors import DataError

VERSION = "2.2.0"  # of the records' form; records of another version are prepared anew
TFDS_SPLIT = "examples"  # the one split of each TFDS data set
EXAMPLES = "examples.json"


@dataclasses.dataclass(frozen=True)
class Example:
    """What is known about an example without reading it.

    Attributes:
      id: its name, unique in the split.
      height, width: of the image in the record, upright, in pixels.
      label_error: why its mask cannot be used, with the file and the remedy; "" if it can. It
        matters only if the split's masks are read.
      digest: of the image file's bytes; equal for copies of one file.
      label_digest: of the mask as it is stored.
      image_error: why the image cannot be used, with the file and the remedy; "" if it can. If not,
        height and width are 0.
    """

    id: str
    height: int
    width: int
    label_error: str
    digest: str
    label_digest: str
    image_error: str = ""  # earlier versions wrote no such field, and no record of such an image

    def row(self) -> list[str | int]:
        """The fields as a list, from which `Example(*row)` makes it again."""
        fields = list(dataclasses.astuple(self))
        return fields if self.image_error else fields[:-1]  # so that earlier versions can read it

    @property
    def error(self) -> str:
        """Why it cannot be used with its mask; "" if it can."""
        return self.image_error or self.label_error


@dataclasses.dataclass(frozen=True)
class Records:
    """The prepared records of one split.

    Attributes:
      path: their folder.
      class_names: K names.
      examples: in the order of the records.
      origin: what they were made from, as the user gave it. Splits with different origins do not
        belong to one data set.
      root: the folder that held the files when they were prepared; "" if there were none.
      notes: what was done to the files that a user should know.
      short_edge: `data.prepared_short_edge`, to which larger photos were shrunk; 0 if none were.
    """

    path: Path
    class_names: tuple[str, ...]
    examples: tuple[Example, ...]
    origin: str
    root: str
    notes: tuple[str, ...] = ()
    short_edge: int = 0  # earlier versions wrote no such field, and shrank nothing

    def read(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        """Reads records: {"image", "label", "id"} each, encoded.

        Raises:
          DataError: the records are damaged.
        """
        try:
            return self._source.__getitems__(list(indices))
        except MemoryError:
            raise
        except Exception:  # ArrayRecord, protobuf and TFDS each raise their own kind
            pass
        try:  # once more: a network disk may have failed for a moment only
            return self._source.__getitems__(list(indices))
        except Exception as error:
            raise _damaged(self.path, error) from error

    @functools.cached_property
    def _source(self) -> Any:
        encoded = dict.fromkeys(("image", "label"), tfds.decode.SkipDecoding())
        builder = tfds.builder_from_directory(self.path)
        return builder.as_data_source(TFDS_SPLIT, decoders=encoded)


def records_path(prepared_dir: str, name: str, split: str, fingerprint: str) -> Path:
    """The folder of a split's records; `fingerprint` must change whenever their content would."""
    root = Path(prepared_dir).expanduser().absolute()
    return root / name / f"{split}-{fingerprint}" / VERSION


def split_of(path: Path) -> str:
    """The split whose records lie in a folder that `records_path` named."""
    return path.parent.name.rpartition("-")[0]


def prepared_paths(prepared_dir: str, name: str) -> dict[str, list[Path]]:
    """Every prepared copy of a data set: split -> paths."""
    found: dict[str, list[Path]] = {}
    for path in sorted(Path(prepared_dir).expanduser().absolute().glob(f"{name}/*/{VERSION}")):
        if (path / EXAMPLES).is_file():
            found.setdefault(split_of(path), []).append(path)
    return found


def other_copies(current: Records) -> list[Path]:
    """Folders of copies of this split of earlier files, or that were prepared in another way."""
    folder, split = current.path.parent, split_of(current.path)
    copies = {}
    for file in sorted(folder.parent.glob(f"{split}-*/*/{EXAMPLES}")):
        version, copy = file.parent, file.parent.parent
        if version == current.path or copy.name.rpartition("-")[0] != split:
            continue
        with contextlib.suppress(OSError, ValueError, AttributeError):  # of a damaged file
            if current.root and json.loads(file.read_text("utf-8")).get("root") == current.root:
                copies[version if copy == folder else copy] = None
    return list(copies)


def open_records(path: Path, root: str = "") -> Records:
    """Opens prepared records.

    Args:
      path: their folder.
      root: the folder that holds the files now. Messages name files below it; if it is "", they
        name files without their folder's path.

    Raises:
      DataError: examples.json is missing or damaged.
    """
    try:
        known = json.loads((path / EXAMPLES).read_text(encoding="utf-8"))
        examples = tuple(_named_below(root, Example(*row)) for row in known["examples"])
        names = tuple(known["class_names"])
        notes, short_edge = tuple(known.get("notes", ())), known.get("short_edge", 0)
        return Records(path, names, examples, known["origin"], known["root"], notes, short_edge)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path / EXAMPLES, error) from error


def _named_below(root: str, example: Example) -> Example:
    """The example, with the files in its errors named below `root`; absolute paths are kept."""
    errors = {"label_error": example.label_error, "image_error": example.image_error}
    named = {field: os.path.join(root, error) for field, error in errors.items() if error}
    return dataclasses.replace(example, **named)


def _damaged(path: Path, error: Exception) -> DataError:
    folder = path.parent if path.suffix == ".json" else path
    why = next(iter(str(error).splitlines()), type(error).__name__)
    return DataError(f"{path}: damaged ({why}); delete {folder} and run --mode=prepare.")


def digest(*parts: str | bytes) -> str:
    """A short fingerprint of texts or bytes."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\0")
    return total.hexdigest()[:16]
