"""SIGTERM and Ctrl-C: a checkpoint at the next step boundary, status 75, and the same run after."""

from __future__ import annotations

import json
import signal

import pytest
from faults.runs import assert_same_run, saved_steps

STOPPED = 75  # as the README says
# Each leaves a file "there" when the run has come to a moment, and stays there for a while.
LOADING = """
import pathlib, time
from data.dataset import Dataset
fetch, calls = Dataset.fetch, []
def slow(*arguments, **options):
    calls.append(0)
    if len(calls) > 12:  # a call a step
        pathlib.Path({there!r}).touch()
        time.sleep(1_000)
    return fetch(*arguments, **options)
Dataset.fetch = slow
"""
STEP = """
import pathlib, time
from rc2l_jax import loop
accumulate, calls = loop.accumulate, []
def noted(*arguments):
    calls.append(0)
    if len(calls) == 9:
        pathlib.Path({there!r}).touch()
        time.sleep(1)
    return accumulate(*arguments)
loop.accumulate = noted
"""
EVALUATION = """
import pathlib, time
from rc2l_jax import eval_pipeline
eval_batches = eval_pipeline.eval_batches
def slow(*arguments):
    for batch in eval_batches(*arguments):
        pathlib.Path({there!r}).touch()
        time.sleep(1_000)  # a disk that does not answer
        yield batch
eval_pipeline.eval_batches = slow
"""
SAVE = """
import os, pathlib, time
from rc2l_jax import checkpoints
save = checkpoints.Checkpoints.save
def noted(self, state, metadata):
    save(self, state, metadata)
    pathlib.Path({there!r}).touch()
checkpoints.Checkpoints.save = noted
"""
MOMENTS = {"loading": LOADING, "step": STEP, "evaluation": EVALUATION, "save": SAVE}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_run_stops_saves_and_goes_on_to_the_same_bits(runs, undisturbed, moment):
    workdir, there = runs.scratch / moment, runs.scratch / f"{moment}.there"
    run = runs.start(workdir, patch=MOMENTS[moment].format(there=str(there)))
    run.until(there.exists)
    run.signal(signal.SIGTERM)
    assert run.wait() == STOPPED, run.output()
    assert "stopped by SIGTERM" in run.output()
    kept = saved_steps(workdir)[-1]
    assert f"checkpoint of step {kept} saved" in run.output()
    if moment == "evaluation":
        assert kept == 20 and not (workdir / "results.json").exists()
    output = runs.finish(workdir)
    assert f"resuming from the checkpoint of step {kept}" in output
    assert_same_run(undisturbed, workdir)


@pytest.mark.slow
def test_stopping_in_the_last_evaluation_leaves_it_to_be_done(runs, undisturbed):
    workdir, there = runs.scratch / "last", runs.scratch / "last.there"
    patch = EVALUATION.format(there=str(there))
    run = runs.start(workdir, patch=patch, eval_every_steps=40)
    run.until(there.exists)
    run.signal(signal.SIGINT)
    assert run.wait() == STOPPED and not (workdir / "results.json").exists()
    output = runs.finish(workdir, eval_every_steps=40)
    assert "step 40  student mIoU" in output
    results = [json.loads((d / "results.json").read_text()) for d in (undisturbed, workdir)]
    assert results[0]["student"] == results[1]["student"]


@pytest.mark.slow
def test_before_the_first_step_it_stops_at_once(runs):
    run = runs.start(runs.scratch / "early")
    run.until_printed("run directory")
    run.signal(signal.SIGTERM)
    assert run.wait(60) == STOPPED, run.output()
    assert not any((runs.scratch / "early").glob("checkpoints/*"))
