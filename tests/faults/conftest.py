"""Fixtures of all fault tests. The processes of pytest-xdist share one folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from faults.runs import Runs
from filelock import FileLock


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Starts runs by forking; all of them share prepared records and compiled programs."""
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
