"""SIGTERM and Ctrl-C: a checkpoint after the current step, status 75, and then the same run.

Tests rc2l_jax/run/interruption.py in whole runs.
"""

from __future__ import annotations

import json
import shutil
import signal

import pytest
from faults.runs import assert_same_run, saved_steps

STOPPED = 75  # as docs/runs.md says
# Patches: each makes the run write the file `there` at a certain moment. Most then stay at that
# moment, in short sleeps: Python handles a signal between two calls, so one that came just before a
# long sleep would wait for its end.
LOADING = """
import pathlib, time
from data.dataset import Dataset
fetch, calls = Dataset.fetch, []
def slow(*arguments, **options):
    calls.append(0)
    if len(calls) > 12:  # a call a step
        pathlib.Path({there!r}).touch()
        while True:
            time.sleep(0.1)
    return fetch(*arguments, **options)
Dataset.fetch = slow
"""
STEP = """
import pathlib, time
from rc2l_jax.training import loop
accumulate, calls = loop.accumulate, []
def noted(*arguments):
    calls.append(0)
    if len(calls) == 5:  # after the 12 steps that LOADING allows at most, and before evaluation
        pathlib.Path({there!r}).touch()
        time.sleep(1)
    return accumulate(*arguments)
loop.accumulate = noted
"""
EVALUATION = """
import pathlib, time
from rc2l_jax.input_pipeline import eval_batches as module
eval_batches = module.eval_batches
def slow(*arguments):
    for batch in eval_batches(*arguments):
        pathlib.Path({there!r}).touch()
        while True:  # a disk that does not answer
            time.sleep(0.1)
        yield batch
module.eval_batches = slow
"""
SAVE = """
import os, pathlib, time
from rc2l_jax.run import checkpoints
save = checkpoints.Checkpoints.save
def noted(self, state, metadata):
    save(self, state, metadata)
    pathlib.Path({there!r}).touch()
checkpoints.Checkpoints.save = noted
"""
# The run is stopped at these moments in turn; each time it continues from where it was stopped.
MOMENTS = (
    ("loading", LOADING, signal.SIGTERM),
    ("step", STEP, signal.SIGTERM),
    ("evaluation", EVALUATION, signal.SIGTERM),
    ("save", SAVE, signal.SIGTERM),
    ("last evaluation", EVALUATION, signal.SIGINT),
)


@pytest.mark.slow
def test_stopped_at_every_moment_a_run_comes_to_the_same_bits(runs, undisturbed):
    workdir, kept = runs.scratch / "stopped", 0
    for moment, patch, number in MOMENTS:
        there = runs.scratch / f"{moment}.there"
        run = runs.start(workdir, patch=patch.format(there=str(there)))
        run.until(there.exists)
        run.signal(number)
        assert run.wait() == STOPPED, (moment, run.output())
        assert f"stopped by {number.name}" in run.output(), (moment, run.output())
        assert not kept or f"resuming from the checkpoint of step {kept}" in run.output()
        last, kept = kept, saved_steps(workdir)[-1]
        assert kept > last and f"checkpoint of step {kept} saved" in run.output(), moment
        assert "step 40  student mIoU" not in run.output()
        assert kept == {"evaluation": 20, "last evaluation": 40}.get(moment, kept)
    output = runs.finish(workdir)
    assert "step 40  student mIoU" in output  # the evaluation that was still to be done
    assert_same_run(undisturbed, workdir)

    # The newest checkpoint was written before that evaluation, and does not have its scores.
    results = (workdir / "results.json").read_text()
    assert "Nothing to do" in runs.finish(workdir)
    there = runs.scratch / "mode eval.there"
    run = runs.start(workdir, "--mode=eval", patch=EVALUATION.format(there=str(there)))
    run.until(there.exists)
    run.signal(signal.SIGTERM)
    assert run.wait() == STOPPED, run.output()
    assert (workdir / "results.json").read_text() == results
    runs.finish(workdir, "--mode=eval")
    assert json.loads((workdir / "results.json").read_text())["best"] == json.loads(results)["best"]


RESTORE = """
import pathlib, time
from rc2l_jax.run import checkpoints
item_metadata = checkpoints.ocp.CheckpointManager.item_metadata
def slow(self, *arguments):
    pathlib.Path({there!r}).touch()
    while True:
        time.sleep(0.1)
checkpoints.ocp.CheckpointManager.item_metadata = slow
"""


@pytest.mark.slow
def test_stopped_while_a_checkpoint_is_read_no_checkpoint_is_called_damaged(runs, undisturbed):
    workdir, there = runs.scratch / "stopped restoring", runs.scratch / "restore.there"
    shutil.copytree(undisturbed, workdir)
    run = runs.start(workdir, patch=RESTORE.format(there=str(there)), num_steps=41)
    run.until(there.exists)
    run.signal(signal.SIGTERM)
    assert run.wait() == STOPPED, run.output()
    assert "cannot be read" not in run.output()


@pytest.mark.slow
def test_before_the_first_step_it_stops_at_once(runs):
    run = runs.start(runs.scratch / "early")
    run.until_printed("run directory")
    run.signal(signal.SIGTERM)
    assert run.wait(60) == STOPPED, run.output()
    assert not any((runs.scratch / "early").glob("checkpoints/*"))
