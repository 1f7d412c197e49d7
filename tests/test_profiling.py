"""rc2l_jax/training/profiling.py: which steps are traced, and what a trace holds.

test_end_to_end.py profiles a whole run.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from rc2l_jax.training.profiling import ProfiledStep, traced_steps


@pytest.mark.parametrize(
    ("done", "last", "steps"),
    [
        (0, 1000, range(11, 16)),
        (100, 1000, range(111, 116)),  # resumed
        (0, 15, range(11, 16)),
        (0, 14, range(10, 15)),
        (0, 3, range(2, 4)),
        (7, 9, range(9, 10)),
        (0, 1, range(1, 2)),  # there is only the step that compiles
    ],
)
def test_which_steps_are_traced(done, last, steps):
    assert traced_steps(done, last) == steps


def steps_in_trace(workdir: Path) -> list[int]:
    """Numbers of the steps in the one trace of a run directory."""
    (path,) = workdir.glob("plugins/profile/*/perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return sorted({int(e["args"]["step_num"]) for e in events if e.get("name") == "train"})


def test_a_short_run_leaves_a_whole_trace(tmp_path, capsys):
    step = ProfiledStep(jax.jit(lambda state, batch: (state + batch, {})), tmp_path, 0, 3)
    state = jnp.zeros(())
    for _ in range(3):
        state, _ = step(state, 2.0)
    assert state == 6.0
    assert steps_in_trace(tmp_path) == [2, 3]
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
    (line,) = capsys.readouterr().out.splitlines()
    assert f" trace of steps 2 to 3: {tmp_path}/plugins/profile/" in line


def test_other_processes_do_not_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    step = ProfiledStep(lambda state, batch: (state + batch, {}), tmp_path, 0, 1)
    assert step(1, 2) == (3, {})
    assert not list(tmp_path.iterdir())
