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
    """Yields a path to write to, which is renamed to `path` at the end; makes its folder.

    A reader sees the former file or the new one, never half of a file.

    Args:
      path: of the file; local, or in a bucket (`gs://`).
      one_writer: that no other process writes this file at the same time. Then the yielded name is
        always the same, so that the next process overwrites what a killed one left. Otherwise
        every process has a name of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path, one_writer=one_writer)
    yield partial
    partial.replace(path)


def partial_name(path: AnyPath, *, one_writer: bool = False) -> AnyPath:
    """The name that `whole_file` gives a file until it is complete."""
    writer = "" if one_writer else f".{socket.gethostname()}-{os.getpid()}"
    return path.with_name(f"{path.name}{writer}.partial")


def write_text(path: AnyPath, text: str) -> None:
    """Writes a text file, UTF-8, whole."""
    write_bytes(path, text.encode())


def write_bytes(path: AnyPath, content: bytes) -> None:
    """Writes a file whole."""
    with whole_file(path) as partial:
        partial.write_bytes(content)
