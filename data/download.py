"""Downloads of official archives, where the network allows."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from data.errors import DataError
from data.whole_files import partial_name

_TIMEOUT = 30.0  # seconds without an answer


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file that its makers publish.

    Attributes:
      name: of the file.
      urls: addresses of the file, tried in turn.
      md5: checksum of the file, in hexadecimal digits.
    """

    name: str
    urls: Sequence[str]
    md5: str


def download(archive: Archive, folder: Path) -> Path:
    """Downloads a file into a folder, with a progress bar, and checks it.

    A file that is already in the folder is not checked again: that was done when it was downloaded.

    Raises:
      DataError: no address works; the message says where to get the file and where to put it.
    """
    target = folder / archive.name
    if target.is_file():
        return target
    partial = partial_name(target)  # a folder, so that half a file is never taken for the whole
    errors = []
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        for url in archive.urls:
            try:
                os.replace(_fetch(archive, url, partial), target)
                return target
            except Exception as error:  # Keras raises plain `Exception`s
                errors.append(f"{url}: {str(error).strip() or type(error).__name__}")
    except OSError as error:
        errors.append(str(error))
    finally:
        socket.setdefaulttimeout(timeout)
        shutil.rmtree(partial, ignore_errors=True)
    raise DataError(
        f"{archive.name} could not be downloaded ({'; '.join(errors)}). Get it from "
        f"{archive.urls[0]} on a machine with a network (MD5 {archive.md5}), put it into a folder, "
        "and set config.data.dir to that folder."
    )


def _fetch(archive: Archive, url: str, folder: Path) -> str:
    from data.host_tf import tf  # Keras takes seconds to import: only here

    return tf.keras.utils.get_file(
        archive.name,
        url,
        file_hash=archive.md5,
        hash_algorithm="md5",
        cache_dir=str(folder),
        cache_subdir="",
    )
