"""rc2l_jax/run/distributed.py: processes agree on where to continue, here without real ones.

`tests/faults/test_processes.py` runs real processes.
"""

from __future__ import annotations

import jax
import pytest
from etils import epath

from rc2l_jax.run import distributed
from rc2l_jax.run.directory import progress
from rc2l_jax.run.storage import write_json

WORKDIR = epath.Path("/shared/run")


class Store:
    """Stands for the coordinator's key-value store, which all processes share."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def key_value_set(self, key: str, value: str) -> None:
        self.values[key] = value

    def blocking_key_value_get(self, key: str, timeout: int) -> str:
        return self.values[key]


@pytest.fixture
def meet(monkeypatch):
    """Calls `check_same` as process 0, then as process 1; returns how often the latter looked.

    The arguments are what process 0 finds, and what process 1 finds at each look.
    """
    monkeypatch.setattr(distributed, "_LATE_SECONDS", 3)

    def call(found: str, *late: str) -> int:
        store, answers, asked = Store(), list(late), []

        def read() -> str:
            asked.append(answers[0])
            return answers.pop(0) if len(answers) > 1 else answers[0]

        monkeypatch.setattr(distributed, "_client", lambda: store)
        for index, reads in ((0, lambda: found), (1, read)):
            monkeypatch.setattr(distributed, "_meetings", iter([0]))
            monkeypatch.setattr(jax, "process_index", lambda index=index: index)
            distributed.check_same(WORKDIR, reads)
        return len(asked)

    return call


def test_processes_that_see_the_same_go_on(meet):
    assert meet("checkpoints [3, 6]", "checkpoints [3, 6]") == 1


def test_a_disk_that_is_late_is_waited_for(meet):
    assert meet("checkpoints [3, 6]", "checkpoints [3]", "checkpoints [3, 6]") == 2


def test_processes_that_see_different_directories_end(meet):
    with pytest.raises(distributed.DistributedError, match="one directory") as error:
        meet("checkpoints [3, 6]", "checkpoints []")
    assert "process 0 finds checkpoints [3, 6], process 1 on " in str(error.value)


def test_progress_is_checkpoints_and_results(tmp_path):
    workdir = epath.Path(tmp_path)
    assert progress(workdir) == "checkpoints [], results of step None"
    for name in ("100", "20", "120.orbax-checkpoint-tmp"):
        (workdir / "checkpoints" / name).mkdir(parents=True)
    write_json(workdir / "results.json", {"step": 100})
    assert progress(workdir) == "checkpoints [20, 100], results of step 100"
