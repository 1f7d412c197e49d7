"""Settings that must be made before JAX starts, the order of files, and fixtures of all tests."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

# Eight virtual devices, as a host of a pod has; a pmap over fewer devices uses the first ones.
# The tests' tiny models cost time in compilation, not in running, so its expensive part is off.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)
# All workers and files share what is compiled, as workers inherit the folder. Each session begins
# with an empty folder, so that no test passes because of what an earlier version compiled.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="rc2l_jax_compiled_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
sys.path.insert(0, str(Path(__file__).parents[1]))


import jax
import pytest
from absl import flags

import main

# Each of these files takes minutes. If one began last, the other workers would have nothing to do.
_FIRST = ("faults", "test_end_to_end.py", "test_notebooks.py", "test_two_processes.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the files that start processes to the front; the others keep their order."""
    items.sort(key=lambda item: not any(name in item.path.parts for name in _FIRST))


def pytest_unconfigure() -> None:
    """Removes what was compiled, when the process that started the workers ends."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def forget_what_a_file_compiled():
    """Frees what a file compiled: no other file uses it, and together it would fill the memory."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def one_device_to_configs(monkeypatch):
    """Makes configs be validated for one device, as on a user's machine; pmap has all eight."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


@pytest.fixture
def command_line(monkeypatch, tmp_path):
    """A function that runs main.py in this process, as `app.run` does; it forgets earlier flags."""
    monkeypatch.chdir(Path(__file__).parents[1])

    def run(arguments: list[str]) -> None:
        forget_flags()
        argv = ["main.py", *(argument.format(tmp=tmp_path) for argument in arguments)]
        monkeypatch.setattr(sys, "argv", argv)  # ml_collections looks for overrides there
        main.main(main.parse_flags(argv))

    yield run
    forget_flags()


def forget_flags() -> None:
    """Gives main.py's flags their defaults."""
    for name in list(flags.FLAGS):
        if name.startswith("config."):
            delattr(flags.FLAGS, name)
    for name in (
        "config", "version", "workdir", "mode", "step", "output", "size", "input", "model",
        "overwrite", "resume", "annotations", "count",
    ):  # fmt: skip
        flags.FLAGS[name].unparse()
    flags.FLAGS.unparse_flags()
