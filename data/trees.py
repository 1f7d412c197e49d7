"""A tree of files, whether it lies in a folder or in an archive that nobody has to unpack."""

from __future__ import annotations

import functools
import os
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from data.errors import DataError, counted, some
from data.names import by_normal_form
from data.whole_files import partial_name


class Tree(Protocol):
    """Files by name. Names are relative, with "/" and in one form of Unicode, on every platform.

    Attributes:
      names: of all files, sorted.
    """

    names: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """The content of a file; safe to call from several threads."""

    def stamp(self, name: str) -> str:
        """Text that changes whenever the file does."""

    def where(self, name: str) -> str:
        """How to name the file to a person."""


# What file servers and operating systems leave among files, in lower case. Some of it are images:
# Synology keeps a thumbnail of each photo in @eaDir, and a Mac's zip files have __MACOSX.
_LITTER = frozenset(
    {
        "@eadir", "__macosx", "#recycle", "#snapshot", "$recycle.bin", "system volume information",
        "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini",
    }
)  # fmt: skip


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is nothing that a person has put there."""
    return name.lower() in _LITTER


def _check_utf8(names: Sequence[str], root: Path) -> None:
    """Checks that records can hold the names, which are UTF-8 there."""
    odd = [ascii(name) for name in names if not _is_utf8(name)]
    if odd:
        raise DataError(
            f"{root}: {counted(len(odd), 'name is', 'names are')} not UTF-8: {some(odd)}; rename "
            "(such as with convmv -f latin1 -t utf8)."
        )


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)  # as Python reads other bytes


class FolderTree:
    """The files below a folder, without hidden ones and litter. Symbolic links are followed.

    A link to a folder above itself is not followed: that would never end.
    """

    def __init__(self, root: Path, folders: Sequence[str] = ("",), files: Sequence[str] = ()):
        """Lists the files in the given folders below `root`, however deep, and those in `root`.

        Args:
          root: the folder.
          folders: names in it of those to search; "" is `root` itself.
          files: names of files in it to list as well.

        Raises:
          DataError: there is no such folder, names differ in their form of Unicode only, or one is
            not UTF-8.
        """
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; correct config.data.dir.")
        self._root = root
        names = [name for name in files if not is_left_out(name)]
        for start in folders:
            for folder, inner, found in os.walk(root / start, True, _warn_of, followlinks=True):
                inner[:] = [name for name in inner if _is_searched(folder, name)]
                below = Path(folder).relative_to(root)
                names += [(below / x).as_posix() for x in found if not is_left_out(x)]
        _check_utf8(names, root)
        self._stored = by_normal_form(names, str(root))
        self.names = tuple(sorted(self._stored))

    def path(self, name: str) -> Path:
        """The file's path, also if there is no such file."""
        return self._root / self._stored.get(name, name)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return self.path(name).read_bytes()

    def stamp(self, name: str) -> str:
        """Text that changes whenever the file does.

        Raises:
          DataError: the file cannot be opened, or is a pipe or a device.
        """
        path = self.path(name)
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(
                f"{path}: cannot be opened ({error.strerror}); restore the file, or remove the "
                "link."
            ) from error
        if not stat.S_ISREG(found.st_mode):  # reading a pipe might wait for ever
            raise DataError(f"{path}: is a pipe or a device, not a file; remove it.")
        return f"{name} {found.st_size} {found.st_mtime_ns}"

    def where(self, name: str) -> str:
        """The file's path."""
        return str(self.path(name))


def check_folder(folder: Path, remedy: str) -> None:
    """Checks that a folder may be read.

    Args:
      folder: its path.
      remedy: what to do if there is no such folder, for messages.

    Raises:
      DataError: there is no such folder, or it may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
        os.stat(os.path.join(folder, "."))  # names may be listed where no file may be opened
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{folder}: no such folder; {remedy}.") from error
    except OSError as error:
        why = f"cannot be opened ({error.strerror})"
        raise DataError(f"{folder}: {why}; allow reading it, or {remedy}.") from error


def _warn_of(error: OSError) -> None:
    """Warns of a folder that cannot be listed; whether a missing one matters, others decide."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        text = f"warning: {error.filename} is left out: cannot be listed ({error.strerror})"
        print(text, file=sys.stderr)


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or nothing that a person has put there."""
    return name.startswith(".") or is_litter(name)


def _is_searched(folder: str, name: str) -> bool:
    """Whether to search the folder `name` in `folder`: not if left out, or a link to one above."""
    if is_left_out(name):
        return False
    path = Path(folder, name)
    return not path.is_symlink() or path.resolve() not in {p.resolve() for p in path.parents}


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


class SubTree:
    """The files of a tree below one folder, with names relative to that folder."""

    def __init__(self, tree: Tree, folder: str):
        """Takes the files below `folder`; "" stands for the whole tree."""
        self._tree, self._prefix = tree, f"{folder}/" if folder else ""
        self.names = tuple(
            name[len(self._prefix) :] for name in tree.names if name.startswith(self._prefix)
        )

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return self._tree.read(self._prefix + name)

    def stamp(self, name: str) -> str:
        """Text that changes whenever the file does."""
        return self._tree.stamp(self._prefix + name)

    def where(self, name: str) -> str:
        """How to name the file to a person."""
        return self._tree.where(self._prefix + name)


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
