"""Files that appear whole or not at all: written under another name, and then renamed."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from etils import epath

AnyPath = TypeVar("AnyPath", Path, epath.Path)


@contextlib.contextmanager
def whole_file(path: AnyPath, *, one_writer: bool = False) -> Iterator[AnyPath]:
    """Yields the path to write; when that is done it becomes `path`, with its folder.

    A reader sees the former file or the new one, never half of it.

    Args:
      path: of the file; local, or in a bucket (`gs://`).
      one_writer: no other process writes this file at the same time. Then what a killed process
        left is written over by the next one; otherwise every process has a name of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path, one_writer=one_writer)
    yield partial
    partial.replace(path)


def partial_name(path: AnyPath, *, one_writer: bool = False) -> AnyPath:
    """What a file is called until it is whole; see `whole_file`."""
    writer = "" if one_writer else f".{socket.gethostname()}-{os.getpid()}"
    return path.with_name(f"{path.name}{writer}.partial")


def write_text(path: AnyPath, text: str) -> None:
    """Writes a text file, UTF-8, whole."""
    write_bytes(path, text.encode())


def write_bytes(path: AnyPath, content: bytes) -> None:
    """Writes a file whole."""
    with whole_file(path) as partial:
        partial.write_bytes(content)
