"""Settings that must be there before JAX starts, and what several test files share."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

# Eight virtual devices, as a host of a pod has; a pmap over fewer uses the first ones.
# Compilation, not running, is what the tests' tiny models cost: spare the expensive part of it.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)
# What one worker or file compiled the others need not; workers inherit the folder. Each session
# begins with an empty one, so that no test is right by what an earlier version compiled.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="rc2l_jax_compiled_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
sys.path.insert(0, str(Path(__file__).parents[1]))


import jax
import pytest

# Of these a file takes minutes: begun last, they would leave the other workers with nothing to do.
_FIRST = ("faults", "test_end_to_end.py", "test_notebooks.py", "test_two_processes.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start processes come first, the others as they are."""
    items.sort(key=lambda item: not any(name in item.path.parts for name in _FIRST))


def pytest_unconfigure() -> None:
    """The last process to end removes what was compiled."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def forget_what_a_file_compiled():
    """What a file compiles is used in it alone, and would fill the memory by the last file."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def one_device_to_configs(monkeypatch):
    """Configs are validated for one device, as on a user's machine; pmap still has all eight."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
