"""Keeps moving images open between their frames, so that a file is not decoded for each frame."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

_MOST = 8  # idle open files, as many as threads that read; each holds a frame or two in memory


class OpenFrames:
    """Lends open image files, set to the frame that is asked for.

    Most formats make each frame from the one before. So seeking in a file that was just opened
    decodes all frames up to there: for n frames about n * n / 2. A file that stays open only moves
    on to its next frame. Threads that read frames of the same file each get an open file of their
    own.
    """

    def __init__(self) -> None:
        """Starts without open files."""
        self._idle: list[tuple[Path, Image.Image]] = []  # in the order of their last use
        self._most = _MOST
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def at(self, path: Path, frame: int) -> Iterator[Image.Image]:
        """Lends the file at `path`, set to `frame`, to the caller alone while the context is open.

        Raises:
          Exception: whatever Pillow raises for a file that cannot be read.
        """
        image = self._take(path, frame) or Image.open(path)
        try:
            image.seek(frame)
            yield image
        except BaseException:
            image.close()
            raise
        self._keep(path, image)

    def close(self) -> None:
        """Closes all files; those that are lent now are closed when they come back."""
        with self._lock:
            self._most = 0
            self._close_surplus()

    def _take(self, path: Path, frame: int) -> Image.Image | None:
        """Takes the idle file that has the fewest frames to decode up to `frame`, or None."""
        with self._lock:
            fit = [x for x in self._idle if x[0] == path and x[1].tell() <= frame]
            if not fit:
                return None
            nearest = max(fit, key=lambda x: x[1].tell())
            self._idle.remove(nearest)
            return nearest[1]

    def _keep(self, path: Path, image: Image.Image) -> None:
        with self._lock:
            self._idle.append((path, image))
            self._close_surplus()

    def _close_surplus(self) -> None:
        while len(self._idle) > self._most:
            self._idle.pop(0)[1].close()
