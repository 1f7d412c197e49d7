"""Moving images that stay open between their frames, so that each is decoded in few passes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

_MOST = 8  # idle ones: as many as threads read; each holds a frame or two


class OpenFrames:
    """Lends open files at the frame that is asked for.

    Most kinds make a frame from the one before: to seek in a file that was just opened decodes all
    frames up to there, n * n / 2 for n frames. Threads that read a file's frames side by side each
    have one of their own, which only moves on.
    """

    def __init__(self) -> None:
        """Nothing is open yet."""
        self._idle: list[tuple[Path, Image.Image]] = []  # the one used last is the last
        self._most = _MOST
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def at(self, path: Path, frame: int) -> Iterator[Image.Image]:
        """The image at one of its frames, for the caller alone; what it raises is passed on."""
        image = self._take(path, frame) or Image.open(path)
        try:
            image.seek(frame)
            yield image
        except BaseException:
            image.close()
            raise
        self._keep(path, image)

    def close(self) -> None:
        """Closes all; what is lent now is closed when it comes back."""
        with self._lock:
            self._most = 0
            self._close_surplus()

    def _take(self, path: Path, frame: int) -> Image.Image | None:
        """The one that has least to decode up to `frame`."""
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
