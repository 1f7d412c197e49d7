"""Many processes: how they find each other, and how the first error of one ends all of them.

Without this, a process that fails leaves the others waiting for it in a collective operation.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
from etils import epath

from rc2l_jax.run.interruption import Interrupted

PEER_FAILED = 4  # exit status: another process had the error
# Without a sign of life for so long, a process counts as dead: with JAX's 100 s the others would
# wait longer than a minute. A host that swaps or compiles still answers: a thread of its own does.
_HEARTBEAT_SECONDS = 30
_SHUTDOWN_SECONDS = 60
_FAILURE_KEY = "rc2l_jax/failure"
_POLL_MILLISECONDS = 1_000
_GRACE_SECONDS = 3  # for the others to read why, before the coordinator is gone
_LATE_SECONDS = 40  # that a network's disk may show another state
_COMPILE_SECONDS = 3_600  # the longest that one process waits for another one to compile

Outputs = TypeVar("Outputs")
_meetings = itertools.count()


class DistributedError(ValueError):
    """Processes that cannot find each other."""


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins this process with the run's others; before anything asks JAX for a device.

    Args:
      coordinator: host:port at which process 0 can be reached; None to find out from the cluster
        (TPU VMs, SLURM, Open MPI, Kubernetes), as `jax.distributed.initialize` does.
      num_processes: of the run; likewise.
      process_id: of this one, 0 .. num_processes - 1; likewise.

    Raises:
      DistributedError: the settings are incomplete, or processes are missing.
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
    """Within it, an error of any process ends all of them, with that error's message.

    With a single process it does nothing.

    Args:
      exit_status: of this process, for an error of its own.
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
    except Interrupted:  # all of them were, at the same step
        raise
    except BaseException as error:
        done.set()  # what is told to the others is not for this process's own watch
        _end_all(client, error, exit_status(error))
    finally:
        done.set()
        watch.join()


def compiled_together(function: Callable[[Any, Any], Outputs]) -> Callable[[Any, Any], Outputs]:
    """Lets a function run only when every process of the run has compiled it.

    Without this, processes that compile at different speed wait for each other in the first
    collective operation, and on CPUs that (Gloo) is an error after 30 seconds.

    Args:
      function: a result of `jax.pmap`, of a state and a batch; the shapes of the batch decide
        whether it is compiled anew. All processes must bring the same shapes in the same order.

    Returns:
      The function itself in a run of one process.
    """
    client = _client()
    if client is None:
        return function
    compiled = set()

    def call(state: Any, batch: Any) -> Outputs:
        shapes = tuple(x.shape for x in jax.tree.leaves(batch))
        if shapes not in compiled:
            function.lower(state, batch).compile()  # where the call below finds it
            compiled.add(shapes)
            client.wait_at_barrier(f"rc2l_jax/compiled/{next(_meetings)}", 1_000 * _COMPILE_SECONDS)
        return function(state, batch)

    return call


def check_same(workdir: epath.Path, read: Callable[[], str]) -> None:
    """Makes sure that every process finds in the run directory what process 0 finds.

    Without this, processes would go on from different checkpoints, and average the gradients of
    different networks. Nothing is done in a run of one process.

    Args:
      workdir: the run directory, for the error.
      read: says what this process finds. It is asked for some time: a network's disk may be late.

    Raises:
      DistributedError: it finds something else.
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


def _client() -> Any:
    """JAX's key-value client, which has no public name; None in a run of one process."""
    from jax._src import distributed

    return distributed.global_state.client


def _watch(client: Any, done: threading.Event) -> None:
    """Ends this process when another one says that it failed, or when the coordinator is gone."""
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
    """Tells the others why, and leaves without waiting for them."""
    me = f"process {jax.process_index()} on {socket.gethostname()}"
    text = str(error).strip() or type(error).__name__
    if isinstance(error, jax.errors.JaxRuntimeError):
        text += " (another process of the run may be gone: see the last lines of each)"
    try:
        client.key_value_set(_FAILURE_KEY, f"{me} failed: {text}")
    except Exception:  # another process was first: its error is the one that matters
        with contextlib.suppress(Exception):
            first = client.blocking_key_value_get(_FAILURE_KEY, _POLL_MILLISECONDS)
            _leave(f"error: {first}\n(then {me}: {text})", PEER_FAILED)
    if not isinstance(error, (ValueError, SystemExit)):
        traceback.print_exception(error)
    _leave(f"error: {text}", status)


def _leave(message: str, status: int) -> None:
    """Ends the process at once: the usual way waits for processes that will not come."""
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    if jax.process_index() == 0:
        time.sleep(_GRACE_SECONDS)
    os._exit(status)
