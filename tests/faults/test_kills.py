"""SIGKILL at any moment loses at most the steps since the last checkpoint, and corrupts nothing.

Tests rc2l_jax/run/checkpoints.py and rc2l_jax/training/loop.py in whole runs.
"""

from __future__ import annotations

import itertools
import random
import time

import pytest
from faults.runs import RC2L, assert_same_run, printed_losses, saved_steps

LONG = {"num_steps": 240, "eval_every_steps": 60}
# When the run is killed: "saved": after it has written a checkpoint; "save": while it writes one;
# "steps": soon after the first step; "start": while it starts.
MOMENTS = ("saved", "save", "steps", "start", "saved", "save", "steps")


def until_moment(run, workdir, moment: str, random_: random.Random) -> None:
    """Waits for one of `MOMENTS`, and for a random time after it."""
    if moment == "start":
        time.sleep(random_.uniform(0, 4))
        return
    checkpoints = workdir / "checkpoints"
    before = saved_steps(workdir)[-1:]
    run.until_printed("first step")
    if moment == "steps":
        time.sleep(random_.uniform(0, 0.8))
    elif moment == "saved":
        run.until(lambda: saved_steps(workdir)[-1:] > before)
        time.sleep(random_.uniform(0, 0.2))
    else:
        run.until(lambda: any("tmp" in p.name for p in checkpoints.iterdir()))
        time.sleep(random_.uniform(0, 0.02))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config", "kills"),
    [
        ("supervised", {}, 4),
        pytest.param("supervised_long", LONG, 21, marks=pytest.mark.long),
        pytest.param("rc2l_long", LONG | RC2L, 21, marks=pytest.mark.long),
    ],
)
def test_a_run_killed_again_and_again_is_the_same_run(runs, undisturbed, name, config, kills):
    workdir, whole = runs.scratch / f"{name}_killed", undisturbed
    if config:
        whole = runs.scratch / f"{name}_whole"
        runs.finish(whole, **config)
    losses = printed_losses((runs.scratch / f"{whole.name}.log").read_text())
    random_ = random.Random(0)
    for life, moment in zip(range(kills), itertools.cycle(MOMENTS)):
        run = runs.start(workdir, **config)
        until_moment(run, workdir, moment, random_)
        run.kill()
        said = printed_losses(run.output())
        assert said.items() <= losses.items(), life
    assert not (workdir / "results.json").exists(), "finished before the last kill"
    again = runs.finish(workdir, **config)
    assert "resuming from the checkpoint" in again
    assert printed_losses(again).items() <= losses.items()
    assert_same_run(whole, workdir)
