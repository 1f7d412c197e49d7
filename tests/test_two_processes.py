"""DESIGN's invariant 2 for processes: two with half the batch each are one with all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults.runs import free_port

ROOT = Path(__file__).parents[1]
STEPS = 2
WORKER = """
import json, sys
import jax
port, index, count = map(int, sys.argv[1:])
if count > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=count, process_id=index)
import numpy as np
import tiny
from rc2l_jax.metrics import summarize
from rc2l_jax.train_state import create_train_state
from rc2l_jax.train_step import parallel_train_step

config = tiny.config(model__norm="batch", cutmix__probability=0.0)
model, optimizer, state = create_train_state(config)
step = parallel_train_step(model, optimizer, config)
state = jax.tree.map(np.asarray, state)
for i in range(2):
    share = jax.tree.map(lambda x: x[index : index + 1], tiny.batch(count, seed=i))
    state, metrics = step(state, share)
    local = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), metrics)
    print("metrics", json.dumps(summarize(local)), flush=True)
"""


def start(port: int, index: int, count: int) -> subprocess.Popen:
    env = os.environ | {
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(port), str(index), str(count)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(process: subprocess.Popen) -> list[dict[str, float]]:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    lines = [line.split(" ", 1)[1] for line in out.splitlines() if line.startswith("metrics ")]
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_two_processes_equal_one():
    port = free_port()
    both = [start(port, index, 2) for index in range(2)]
    first, second = (results(process) for process in both)
    one = results(start(port, 0, 1))
    assert len(one) == STEPS and first == second
    # Of 6 pseudo segments float noise may tip one majority vote, so accuracies are not compared.
    for name in (name for name in one[0] if name.startswith("loss/") or name == "grad_norm"):
        np.testing.assert_allclose(first[0][name], one[0][name], rtol=1e-2, err_msg=name)
    # The second step's loss depends on every gradient of the first.
    np.testing.assert_allclose(first[1]["loss/total"], one[1]["loss/total"], rtol=2e-2)
