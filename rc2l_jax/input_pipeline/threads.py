"""Work that threads do ahead of time."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_MAX_THREADS = 8


_AHEAD = 2  # batches in preparation, besides one a thread


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
      items: taken one by one: as many as there are threads, and two, are begun and not yet yielded.
      weigh: what an item takes while it is begun and not yet yielded, in bytes.
      most: fewer items are begun where together they take more. What takes more alone is waited
        for before another item is taken.
    """
    threads = min(_num_cores(), _MAX_THREADS)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="input")
    pending: collections.deque = collections.deque()
    weight = 0
    # No clean-up: a pool that is dropped ends its threads, even while Python shuts down.
    for item in items:
        pending.append((pool.submit(make, item), weigh(item)))
        weight += pending[-1][1]
        del item  # it may be large, and the next one may be long in coming
        while len(pending) >= threads + _AHEAD or weight > most:
            future, freed = pending.popleft()
            weight -= freed
            yield future.result()
            del future
    while pending:
        yield pending.popleft()[0].result()


def _num_cores() -> int:
    """Cores that this process may use: a batch system may lend fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
