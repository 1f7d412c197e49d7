"""A tree of files, whether it lies in a folder or in an archive (`data.archives`)."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from data.errors import DataError, counted, some
from data.names import by_normal_form


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
          DataError: there is no such folder, or names differ in their form of Unicode only.
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


def check_names(tree: Tree) -> None:
    """Checks that records can hold the names of a tree's files, which are UTF-8 there.

    Raises:
      DataError: they cannot.
    """
    odd = [ascii(name) for name in tree.names if not _is_utf8(name)]
    if odd:
        raise DataError(
            f"{tree.where('').rstrip('/')}: {counted(len(odd), 'name is', 'names are')} not UTF-8: "
            f"{some(odd)}; rename (such as with convmv -f latin1 -t utf8)."
        )


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)  # as Python reads other bytes


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
