"""Pre-emption: a request to stop becomes a checkpoint at the next step boundary.

One process listens for SIGTERM and Ctrl-C itself. Many processes ask JAX's pre-emption service,
which hears SIGTERM on any of them and lets all of them stop at the same boundary.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """The run was told to stop, and everything up to here is kept.

    No `Exception`, as KeyboardInterrupt is none: it may come anywhere, and nobody who catches what
    can go wrong with a file or a network may take it for that.
    """


class StopRequest:
    """Whether somebody asked this run to stop; a context manager that listens as long as it lasts.

    Outside of `deferred` a signal raises `Interrupted` at once: nothing is lost by that before the
    first step.
    """

    def __init__(self) -> None:
        """Listens from `__enter__` on."""
        self._name = ""  # of the signal that came
        self._boundaries = 0
        self._at_once = True
        self._former: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        # Only a main thread may listen; and JAX's service needs SIGTERM for itself.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self._name = bool(self._name), signal.Signals(number).name
        if number == signal.SIGINT and again:  # somebody insists
            raise KeyboardInterrupt
        if self._at_once:
            raise Interrupted(self._name)

    def deferred(self) -> contextlib.AbstractContextManager[None]:
        """Within it a signal is only noted, for `check` to find."""
        return self._listening(at_once=False)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it, where nothing is half done, a signal raises `Interrupted` at once."""
        with self._listening(at_once=True):
            self.raise_if_heard()
            yield

    @contextlib.contextmanager
    def _listening(self, at_once: bool) -> Iterator[None]:
        before, self._at_once = self._at_once, at_once
        try:
            yield
        finally:
            self._at_once = before

    def raise_if_heard(self) -> None:
        """Raises Interrupted if this process heard a signal."""
        if self._name:
            raise Interrupted(self._name)

    def check(self) -> None:
        """A boundary at which a run can stop. Every process must come by the same boundaries.

        Raises:
          Interrupted: this is where all processes stop.
        """
        self.raise_if_heard()
        self._boundaries += 1
        if multihost_utils.reached_preemption_sync_point(self._boundaries):
            self._name = signal.SIGTERM.name
            raise Interrupted(self._name)
