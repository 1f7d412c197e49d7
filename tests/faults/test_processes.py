"""Several processes act as one: same numbers, same end, and checkpoints for any number of them.

Tests rc2l_jax/run/distributed.py in whole runs.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

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
from trained import unpack

STEPS = 20
IMAGES = 16  # of each kind
# The whole method, with the host callback and without TensorFlow, to save time.
WORKER = f"""
import sys
import jax
port, index, count, output, run, accumulate = *map(int, sys.argv[1:4]), *sys.argv[4:]
if count > 1:
    from rc2l_jax.run import distributed
    distributed.initialize(f"localhost:{{port}}", count, index)
import numpy as np
import trained
from rc2l_jax.training.averages import summarize
from rc2l_jax.training.devices import parallel_train_step, replicate

number = {IMAGES} * int(accumulate)
config, model, optimizer, state = trained.restore(run, number, accumulate_steps=int(accumulate))
flat = lambda tree: np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(tree)])
first = flat(state.params)
state = replicate(state)
step = parallel_train_step(model, optimizer, config)
local, losses = jax.local_device_count(), []

for i in range({STEPS}):
    whole = trained.batch(config, i)
    share = number // count
    batch = jax.tree.map(
        lambda x: x[index * share :][:share].reshape(local, share // local, *x.shape[1:]), whole
    )
    state, metrics = step(state, batch)
    losses.append(summarize(metrics))
if index == 0:
    np.savez(
        output, first=first, student=flat(state.params), teacher=flat(state.teacher_params),
        losses=[x["loss/total"] for x in losses], unlabel=[x["loss/unlabel_rmc"] for x in losses],
    )
"""


@pytest.fixture(scope="module")
def train_together(tmp_path_factory) -> Callable[..., dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("together")
    unpack(folder / "run")

    @functools.cache
    def train(processes: int, devices: int, accumulate: int) -> dict[str, np.ndarray]:
        """Takes the steps on so many processes of so many devices each."""
        flags = f"{XLA_FLAGS} --xla_force_host_platform_device_count={devices}"
        environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        output, port = folder / f"{processes}_{devices}_{accumulate}.npz", free_port()
        started = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER]
                + [str(x) for x in (port, i, processes, output, folder / "run", accumulate)],
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

    return train


def long(*arguments: int) -> Any:
    return pytest.param(*arguments, marks=pytest.mark.long)


# 16 devices have one image of each kind. `test_two_processes.py` has a short form of this test.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices", "accumulate"),
    [
        (1, 16, 1),
        *(long(1, devices, 1) for devices in (2, 4, 8)),
        *(long(2, devices, 1) for devices in (1, 2)),
        *(long(4, devices, 1) for devices in (1, 4)),
        long(1, 16, 2),  # parts of one image
    ],
)
def test_the_number_of_processes_and_devices_does_not_matter(
    train_together, processes, devices, accumulate
):
    alone = train_together(1, 1, accumulate)
    together = train_together(processes, devices, accumulate)
    difference = np.abs(together["losses"] / alone["losses"] - 1)
    moved = np.linalg.norm(alone["student"] - alone["first"])
    apart = {
        name: np.linalg.norm(together[name] - alone[name]) / moved
        for name in ("student", "teacher")
    }
    print(f"{processes} x {devices}: losses {difference.max():.1e}, parameters {apart}")
    assert (alone["unlabel"] > 0).all()  # there were pseudo segments
    assert difference.max() < 1e-5
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
