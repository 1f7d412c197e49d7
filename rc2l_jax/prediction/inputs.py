"""Finds the images that --input names, and gives each a name that no other has."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from data.errors import counted
from data.trees import FolderTree, is_litter
from rc2l_jax.prediction.photos import Photo, PhotoError, measure

# Suffixes of the files that get a photo's name.
_RESULTS = (".png", ".jpg", ".json", ".npz", ".txt", ".xml")


@dataclasses.dataclass
class Photos:
    """The images that were found.

    Attributes:
      photos: the images, by path and frame; no two have the same name.
      skipped: {file that is not among them: why}.
    """

    photos: list[Photo]
    skipped: dict[Path, str]


@contextlib.contextmanager
def readable_paths() -> Iterator[None]:
    """Says in a line which path cannot be looked at: it is too long, or its folder is not ours."""
    try:
        yield
    except OSError as error:
        raise PhotoError(
            f"{error.filename} cannot be looked at ({error.strerror}): mend that, or give another"
        ) from error


def real(path: Path) -> Path:
    """Follows links, but for those to themselves, at which `Path.resolve` fails before 3.13."""
    return Path(os.path.realpath(path))


@readable_paths()
def check_apart(source: str, outside: Path) -> None:
    """Refuses an output folder that is the images' folder or one above it.

    Args:
      source: an image, a folder or a glob.
      outside: the folder where the results go.

    Raises:
      PhotoError: there is no such file or folder, or it lies in `outside`.
    """
    root, taken = real(_root(source)), real(outside)
    if taken in (root, *root.parents):
        raise PhotoError(
            f"--output={outside} is the folder of --input={source}, or above it: results would lie "
            "among the images; choose another folder"
        )


@readable_paths()
def find(source: str, outside: Path) -> Photos:
    """Finds images and reads their headers.

    Args:
      source: an image, a folder (searched with all folders in it, without hidden files), or a glob.
      outside: the folder where the results go. Images below it are not taken.

    Raises:
      PhotoError: there is no such file or folder, it lies in `outside`, or the results of two
        images would have the same name.
    """
    check_apart(source, outside)
    root, taken = _root(source), real(outside)
    found, skipped, inside = [], {}, 0
    for file in _files(source):
        if taken in real(file).parents:
            inside += 1
            continue
        try:
            found += [_named(photo, root) for photo in measure(file)]
        except PhotoError as error:
            skipped[file] = str(error)
    if inside:
        skipped[outside] = f"is --output: nothing there is an input ({counted(inside, 'file')})"
    return Photos(_distinct(found), skipped)


def _root(source: str) -> Path:
    """Returns the folder that the names of results are relative to."""
    path = Path(source).expanduser()
    if path.exists():
        return path if path.is_dir() else path.parent
    folder, pattern = _split(path)
    magic = [glob.has_magic(part) for part in pattern]
    if not any(magic):
        raise _missing(source)
    return folder.joinpath(*pattern[: magic.index(True)])


def _split(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Splits a glob into the folder that is there as it is written, and the parts below it.

    So a folder may be called photos[1], although brackets have a meaning in globs.
    """
    counts = range(len(path.parts), 0, -1)
    count = next((n for n in counts if Path(*path.parts[:n]).is_dir()), 0)
    return Path(*path.parts[:count]), path.parts[count:]


def _files(source: str) -> list[Path]:
    """Returns the files that `source` names, images or not."""
    path = Path(source).expanduser()
    if path.is_dir():
        tree = FolderTree(path)
        return [tree.path(name) for name in tree.names]
    if path.exists():
        return [path]
    folder, pattern = _split(path)
    found = glob.glob(os.path.join(glob.escape(str(folder)), *pattern), recursive=True)
    matches = [Path(match) for match in sorted(found)]
    if not matches:
        raise _missing(source)
    below = {match: match.relative_to(folder).parts for match in matches}
    return [x for x in matches if not x.is_dir() and not any(map(is_litter, below[x]))]


def _missing(source: str) -> PhotoError:
    return PhotoError(f"--input={source}: no such file or folder, and no file has such a name")


def _named(photo: Photo, root: Path) -> Photo:
    relative = PurePosixPath(photo.path.relative_to(root).as_posix())
    frame = "" if photo.frame is None else f"_{photo.frame:06d}"
    short, long = f"{relative.with_suffix('')}{frame}", f"{relative}{frame}"
    return dataclasses.replace(photo, name=short, other_name=long)


def _distinct(photos: Sequence[Photo]) -> list[Photo]:
    """Gives photos of the same name, such as a.jpg and a.png, the name with the suffix."""
    count = Counter(photo.name.casefold() for photo in photos)  # some file systems ignore case
    photos = [
        dataclasses.replace(p, name=p.other_name, other_name=p.name)
        if count[p.name.casefold()] > 1
        else p
        for p in photos
    ]
    by_name: dict[str, list[Photo]] = {}
    for photo in photos:
        by_name.setdefault(photo.name.casefold(), []).append(photo)
    for name, same in by_name.items():
        if len(same) > 1:
            files = " and ".join(dict.fromkeys(str(photo.path) for photo in same))
            raise PhotoError(f"{files} would both become {name!r}: rename one of them")
    folders = {str(parent) for name in by_name for parent in PurePosixPath(name).parents}
    for name, (photo, *_) in by_name.items():
        if any(f"{name}{suffix}" in folders for suffix in _RESULTS):
            raise PhotoError(f"what {photo.path} becomes has a folder's name: rename one of them")
    return photos
