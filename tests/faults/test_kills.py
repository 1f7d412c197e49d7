"""SIGKILL at any moment loses at most the steps since the last checkpoint, and corrupts nothing."""

from __future__ import annotations

import itertools
import random
import time

import pytest
from faults.runs import assert_same_run, printed_losses

STEPS = {"num_steps": 240, "eval_every_steps": 60}
METHODS = {
    "supervised": {"unsup_weight": 0.0, "data.unlabeled_split": ""},  # starts in half the time
    "rc2l": {},
}
# Where a life ends: anywhere in the steps, while a checkpoint is written, or while it starts.
MOMENTS = ("steps", "save", "steps", "save", "steps", "save", "start")


def until_moment(run, workdir, moment: str, random_: random.Random) -> None:
    """Waits for a moment of a certain kind."""
    if moment == "start":
        time.sleep(random_.uniform(0, 4))
        return
    run.until_printed("first step")
    if moment == "steps":
        time.sleep(random_.uniform(0, 0.8))
    else:
        checkpoints = workdir / "checkpoints"
        run.until(lambda: any("tmp" in p.name for p in checkpoints.iterdir()))
        time.sleep(random_.uniform(0, 0.02))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "kills"),
    [
        ("supervised", 7),
        pytest.param("supervised", 21, marks=pytest.mark.long),
        pytest.param("rc2l", 21, marks=pytest.mark.long),
    ],
)
def test_a_run_killed_again_and_again_is_the_same_run(runs, method, kills):
    whole, workdir = (runs.scratch / f"{method}_{kills}_{name}" for name in ("whole", "killed"))
    config = STEPS | METHODS[method]
    losses = printed_losses(runs.finish(whole, **config))
    random_, lost = random.Random(0), []
    for life, moment in zip(range(kills), itertools.cycle(MOMENTS)):
        run = runs.start(workdir, **config)
        until_moment(run, workdir, moment, random_)
        run.kill()
        said = printed_losses(run.output())
        assert said.items() <= losses.items(), life
        lost.append(max(said, default=0))
    assert max(lost) < STEPS["num_steps"], "finished before the last kill"
    again = runs.finish(workdir, **config)
    assert "resuming from the checkpoint" in again
    assert printed_losses(again).items() <= losses.items()
    assert_same_run(whole, workdir)
