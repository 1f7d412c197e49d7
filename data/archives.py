"""The files of tar and zip archives, as trees that nobody has to unpack."""

from __future__ import annotations

import functools
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from data.errors import DataError
from data.names import by_normal_form
from data.trees import is_litter
from data.whole_files import partial_name


class _Archive:
    """What tar and zip files have in common."""

    def __init__(self, path: Path, names: Iterable[str]):
        self._path = path
        kept = (name for name in names if not any(map(is_litter, name.split("/"))))
        self._stored = by_normal_form(kept, str(path))
        self.names = tuple(sorted(self._stored))

    @functools.cached_property
    def _stamp(self) -> str:
        stat = self._path.stat()
        return f"{self._path.name} {stat.st_size} {stat.st_mtime_ns}"

    def stamp(self, name: str) -> str:
        """Text that changes whenever the archive does."""
        return f"{self._stamp} {name}"

    def where(self, name: str) -> str:
        """The archive's path and the file's name in it."""
        return f"{self._path}:{name}"


class TarTree(_Archive):
    """The files of an uncompressed tar archive, which are read without unpacking it."""

    def __init__(self, path: Path):
        """Reads the archive's directory.

        Raises:
          DataError: the archive cannot be read to its end.
        """
        self._places = _tar_places(path, path.stat().st_size, path.stat().st_mtime_ns)
        super().__init__(path, self._places)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
          DataError: the archive is cut off.
        """
        offset, size = self._places[self._stored[name]]
        with self._path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
        if len(content) != size:
            raise _damaged(self._path, f"{name} is cut off")
        return content


@functools.lru_cache(maxsize=8)  # a process may open the same data set several times
def _tar_places(path: Path, size: int, time: int) -> dict[str, tuple[int, int]]:
    """Name -> (offset, length) in bytes; `size` and `time` tell the cache of a changed archive."""
    del size, time
    try:
        with tarfile.open(path, "r:") as archive:
            members = [member for member in archive if member.isfile()]
    except (tarfile.TarError, OSError) as error:
        raise _damaged(path, error) from error
    return {_plain(m.name): (m.offset_data, m.size) for m in members}


class ZipTree(_Archive):
    """The files of a zip archive."""

    def __init__(self, path: Path):
        """Reads the archive's directory.

        Raises:
          DataError: the archive cannot be read.
        """
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise _damaged(path, error) from error
        super().__init__(path, (n for n in self._archive.namelist() if not n.endswith("/")))

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
          DataError: the archive is damaged.
        """
        try:
            return self._archive.read(self._stored[name])
        except (zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
            raise _damaged(self._path, error) from error


def repack(archive: Path, target: Path, wanted: Callable[[str], bool]) -> None:
    """Copies the wanted files of a compressed tar archive to an uncompressed one, in one pass.

    Args:
      archive: .tar.gz or .tgz.
      target: file to write; it appears, or is replaced, when all is copied.
      wanted: whether to copy the file of this name.

    Raises:
      DataError: the archive is damaged or cut off, or the target cannot be written.
    """
    partial = partial_name(target)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            archive.open("rb") as file,
            tqdm.wrapattr(
                file, "read", total=archive.stat().st_size, desc=f"reading {archive.name}", delay=1
            ) as counted,
            tarfile.open(fileobj=counted, mode="r|gz") as source,
            tarfile.open(partial, "w:") as copy,
        ):
            for member in source:
                if member.isfile() and wanted(_plain(member.name)):
                    copy.addfile(member, source.extractfile(member))
        os.replace(partial, target)
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        raise DataError(f"{archive} -> {target}: {error}; set config.data.prepared_dir.") from error
    finally:
        partial.unlink(missing_ok=True)


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _damaged(path: Path, error: object) -> DataError:
    return DataError(
        f"{path}: damaged or cut off ({error}); download or copy it again, and compare its size "
        "and checksum with the source's."
    )
