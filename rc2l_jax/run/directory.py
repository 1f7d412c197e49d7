"""A run directory belongs to one config, and to one job at a time; its files are replaced whole.

It may lie on a local disk or in a bucket (`gs://`).
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
from collections.abc import Iterator

from etils import epath
from filelock import FileLock, Timeout

from rc2l_jax.run.checkpoints import CheckpointError
from rc2l_jax.run.storage import StorageError, is_local, write_json


def run_path(workdir: epath.PathLike) -> epath.Path:
    """The run directory, absolute: a local path or a bucket's address."""
    path = epath.Path(workdir).expanduser()
    return path.absolute() if is_local(path) else path  # made absolute, a bucket would be a folder


@contextlib.contextmanager
def only_job(workdir: epath.Path) -> Iterator[None]:
    """Within it no other job can train in the run directory.

    The lock is the system's: it is gone when the process is, however it ended. A bucket has no
    such locks; there nothing is checked. On a disk without them (some Lustre mounts) job.lock
    itself is the lock, and stays after a kill.

    Raises:
      CheckpointError: another job has it.
    """
    if not is_local(workdir):
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    owner, lock = workdir / "job.json", FileLock(workdir / "job.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CheckpointError(
            f"{workdir} is in use: {_describe_job(owner)}. Wait for it or stop it, or use another "
            f"--workdir; if it is long gone, delete {workdir / 'job.lock'}"
        ) from error
    try:
        since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(owner, {"host": socket.gethostname(), "pid": os.getpid(), "since": since})
        yield
    finally:
        with contextlib.suppress(OSError):  # a disk that may not be written any more
            owner.unlink(missing_ok=True)
        lock.release()


def _describe_job(owner: epath.Path) -> str:
    try:
        job = json.loads(owner.read_text())
        return f"process {job['pid']} on {job['host']} trains there since {job['since']}"
    except (OSError, ValueError, KeyError):
        return "another job trains there"


def progress(workdir: epath.Path) -> str:
    """Says how far the run is: its checkpoints, complete or not, and the step of its results."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.glob("*")] if folder.is_dir() else []
    steps = sorted(int(name) for name in names if name.isdigit())
    return f"checkpoints {steps}, results of step {results_step(workdir)}"


def results_step(workdir: epath.Path) -> int | None:
    """The step that results.json is of; None if there is no such file."""
    path = workdir / "results.json"
    return json.loads(path.read_text())["step"] if path.exists() else None


def check_still_there(workdir: epath.Path) -> None:
    """Notices that somebody deleted the run directory: parts of it would appear again as written.

    Raises:
      StorageError: its config.json is gone.
    """
    if not (workdir / "config.json").exists():
        raise StorageError(f"{workdir} is gone: it was deleted or moved while the run used it")
