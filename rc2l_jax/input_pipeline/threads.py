"""Work that threads do ahead of its use."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_MAX_THREADS = 8
_AHEAD = 2  # items in preparation beyond one for each thread

S, T = TypeVar("S"), TypeVar("T")


def ahead(
    make: Callable[[S], T],
    items: Iterable[S],
    weigh: Callable[[S], int] = lambda item: 0,
    most: int = 0,
) -> Iterator[T]:
    """Yields make(item) for each item, in order, while threads work on the next ones.

    What `make` raises is raised in place of its result.

    Args:
      make: called in threads.
      items: taken one by one. At most two more than there are threads are begun but not yielded.
      weigh: bytes that an item occupies while it is begun but not yielded.
      most: bytes that such items may occupy together; fewer are begun where they would exceed it.
        An item that exceeds it alone is yielded before the next one is taken.
    """
    threads = min(_num_cores(), _MAX_THREADS)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="input")
    pending: collections.deque = collections.deque()
    weight = 0
    # The pool needs no clean-up: once it is dropped its threads end, even while Python shuts down.
    for item in items:
        pending.append((pool.submit(make, item), weigh(item)))
        weight += pending[-1][1]
        del item  # it may be large, and it may take long until the next one comes
        while len(pending) >= threads + _AHEAD or weight > most:
            future, freed = pending.popleft()
            weight -= freed
            yield future.result()
            del future
    while pending:
        yield pending.popleft()[0].result()


def _num_cores() -> int:
    """Number of cores that this process may use, of which a batch system may allow only some."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
