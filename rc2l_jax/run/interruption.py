"""Pre-emption: a signal stops a run at the next step boundary, where a checkpoint is written.

A run of one process handles SIGTERM and Ctrl-C itself. In a run of several, JAX's pre-emption
service notices a SIGTERM to any process, and makes all of them stop at the same boundary.
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
    """The run was told to stop.

    A BaseException, like KeyboardInterrupt: it may be raised anywhere, and code that catches
    Exception, to handle a broken file for example, must not swallow it.
    """


class StopRequest:
    """Remembers whether a signal asked this run to stop. It listens while its context is open.

    At first a signal raises `Interrupted` at once, since nothing is lost before the first step.
    Within `deferred` it is only noted, for `check` to raise.
    """

    def __init__(self) -> None:
        """Does not listen yet: `__enter__` starts that."""
        self._name = ""  # of the signal that was received
        self._boundaries = 0
        self._at_once = True
        self._former: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        # Python allows signal handlers in the main thread only. With several processes SIGTERM is
        # left to JAX's service.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self._name = bool(self._name), signal.Signals(number).name
        if number == signal.SIGINT and again:  # a second Ctrl-C: do not wait for the boundary
            raise KeyboardInterrupt
        if self._at_once:
            raise Interrupted(self._name)

    def deferred(self) -> contextlib.AbstractContextManager[None]:
        """While the context is open, a signal is only noted; `check` raises it."""
        return self._listening(at_once=False)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """While the context is open, a signal raises `Interrupted` at once.

        A signal that was noted before raises it on entry. This is for code that leaves nothing half
        done, such as waiting for data.
        """
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
        """Raises `Interrupted` if this process has received a signal."""
        if self._name:
            raise Interrupted(self._name)

    def check(self) -> None:
        """Marks a boundary at which the run can stop. All processes must call it equally often.

        Raises:
          Interrupted: a stop was asked for, and all processes stop here.
        """
        self.raise_if_heard()
        self._boundaries += 1
        if multihost_utils.reached_preemption_sync_point(self._boundaries):
            self._name = signal.SIGTERM.name
            raise Interrupted(self._name)
