"""Two processes with half of a batch each take the steps of one process with all of it.

Also tests, of rc2l_jax/run/distributed.py, that no process starts a step that another one still
compiles, and that each gets what all give.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults.runs import XLA_FLAGS, free_port

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
from rc2l_jax.training.averages import summarize
from rc2l_jax.method.state import create_train_state
from rc2l_jax.training.devices import parallel_train_step

config = tiny.config(model__norm="batch", model__num_decoder_layers=1, unsup_weight=0.0)
model, optimizer, state = create_train_state(config)
step = parallel_train_step(model, optimizer, config)
state = jax.tree.map(np.asarray, state)
for i in range(2):
    share = jax.tree.map(lambda x: x[index : index + 1], tiny.batch(count, unlabeled=0, seed=i))
    state, metrics = step(state, share)
    local = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), metrics)
    print("metrics", json.dumps(summarize(local)), flush=True)
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    env = os.environ | {
        "XLA_FLAGS": XLA_FLAGS,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
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
    both = [start(WORKER, port, index, 2) for index in range(2)]
    first, second = (results(process) for process in both)
    one = results(start(WORKER, port, 0, 1))
    assert len(one) == STEPS and first == second
    # With labelled images only, to save time; `faults/test_processes.py` has the whole method.
    for name in (name for name in one[0] if name.startswith("loss/") or name == "grad_norm"):
        np.testing.assert_allclose(first[0][name], one[0][name], rtol=1e-2, err_msg=name)
    # The second step's loss depends on every gradient of the first.
    np.testing.assert_allclose(first[1]["loss/total"], one[1]["loss/total"], rtol=2e-2)


# The second process compiles late. No collective holds the first one back, so that only our own
# waiting can do it.
LATE = """
import sys, time
from pathlib import Path
import jax
import numpy as np
from rc2l_jax.run import distributed
port, index, marker = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
distributed.initialize(f"localhost:{port}", 2, index)
traces = []

def add(state, batch):
    traces.append(0)
    if index == 1:
        time.sleep(3)
        marker.touch()
    return state + batch

call = distributed.compiled_together(jax.pmap(add, in_axes=(None, 0)))
for size in (2, 3, 3):
    marker.unlink(missing_ok=True) if index == 1 else None
    distributed._client().wait_at_barrier(f"round/{size}/{len(traces)}", 60_000)
    call(np.ones(()), np.ones((1, size)))
    assert size == 3 and len(traces) == 2 or marker.exists(), "ran before the other had compiled"
    distributed._client().wait_at_barrier(f"seen/{size}/{len(traces)}", 60_000)
assert len(traces) == 2, traces  # once for each shape, not again for the call itself
"""


@pytest.mark.slow
def test_no_process_runs_what_another_one_still_compiles(tmp_path):
    port = free_port()
    both = [start(LATE, port, index, tmp_path / "compiled") for index in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-3000:]


GATHER = """
import json, sys
from rc2l_jax.run import distributed
port, index = int(sys.argv[1]), int(sys.argv[2])
distributed.initialize(f"localhost:{port}", 2, index)
for value in ([{"photo": "\u00e9" * (1 + 5 * index), "miou": None}], []):
    print("metrics", json.dumps(distributed.gathered(value)), flush=True)
"""


@pytest.mark.slow
def test_each_process_gets_what_all_give():
    port = free_port()
    both = [start(GATHER, port, index) for index in range(2)]
    rows = [[{"photo": "\u00e9" * count, "miou": None}] for count in (1, 6)]
    for process in both:
        assert results(process) == [rows, [[], []]]
