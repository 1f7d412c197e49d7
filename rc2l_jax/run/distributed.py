"""Runs of several processes: how they find each other, and how an error in one ends all of them.

Otherwise the others would wait, in a collective operation, for a process that has failed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath

from rc2l_jax.run.interruption import Interrupted

PEER_FAILED = 4  # exit status: another process had the error
# A process that has sent no heartbeat for this long counts as dead: JAX's default of 100 s would
# make the others wait for more than a minute. A process that compiles or swaps still sends
# heartbeats, which have a thread of their own.
_HEARTBEAT_SECONDS = 30
_SHUTDOWN_SECONDS = 60
_FAILURE_KEY = "rc2l_jax/failure"
_POLL_MILLISECONDS = 1_000
_GRACE_SECONDS = 3  # process 0 waits, so that the others can read the error from it
_LATE_SECONDS = 40  # how long a network disk may still show an older state
_COMPILE_SECONDS = 3_600  # how long a process waits for others to compile or start

Outputs = TypeVar("Outputs")
_meetings = itertools.count()


class DistributedError(ValueError):
    """Processes that cannot find each other, or that see different run directories."""


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins this process to the run's other processes. Call it before JAX is asked for a device.

    Give all three arguments, or none. With none, `jax.distributed.initialize` takes them from the
    cluster (TPU VMs, SLURM, Open MPI, Kubernetes).

    Args:
      coordinator: host:port at which process 0 can be reached.
      num_processes: how many processes the run has.
      process_id: this process's number, 0 .. num_processes - 1.

    Raises:
      DistributedError: some arguments are missing, or the processes do not find each other.
    """
    given = (coordinator, num_processes, process_id)
    if any(value is None for value in given) and any(value is not None for value in given):
        raise DistributedError(
            "--coordinator, --num_processes and --process_id belong together: give all three, or "
            "--distributed alone to take them from the cluster"
        )
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise DistributedError(
            f"the run's processes did not come together ({' '.join(str(error).split())[:300]}): "
            "give --coordinator=HOST:PORT, --num_processes and --process_id"
        ) from error


@contextlib.contextmanager
def shared_fate(exit_status: Callable[[BaseException], int]) -> Iterator[None]:
    """While the context is open, an error in one process ends all of them with its message.

    In a run of one process it does nothing.

    Args:
      exit_status: maps an error of this process to its exit status. The other processes end with
        `PEER_FAILED`.
    """
    client = _client()
    if client is None:
        yield
        return
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(client, done), name="peers", daemon=True)
    watch.start()
    try:
        yield
    except Interrupted:  # every process stops at the same step: no error to tell the others
        raise
    except BaseException as error:
        done.set()  # this process's own watch must not react to what the others are told
        _end_all(client, error, exit_status(error))
    finally:
        done.set()
        watch.join()


def compiled_together(function: Callable[[Any, Any], Outputs]) -> Callable[[Any, Any], Outputs]:
    """Makes a function wait, before a batch of new shapes, until every process has compiled it.

    Otherwise a process that compiles faster would wait for the others in the first collective
    operation, which on CPUs (Gloo) fails after 30 seconds.

    Args:
      function: a `jax.pmap` of (state, batch), compiled anew for each set of shapes of the batch.
        All processes must bring the same shapes in the same order.

    Returns:
      A function with the same arguments and result; in a run of one process `function` itself.
    """
    client = _client()
    if client is None:
        return function
    compiled = set()

    def call(state: Any, batch: Any) -> Outputs:
        shapes = tuple(x.shape for x in jax.tree.leaves(batch))
        if shapes not in compiled:
            function.lower(state, batch).compile()  # the call below then finds it compiled
            compiled.add(shapes)
            client.wait_at_barrier(f"rc2l_jax/compiled/{next(_meetings)}", 1_000 * _COMPILE_SECONDS)
        return function(state, batch)

    return call


def check_same(workdir: epath.Path, read: Callable[[], str]) -> None:
    """Checks that every process finds in the run directory what process 0 finds.

    Otherwise processes could go on from different checkpoints, and average the gradients of
    different networks. In a run of one process it does nothing.

    Args:
      workdir: the run directory, for the error's message.
      read: describes what this process finds. If that differs it is called again for some time: a
        network disk may show new files late.

    Raises:
      DistributedError: this process still finds something else.
    """
    client = _client()
    if client is None:
        return
    key = f"rc2l_jax/same/{next(_meetings)}"
    if jax.process_index() == 0:
        client.key_value_set(key, read())
        return
    first = client.blocking_key_value_get(key, 1_000 * _COMPILE_SECONDS)
    end = time.monotonic() + _LATE_SECONDS
    while (here := read()) != first:
        if time.monotonic() > end:
            raise DistributedError(
                f"{workdir} is not the same for all processes: process 0 finds {first}, process "
                f"{jax.process_index()} on {socket.gethostname()} {here}. --workdir must be one "
                "directory that all of them share"
            )
        time.sleep(1)


def gathered(value: Any) -> list[Any]:
    """Returns what every process gives, in the order of the processes; each must call it.

    Args:
      value: what JSON can hold.
    """
    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    mine = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(mine)]))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(mine)] = mine
    texts = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(x[: int(size)])) for x, size in zip(texts, sizes.ravel())]


def _client() -> Any:
    """Returns JAX's key-value client, which has no public name; None in a run of one process."""
    from jax._src import distributed

    return distributed.global_state.client


def _watch(client: Any, done: threading.Event) -> None:
    """Ends this process when another one reports an error, or when process 0 is gone."""
    while not done.is_set():
        try:
            failure = client.blocking_key_value_get(_FAILURE_KEY, _POLL_MILLISECONDS)
        except Exception as error:
            if "DEADLINE_EXCEEDED" in str(error):
                continue
            failure = f"the coordinator (process 0) is gone: {' '.join(str(error).split())[:200]}"
        if not done.is_set():
            _leave(f"error: {failure}", PEER_FAILED)


def _end_all(client: Any, error: BaseException, status: int) -> None:
    """Tells the other processes which error this one had, and ends it without waiting for them."""
    me = f"process {jax.process_index()} on {socket.gethostname()}"
    text = str(error).strip() or type(error).__name__
    if isinstance(error, SystemExit):
        text = "its last line says why"  # printed already
    elif isinstance(error, KeyboardInterrupt):
        text = "stopped by Ctrl-C"
    if isinstance(error, jax.errors.JaxRuntimeError):
        text += " (another process of the run may be gone: see the last lines of each)"
    try:
        client.key_value_set(_FAILURE_KEY, f"{me} failed: {text}")
    except Exception:  # another process has set the key: it failed first, perhaps causing this
        with contextlib.suppress(Exception):
            first = client.blocking_key_value_get(_FAILURE_KEY, _POLL_MILLISECONDS)
            _leave(f"error: {first}\n(then {me}: {text})", PEER_FAILED)
    if not isinstance(error, (ValueError, SystemExit, KeyboardInterrupt)):
        traceback.print_exception(error)
    _leave("" if isinstance(error, SystemExit) else f"error: {text}", status)


def _leave(message: str, status: int) -> None:
    """Ends the process at once: a normal exit would wait for processes that never come."""
    if message:
        print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    if jax.process_index() == 0:
        time.sleep(_GRACE_SECONDS)
    os._exit(status)
