"""Several processes act as one: same numbers, same end, and checkpoints for any number of them.

Tests rc2l_jax/run/distributed.py in whole runs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from faults.runs import (
    DEADLINE,
    ROOT,
    XLA_FLAGS,
    free_port,
    newest_state,
    printed_losses,
    saved_steps,
)

STEPS = 50
# Steps without TensorFlow, to save time, but with the host callback. What depends on the number of
# devices is left out: dropout and CutMix partners. Pseudo segments come from class scores, as an
# untrained teacher's queries are near ties, and float noise would choose among them.
WORKER = f"""
import json, sys
import jax
port, index, count, output = *map(int, sys.argv[1:4]), sys.argv[4]
if count > 1:
    from rc2l_jax.run import distributed
    distributed.initialize(f"localhost:{{port}}", count, index)
import numpy as np
import tiny
from rc2l_jax.training.averages import summarize
from rc2l_jax.method.state import create_train_state
from rc2l_jax.training.devices import parallel_train_step, replicate

config = tiny.config(
    model__norm="batch", cutmix__probability=0.0, num_steps={STEPS}, pseudo__source="semantic",
    pseudo__pixel_threshold=0.0,
)
model, optimizer, state = create_train_state(config)
state = jax.tree.map(np.array, state)
flat = lambda tree: np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(tree)])
first = flat(state.params)
state = replicate(state)
step = parallel_train_step(model, optimizer, config)
local, losses = jax.local_device_count(), []
for i in range({STEPS}):
    whole = tiny.batch(count * local, seed=i % 8)
    share = jax.tree.map(lambda x: x[index * local : (index + 1) * local], whole)
    state, metrics = step(state, share)
    losses.append(summarize(metrics)["loss/total"])
if index == 0:
    np.savez(
        output, first=first, student=flat(state.params), teacher=flat(state.teacher_params),
        losses=losses,
    )
"""


def train_together(output: Path, processes: int, devices: int) -> dict[str, np.ndarray]:
    """Takes the steps on so many processes of so many devices each."""
    flags = f"{XLA_FLAGS} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, port, str(i), str(processes), str(output)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    for process in started:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-3000:]
    with np.load(output) as saved:
        return dict(saved)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, np.ndarray]:
    return train_together(tmp_path_factory.mktemp("alone") / "run.npz", 1, 1)


# `test_two_processes.py` has a short form of this test.
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("processes", "devices"), [(1, 2), (2, 1), (2, 2), (4, 1), (4, 2)])
def test_the_number_of_processes_and_devices_does_not_matter(alone, tmp_path, processes, devices):
    together = train_together(tmp_path / "run.npz", processes, devices)
    difference = np.abs(together["losses"] / alone["losses"] - 1)
    moved = np.linalg.norm(alone["student"] - alone["first"])
    apart = {
        name: np.linalg.norm(together[name] - alone[name]) / moved
        for name in ("student", "teacher")
    }
    print(f"{processes} x {devices}: losses {difference.max():.1e}, parameters {apart}")
    assert difference.max() < 1e-4
    assert max(apart.values()) < 1e-2


# Overrides for runs of main.py.
PLAIN = {
    "model.dropout": 0.0,
    "num_steps": 4000,
    "eval_every_steps": 4000,
    "log_every_steps": 1,
    "checkpoint_every_steps": 4,
}
BROKEN_INPUT = """
from data.dataset import Dataset
fetch, calls = Dataset.fetch, []
def broken(*arguments, **options):
    calls.append(0)
    if len(calls) > 12:
        raise RuntimeError("photo 7 is broken")
    return fetch(*arguments, **options)
Dataset.fetch = broken
"""


def all_end(processes, within: float = 60) -> list[int]:
    """Waits for the end of all processes; returns their exit statuses."""
    end = time.monotonic() + within
    return [process.wait(max(end - time.monotonic(), 0.1)) for process in processes]


@pytest.mark.slow
@pytest.mark.long
def test_sigterm_and_the_death_of_a_process_end_all_and_any_number_goes_on(runs):
    workdir = runs.scratch / "two"
    two = runs.start_many(workdir, 2, **PLAIN)
    two[0].until_printed("step 6/")
    two[1].signal(signal.SIGTERM)
    assert all_end(two) == [75, 75], [p.output() for p in two]
    stopped = saved_steps(workdir)[-1]
    assert f"checkpoint of step {stopped} saved" in two[0].output()

    two = runs.start_many(workdir, 2, **PLAIN)
    two[0].until_printed(f"resuming from the checkpoint of step {stopped}")
    two[0].until(lambda: saved_steps(workdir)[-1] > stopped)
    two[1].signal(signal.SIGKILL)
    survivor, killed = all_end(two)
    assert killed == -signal.SIGKILL and survivor not in (0, 75), two[0].output()
    assert "error" in two[0].output().lower(), two[0].output()

    state, last = newest_state(workdir), saved_steps(workdir)[-1]
    assert state.step == last
    goes_on = {**PLAIN, "num_steps": last + 3, "eval_every_steps": last + 3}
    losses = []
    for count in (1, 4):
        copy = runs.scratch / f"from_two_{count}"
        shutil.copytree(workdir, copy)
        if count == 1:
            said = runs.finish(copy, **goes_on)
        else:
            four = runs.start_many(copy, count, **goes_on)
            assert all_end(four, DEADLINE) == [0] * count, [p.output() for p in four]
            said = four[0].output()
        assert f"resuming from the checkpoint of step {last}" in said
        losses.append(printed_losses(said))
        results = json.loads((copy / "results.json").read_text())
        assert results["step"] == last + 3 and results["student"]["miou"] is not None
    one, four = ({step: float(x) for step, x in loss.items() if step > last} for loss in losses)
    assert len(one) == 3 and one.keys() == four.keys()
    np.testing.assert_allclose([*four.values()], [*one.values()], rtol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("who", [1, pytest.param(0, marks=pytest.mark.long)])
def test_the_first_error_of_any_process_ends_all_with_that_error(runs, who):
    workdir = runs.scratch / f"error_{who}"
    two = runs.start_many(workdir, 2, patches={who: BROKEN_INPUT}, **PLAIN)
    two[who].until_printed("photo 7 is broken")
    statuses = all_end(two)
    assert statuses[who] == 1 and statuses[1 - who] == 4, [p.output() for p in two]
    assert "photo 7 is broken" in two[1 - who].output()
    assert f"process {who} on" in two[1 - who].output()


@pytest.mark.slow
@pytest.mark.long
def test_the_death_of_the_first_process_ends_the_others(runs):
    workdir = runs.scratch / "coordinator"
    two = runs.start_many(workdir, 2, **PLAIN)
    two[0].until_printed("step 2/")
    two[0].signal(signal.SIGKILL)
    killed, survivor = all_end(two)
    assert killed == -signal.SIGKILL and survivor not in (0, 75), two[1].output()
    assert two[1].output().strip()
