"""The run directory: its path, the lock that keeps other jobs out, and how far its run is.

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
    """Returns the run directory as an absolute local path, or as a bucket's address."""
    path = epath.Path(workdir).expanduser()
    return path.absolute() if is_local(path) else path  # absolute() makes a local path of gs://


@contextlib.contextmanager
def only_job(workdir: epath.Path) -> Iterator[None]:
    """Keeps other jobs from training in the run directory while the context is open.

    The lock is the operating system's: it ends with the process, however that ends. On a disk
    without such locks (some Lustre mounts) the file job.lock is the lock, and stays after a kill. A
    bucket has no locks, and there nothing is checked.

    Raises:
      CheckpointError: another job holds the lock.
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
        with contextlib.suppress(OSError):  # the disk may be full or read-only by now
            owner.unlink(missing_ok=True)
        lock.release()


def _describe_job(owner: epath.Path) -> str:
    try:
        job = json.loads(owner.read_text())
        return f"process {job['pid']} on {job['host']} trains there since {job['since']}"
    except (OSError, ValueError, KeyError):
        return "another job trains there"


def progress(workdir: epath.Path) -> str:
    """Describes how far the run is: the steps of its checkpoints and of results.json."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.glob("*")] if folder.is_dir() else []
    steps = sorted(int(name) for name in names if name.isdigit())
    return f"checkpoints {steps}, results of step {results_step(workdir)}"


def results_step(workdir: epath.Path) -> int | None:
    """Returns the evaluated step that results.json holds; None if there is no such file."""
    path = workdir / "results.json"
    return json.loads(path.read_text())["step"] if path.exists() else None


def chosen_step(workdir: epath.PathLike, text: str | None) -> int | None:
    """Returns the step of the checkpoint that a user asks for.

    Args:
      workdir: the run directory.
      text: a number; "best" for the run's best evaluation, whose checkpoint it keeps; or None.

    Returns:
      The step; None if there is no text, for the newest checkpoint.

    Raises:
      CheckpointError: the text is neither, or results.json names no best evaluation.
    """
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    if text != "best":
        raise CheckpointError(f"--step={text}: give a number, or best")
    path = run_path(workdir) / "results.json"
    try:
        return int(json.loads(path.read_text())["best"]["step"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{path} is missing or names no best step, as before the first evaluation: give "
            "--step=NUMBER, or leave --step out for the newest"
        ) from error


def check_still_there(workdir: epath.Path) -> None:
    """Checks that the run directory was not deleted, since writing on would make part of it again.

    Raises:
      StorageError: config.json is gone.
    """
    if not (workdir / "config.json").exists():
        raise StorageError(f"{workdir} is gone: it was deleted or moved while the run used it")
