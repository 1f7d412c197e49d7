"""What all fault tests start runs with; processes of pytest-xdist share the folder they work in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from faults.runs import Runs
from filelock import FileLock


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Forks runs; records and compiled programs are shared by all of them."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    scratch = base / "faults"
    scratch.mkdir(exist_ok=True)
    started = Runs(scratch)
    yield started
    started.close()


@pytest.fixture(scope="session")
def undisturbed(runs) -> Path:
    """A run of the tiny config that nothing disturbed."""
    workdir = runs.scratch / "undisturbed"
    with FileLock(runs.scratch / "undisturbed.lock"):
        if not (workdir / "results.json").exists():
            runs.finish(workdir)
    return workdir
