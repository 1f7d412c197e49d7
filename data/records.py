"""Prepared records of one split: what they are, where they lie, and random access to them.

A split's records are a TFDS data set in ArrayRecord files, so that example i is read directly:
`image` (encoded bytes, as they came; a photo that is stored turned is made upright), `label` (PNG,
one channel), `id`. What must be known about an example without reading it lies beside them in
examples.json, with files named relative to the data set's folder, which may be moved or copied.
`data.preparation` writes them.
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

VERSION = "2.2.0"  # of the records' form; another one is prepared anew
TFDS_SPLIT = "examples"  # the only one of each data set
EXAMPLES = "examples.json"


@dataclasses.dataclass(frozen=True)
class Example:
    """What is known about an example without reading it.

    Attributes:
      id: its name, unique in the split.
      height, width: of the image as it is displayed, in pixels.
      label_error: why its mask cannot be used, with the file and the remedy; "" if it can. It
        matters only to splits whose masks are read.
      digest: of the image's encoded bytes as they came: equal for copies of one file.
      label_digest: of the mask, as it is stored.
    """

    id: str
    height: int
    width: int
    label_error: str
    digest: str
    label_digest: str


@dataclasses.dataclass(frozen=True)
class Records:
    """The prepared records of one split.

    Attributes:
      path: where they lie.
      class_names: K names.
      examples: in the order of the records.
      origin: what they were made from, as the user gave it: splits with different ones do not
        belong together.
      root: the folder that held the files when they were prepared; "" if there were none.
    """

    path: Path
    class_names: tuple[str, ...]
    examples: tuple[Example, ...]
    origin: str
    root: str

    def read(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        """Reads records: {"image", "label", "id"} each, encoded.

        Raises:
          DataError: they are damaged.
        """
        try:
            return self._source.__getitems__(list(indices))
        except MemoryError:
            raise
        except Exception:  # ArrayRecord, protobuf and TFDS each have their own
            pass
        try:  # once more: what a network's disk failed at for a moment is not damaged
            return self._source.__getitems__(list(indices))
        except Exception as error:
            raise _damaged(self.path, error) from error

    @functools.cached_property
    def _source(self) -> Any:
        encoded = dict.fromkeys(("image", "label"), tfds.decode.SkipDecoding())
        builder = tfds.builder_from_directory(self.path)
        return builder.as_data_source(TFDS_SPLIT, decoders=encoded)


def records_path(prepared_dir: str, name: str, split: str, fingerprint: str) -> Path:
    """Where a split's records lie; `fingerprint` must change whenever their content would."""
    root = Path(prepared_dir).expanduser().absolute()
    return root / name / f"{split}-{fingerprint}" / VERSION


def prepared_paths(prepared_dir: str, name: str) -> dict[str, list[Path]]:
    """Every prepared copy of a data set: split -> paths."""
    found: dict[str, list[Path]] = {}
    for path in sorted(Path(prepared_dir).expanduser().absolute().glob(f"{name}/*/{VERSION}")):
        if (path / EXAMPLES).is_file():
            found.setdefault(path.parent.name.rpartition("-")[0], []).append(path)
    return found


def earlier_copies(current: Records) -> list[Path]:
    """Folders of other prepared copies of the same split of the same files, as they were before."""
    folder, name = current.path.parent, current.path.parent.name
    split = name.rpartition("-")[0]
    copies = {}
    for file in sorted(folder.parent.glob(f"{split}-*/*/{EXAMPLES}")):
        version, copy = file.parent, file.parent.parent
        if version == current.path or copy.name.rpartition("-")[0] != split:
            continue
        with contextlib.suppress(OSError, ValueError, AttributeError):  # damaged
            if current.root and json.loads(file.read_text("utf-8")).get("root") == current.root:
                copies[version if copy == folder else copy] = None
    return list(copies)


def open_records(path: Path, root: str = "") -> Records:
    """Opens prepared records.

    Args:
      path: see `records_path`.
      root: the folder that holds the files now; without it messages name them relative to it.

    Raises:
      DataError: they are damaged.
    """
    try:
        known = json.loads((path / EXAMPLES).read_text(encoding="utf-8"))
        examples = tuple(_named_below(root, Example(*row)) for row in known["examples"])
        names = tuple(known["class_names"])
        return Records(path, names, examples, known["origin"], known["root"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path / EXAMPLES, error) from error


def _named_below(root: str, example: Example) -> Example:
    """The example with its error naming a file of today's `root`; one elsewhere keeps its path."""
    if not example.label_error:
        return example
    return dataclasses.replace(example, label_error=os.path.join(root, example.label_error))


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
