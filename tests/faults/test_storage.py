"""Full and read-only disks, a directory that vanishes, and two jobs in one directory.

Tests rc2l_jax/run/storage.py, directory.py and stored_config.py in whole runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from etils import epath
from faults.runs import RC2L, SLOW, Run, assert_same_run, newest_state, saved_steps

from rc2l_jax.run.directory import only_job
from rc2l_jax.run.storage import StorageError

STOPPED, NOT_WRITABLE = 75, 5  # exit statuses, as docs/runs.md says


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mounts a file system of the given size at `path`; skips the test if that is not allowed."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        mount = ["sudo", "-n", *mount]
        done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"may not mount a small disk here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run([*mount[: mount.index("mount")], "umount", "-l", str(path)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_is_said_and_the_last_checkpoint_is_whole(runs, undisturbed):
    with small_disk(runs.scratch / "disk", "64m") as disk:
        workdir = disk / "fills"
        run = runs.start(workdir, keep_checkpoints=40, checkpoint_every_steps=2)
        run.until(lambda: workdir.is_dir() and (workdir / "checkpoints" / "4").is_dir())
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:  # until nothing more fits
                file.write(bytes(4096))
        assert run.wait() == NOT_WRITABLE, run.output()
        # If the disk became full during a save, TensorStore prints many lines, too.
        (error,) = [x for x in run.output().splitlines() if "error: " in x and "make room" in x]
        assert "cannot be written" in error and str(disk) in error
        kept = saved_steps(workdir)
        assert kept and newest_state(workdir).step == kept[-1]

        filler.unlink()
        again = runs.finish(workdir, keep_checkpoints=40, checkpoint_every_steps=2)
        assert f"resuming from the checkpoint of step {kept[-1]}" in again
        assert_same_run(undisturbed, workdir)


@pytest.mark.slow
def test_a_disk_that_may_only_be_read(runs):
    with small_disk(runs.scratch / "readonly", "16m") as disk:
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        subprocess.run([*sudo, "mount", "-o", "remount,ro", str(disk)], check=True)
        run = runs.start(disk / "unwritable")
        assert run.wait() == NOT_WRITABLE, run.output()
        (line,) = run.output().strip().splitlines()[-1:]
        assert (
            line.startswith(f"error: {disk}/unwritable cannot be written") and "Read-only" in line
        )


@pytest.mark.slow
def test_a_directory_that_vanishes_under_the_run(runs):
    workdir = runs.scratch / "vanishes"
    run = runs.start(workdir, patch=SLOW.format(seconds=0.5))
    run.until(lambda: (workdir / "checkpoints" / "3").is_dir())
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.rmtree(workdir, ignore_errors=True)
    assert run.wait() == NOT_WRITABLE, run.output()
    assert f"{workdir} is gone" in run.output(), run.output()


@pytest.mark.slow
def test_a_directory_belongs_to_one_job_at_a_time(runs, undisturbed):
    workdir = runs.scratch / "shared"
    first = runs.start(workdir, patch=SLOW.format(seconds=5))
    first.until_printed("first step")
    before = (workdir / "config.json").read_text()
    second = runs.start(workdir, num_steps=41)
    assert second.wait() == 1
    # The first job prints to the same file.
    (said,) = [line for line in second.output().splitlines() if line.startswith("error: ")]
    assert said.startswith(f"error: {workdir} is in use: process {first.pid} on "), said
    assert (workdir / "config.json").read_text() == before and first.poll() is None
    first.signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    # A job that was killed leaves no lock behind.
    third = runs.start(workdir)
    third.until_printed("process 0 of 1")
    third.signal(signal.SIGTERM)
    assert third.wait() == STOPPED, third.output()
    assert not (workdir / "job.json").exists()


def test_a_lock_goes_even_if_nothing_can_be_written(tmp_path, monkeypatch):
    workdir = epath.Path(tmp_path)

    def refuse(self, missing_ok=False):
        raise PermissionError(self)

    monkeypatch.setattr(type(workdir), "unlink", refuse)
    with pytest.raises(StorageError, match="read-only"), only_job(workdir):
        raise StorageError("read-only")
    monkeypatch.undo()
    with only_job(workdir):
        assert json.loads((workdir / "job.json").read_text())["pid"] == os.getpid()


BREAKS_EVALUATION = """
from rc2l_jax.training import loop
def broken(*arguments):
    raise MemoryError("an image too large")
loop.evaluate_state = broken
"""


@pytest.mark.slow
def test_an_error_in_an_evaluation_costs_no_step(runs, undisturbed):
    workdir, saves = runs.scratch / "evaluation breaks", {"checkpoint_every_steps": 40}
    run = runs.start(workdir, patch=BREAKS_EVALUATION, **saves)
    assert run.wait() == 1, run.output()
    assert "an image too large" in run.output() and saved_steps(workdir) == [20]
    again = runs.finish(workdir, **saves)
    assert "resuming from the checkpoint of step 20" in again and "step 20  student mIoU" in again
    assert_same_run(undisturbed, workdir)


@pytest.mark.slow
def test_another_config_is_shown_refused_and_allowed(runs):
    def stopped_after(line: str, run: Run) -> str:
        run.until_printed(line)
        run.signal(signal.SIGTERM)
        assert run.wait() == STOPPED, run.output()
        return run.output()

    workdir, patch = runs.scratch / "changed", SLOW.format(seconds=0.2)
    stopped_after("step 7/40", runs.start(workdir, patch=patch))
    kept = saved_steps(workdir)[-1]
    # These keys change the input only, so that the compiled step is the same.
    changed = {"data.max_scale": 1.25, "data.flip": False}
    refused = runs.start(workdir, **changed)
    assert refused.wait() == 1
    said = refused.output().strip().splitlines()[-1]
    assert "data.max_scale was 1.5" in said and "is now 1.25" in said and "data.flip" in said
    assert "--allow_config_change" in said
    former = json.loads((workdir / "config.json").read_text())
    run = runs.start(workdir, "--allow_config_change", patch=patch, **changed)
    output = stopped_after("step 14/40", run)
    assert "note: data.max_scale was" in output
    assert f"resuming from the checkpoint of step {kept}" in output
    assert json.loads((workdir / f"config_until_step_{kept:08}.json").read_text()) == former
    assert json.loads((workdir / "config.json").read_text())["data"]["max_scale"] == 1.25


@pytest.mark.slow
def test_a_supervised_run_goes_on_with_unlabeled_images(runs):
    workdir = runs.scratch / "supervised first"
    run = runs.start(workdir, patch=SLOW.format(seconds=0.2), log_every_steps=30)
    # Before the first progress line, so that the checkpoint holds running means of the metrics.
    run.until(lambda: saved_steps(workdir)[-1:] >= [6])
    run.signal(signal.SIGTERM)
    assert run.wait() == STOPPED, run.output()
    step = saved_steps(workdir)[-1] + 2
    ends = {"num_steps": step, "eval_every_steps": step, "log_every_steps": 1}
    output = runs.finish(workdir, "--allow_config_change", **RC2L | ends)
    assert "note: unsup_weight was" in output and f"step {step}  student mIoU" in output
    assert json.loads((workdir / "results.json").read_text())["losses"]["unlabel_smc"] > 0
