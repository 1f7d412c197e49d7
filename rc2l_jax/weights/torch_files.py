"""Files of torch.save, read without torch and without running what is in them.

Since torch 1.6 they are zip archives: NAME/data.pkl is a pickle that refers to storages, and
NAME/data/KEY has each storage's bytes, uncompressed. Before, a file was a sequence of pickles (a
magic number, the version, the machine, the content, the storages' keys), followed by each storage's
count of numbers and bytes. Format: torch/serialization.py.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rc2l_jax.weights import numpy_pickles
from rc2l_jax.weights.errors import WeightsError, first_line
from rc2l_jax.weights.numpy_pickles import ZIP_START
from rc2l_jax.weights.stored import read_bytes
from rc2l_jax.weights.torch_tensors import KNOWN, Source, Storage, StorageType, is_count
from rc2l_jax.weights.unpickle import Refused, plain_key, unpickle

_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
_LOCAL_HEADER = 30  # the bytes of an entry's header, without its names
_CHUNK = 2**20
_REMEDY = "Where it was made, save network.state_dict() alone, or save safetensors"
_NO_WEIGHTS = "not a readable torch file of weights"


@contextlib.contextmanager
def open_torch(path: Path) -> Iterator[Any]:
    """Opens a file of torch.save (.pth, .pt, .bin) of any version since 0.2.

    Yields:
      What the file holds: plain containers, with a `StoredArray` for each tensor, which can be read
      until the end of the block.

    Raises:
      WeightsError: the file is damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            yield _content(file)
    except WeightsError:
        raise
    except Refused as error:
        raise WeightsError(
            f"{path}: {_NO_WEIGHTS}, and nothing of it was run: {error}. {_REMEDY}"
        ) from None
    except Exception as error:  # a damaged file can raise anything
        reason = f"{_NO_WEIGHTS} ({first_line(error)})"
        raise WeightsError(f"{path}: {reason}; is it complete?") from error


def _content(file: BinaryIO) -> Any:
    start = file.read(512)
    file.seek(0)
    if start.startswith(ZIP_START):
        return _Archive(file).content()
    if start[257:262] == b"ustar":
        raise Refused("it is a tar archive of torch 0.1; a later torch can save it anew")
    return _legacy_content(file)


class _Archive:
    """The zip archive of a file of torch."""

    def __init__(self, file: BinaryIO):
        self._source = Source(file)
        self._folder, self._starts = "", {}
        with zipfile.ZipFile(file) as archive:
            self._entries = {entry.filename: entry for entry in archive.infolist()}
        # As after torch.serialization.set_crc32_options(False).
        self._has_checksums = any(entry.CRC for entry in self._entries.values())

    def content(self) -> Any:
        pickles = [x for x in self._entries if x.endswith("/data.pkl") and x.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError("a zip archive without data.pkl")
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}constants.pkl" in self._entries:
            raise Refused("it is a TorchScript program")
        if f"{self._folder}byteorder" in self._entries:
            self._source.byteorder = self._read("byteorder").decode()
            if self._source.byteorder not in ("little", "big"):
                raise ValueError("an unknown order of bytes")
        return unpickle(io.BytesIO(self._read("data.pkl")), KNOWN, self._storage)

    def _storage(self, identity: Any) -> Storage:
        kind, key, numbers = _identity(identity, fields=5)
        entry = self._entry(f"data/{key}")
        if entry.file_size != numbers * kind.itemsize:
            raise ValueError(
                f"storage {key} has {entry.file_size} bytes instead of {numbers * kind.itemsize}"
            )
        start = functools.partial(self._start, f"data/{key}")
        return Storage(self._source, kind, entry.file_size, start)

    def _read(self, name: str) -> bytes:
        size = self._entry(name).file_size
        return read_bytes(self._source.file, self._start(name), size).tobytes()

    def _entry(self, name: str) -> zipfile.ZipInfo:
        entry = self._entries.get(self._folder + name)
        if entry is None:
            raise ValueError(f"{name} is missing")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError(f"{name} is compressed, which torch.save does not do")
        return entry

    def _start(self, name: str) -> int:
        """Finds where an entry's bytes begin, after checking that they are there and intact."""
        if name in self._starts:
            return self._starts[name]
        entry, file = self._entry(name), self._source.file
        header = read_bytes(file, entry.header_offset, _LOCAL_HEADER).tobytes()
        if not header.startswith(ZIP_START):
            raise ValueError(f"{name} is not where it should be")
        start = entry.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", header[26:30]))
        if start + entry.file_size > self._source.size:
            raise EOFError("it ends too early")
        checksum = 0
        for offset in range(0, entry.file_size, _CHUNK):
            count = min(_CHUNK, entry.file_size - offset)
            checksum = zlib.crc32(read_bytes(file, start + offset, count), checksum)
        if self._has_checksums and checksum != entry.CRC:
            raise ValueError(f"the checksum of {name} is wrong")
        self._starts[name] = start
        return start


def _legacy_content(file: BinaryIO) -> Any:
    if unpickle(file, numpy_pickles.KNOWN) != _LEGACY_MAGIC:
        raise ValueError("not written by torch.save; name a pickle of NumPy arrays NAME.pkl")
    if unpickle(file, {}) != _LEGACY_VERSION:
        raise ValueError("an unknown version of the format")
    unpickle(file, {})  # the machine; the numbers are little-endian on any
    after_header = file.tell()
    source, storages = Source(file), _LegacyStorages()
    file.seek(after_header)
    content = unpickle(file, KNOWN, functools.partial(storages.load, source))
    storages.find(source, unpickle(file, {}))
    return content


class _LegacyStorages:
    """The storages of a file before torch 1.6, which follow the pickle that refers to them."""

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[int, int]] = {}  # numbers, and bytes of each
        self._starts: dict[str, int] = {}

    def load(self, source: Source, identity: Any) -> Storage:
        kind, key, numbers, view = _identity(identity, fields=6)
        if self._sizes.setdefault(key, (numbers, kind.itemsize)) != (numbers, kind.itemsize):
            raise ValueError(f"storage {key} has two sizes")
        skipped = 0
        if view is not None:  # of files before torch 0.4
            _, skipped, numbers = view
            if not is_count(skipped) or not is_count(numbers):
                raise ValueError(f"a view of storage {key} has no size")
            if skipped + numbers > self._sizes[key][0]:
                raise ValueError(f"a view of storage {key} reaches beyond it")

        def start() -> int:
            return self._starts[key] + skipped * kind.itemsize

        return Storage(source, kind, numbers * kind.itemsize, start)

    def find(self, source: Source, keys: Any) -> None:
        """Finds all storages, the first of which is at the file's position.

        Args:
          source: the file.
          keys: the storages' keys in the order of the file.
        """
        if not isinstance(keys, list) or set(map(plain_key, keys)) != set(self._sizes):
            raise ValueError("its storages are not those of its tensors")
        start = source.file.tell()
        for key in keys:
            (numbers,) = struct.unpack("<q", read_bytes(source.file, start, 8))
            if numbers != self._sizes[key][0]:
                raise ValueError(f"storage {key} has {numbers} numbers, not {self._sizes[key][0]}")
            self._starts[key] = start + 8
            start += 8 + math.prod(self._sizes[key])
            if start > source.size:
                raise EOFError("it ends too early")


def _identity(identity: Any, fields: int) -> tuple[Any, ...]:
    """Checks the persistent id of a storage.

    Returns:
      Its class, its key, its count of numbers, and what else there is after these.
    """
    if isinstance(identity, tuple) and identity and identity[0] == "module":
        raise Refused("it is a whole network")
    if not isinstance(identity, tuple) or len(identity) != fields or identity[0] != "storage":
        raise ValueError("a reference to something that is no storage")
    _, kind, key, _, numbers, *rest = identity
    if not isinstance(kind, StorageType) or not isinstance(key, str) or not is_count(numbers):
        raise ValueError("a storage without a type, a key or a size")
    return kind, key, numbers, *rest
