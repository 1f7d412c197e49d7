"""Starts `main.py` many times, quickly: a process that has imported everything forks the runs.

A fork has its own signal handlers and its own exit status, as a new process would have. It only
saves the seconds that importing TensorFlow and JAX takes. JAX opens no device before the fork.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tiny
from ml_collections import ConfigDict

from rc2l_jax.method.state import create_train_state
from rc2l_jax.run.checkpoints import Checkpoints

ROOT = Path(__file__).parents[2]
DEADLINE = 300  # seconds to wait for anything; a busy machine can be ten times slower
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

# A supervised run: what is tested here does not depend on the method, and such a run starts in half
# the time. `RC2L` turns the whole method on.
TINY = tiny.COMMAND_LINE | {
    "num_steps": 40,
    "batch_size": 4,
    "unsup_weight": 0.0,
    "log_every_steps": 7,
    "eval_every_steps": 20,
    "checkpoint_every_steps": 3,
    "keep_checkpoints": 2,
    "num_pictures": 0,
    "data.shapes.num_train": 24,
    "data.labeled_split": "train#8@0",
    "data.unlabeled_split": "",
}
RC2L = {
    "unsup_weight": 1.0,
    "unlabeled_batch_size": 8,
    "data.unlabeled_split": "train#rest8@0",
}

# A patch that slows a run's steps down, so that the run does not end before the test is done.
SLOW = """
import time
from rc2l_jax.training import loop
accumulate = loop.accumulate
loop.accumulate = lambda *arguments: (time.sleep({seconds}), accumulate(*arguments))[1]
"""

# The process that forks answers each request, one line of JSON, with one line. A request's "patch"
# is code that the run executes before `main`, so that a test can meet it at a certain moment.
_FORKS = """
import json, os, sys
import main

def run(request):
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1), os.dup2(log, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    exec(request["patch"], {})
    sys.argv = ["main.py", *request["arguments"]]
    main.app.run(main.main, flags_parser=main.parse_flags)

for line in sys.stdin:
    request = json.loads(line)
    if "poll" in request:
        pid, status = os.waitpid(request["poll"], os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
    else:
        pid = os.fork()
        if not pid:
            run(request)
        print(pid, flush=True)
"""


class Runs:
    """Starts runs of one tiny config; they share the records prepared in the folder `scratch`."""

    def __init__(self, scratch: Path):
        """Starts the process that imports everything once and forks the runs."""
        self.scratch = scratch
        # What is compiled goes to the folder that all test files share (tests/conftest.py): most
        # runs take the same step, which is then compiled once a session and not once a file.
        self.environment = os.environ | {
            "XLA_FLAGS": XLA_FLAGS,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self._forks = subprocess.Popen(
            [sys.executable, "-c", _FORKS],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """Ends the process that forks."""
        self._forks.stdin.close()
        self._forks.wait()

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Sends a request to the process that forks; returns the answer."""
        self._forks.stdin.write(json.dumps(request) + "\n")
        self._forks.stdin.flush()
        return json.loads(self._forks.stdout.readline())

    def arguments(self, workdir: Path, *flags: str, **overrides: object) -> list[str]:
        """Arguments of `main.py` for a run of the tiny config."""
        prepared = {"data.prepared_dir": self.scratch / "tfds"}
        values = TINY | prepared | {k.replace("__", "."): v for k, v in overrides.items()}
        settings = [f"--config.{key}={value}" for key, value in values.items()]
        return ["--config=configs/shapes.py", f"--workdir={workdir}", *settings, *flags]

    def start(
        self,
        workdir: Path,
        *flags: str,
        patch: str = "",
        **overrides: object,
    ) -> Run:
        """Starts a run of the tiny config; its output is appended to NAME.log in `scratch`."""
        return self.command(self.arguments(workdir, *flags, **overrides), workdir.name, patch)

    def command(self, arguments: list[str], name: str, patch: str = "") -> Run:
        """Starts `main.py` with these arguments; its output is appended to NAME.log."""
        log = self.scratch / f"{name}.log"  # not in the run directory, whose disk may be full
        start = log.stat().st_size if log.exists() else 0
        pid = self.ask({"arguments": arguments, "log": str(log), "patch": patch})
        return Run(self, pid, log, start)

    def finish(self, workdir: Path, *flags: str, **overrides: Any) -> str:
        """Runs to the end; returns what was printed."""
        run = self.start(workdir, *flags, **overrides)
        assert run.wait() == 0, run.output()
        return run.output()

    def start_many(
        self,
        workdir: Path,
        count: int,
        patches: Mapping[int, str] | None = None,
        **overrides: Any,
    ) -> list[Run]:
        """Starts a run of several processes; the output of process i goes to NAME.i.log."""
        flags = (f"--coordinator=localhost:{free_port()}", f"--num_processes={count}")
        processes = []
        for index in range(count):
            where = f"--workdir={workdir}"  # `start` gives --workdir as well; the last one counts
            named = workdir.with_name(f"{workdir.name}.{index}")
            patch = (patches or {}).get(index, "")
            which = f"--process_id={index}"
            processes.append(self.start(named, *flags, which, where, patch=patch, **overrides))
        return processes


class Run:
    """One process of `main.py`."""

    def __init__(self, runs: Runs, pid: int, log: Path, start: int):
        """`start`: where in `log` its output begins."""
        self._runs, self.pid, self._log, self._start = runs, pid, log, start
        self._status: int | None = None

    def output(self) -> str:
        """What it printed so far."""
        if not self._log.exists():
            return ""
        return self._log.read_bytes()[self._start :].decode(errors="replace")

    def poll(self) -> int | None:
        """Its exit status (negative: the signal that ended it), or None as long as it runs."""
        if self._status is None:
            self._status = self._runs.ask({"poll": self.pid})
        return self._status

    def until(self, condition: Callable[[], object], deadline: float = DEADLINE) -> None:
        """Waits for a condition, as long as the process lives."""
        end = time.monotonic() + deadline
        while not condition():
            assert self.poll() is None, f"ended with {self._status}:\n{self.output()}"
            assert time.monotonic() < end, f"waited too long:\n{self.output()}"
            time.sleep(0.002)

    def until_printed(self, text: str) -> None:
        """Waits until it has printed a text."""
        self.until(lambda: text in self.output())

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    def wait(self, deadline: float = DEADLINE) -> int:
        """Waits for its end; returns the exit status."""
        end = time.monotonic() + deadline
        while self.poll() is None:
            if time.monotonic() > end:
                self.signal(signal.SIGKILL)
                raise AssertionError(f"still running after {deadline} s:\n{self.output()}")
            time.sleep(0.01)
        return self.poll()

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def saved_steps(workdir: Path) -> list[int]:
    """Steps of the complete checkpoints, in order."""
    return sorted(int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit())


def newest_state(workdir: Path, step: int | None = None) -> Any:
    """The `TrainState` of a run's newest checkpoint, or of that of `step`."""
    config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    _, _, template = create_train_state(config)
    with Checkpoints(workdir, config.keep_checkpoints) as checkpoints:
        return checkpoints.restore(template, step)[0]


def same_bits(a: Any, b: Any) -> bool:
    """Whether two trees of arrays are equal in every bit."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs)


def printed_losses(output: str) -> dict[int, str]:
    """{step: loss} of the progress lines."""
    words = [line.split() for line in output.splitlines() if "  loss " in line]
    return {int(w[w.index("step") + 1].split("/")[0]): w[w.index("loss") + 1] for w in words}


def assert_same_run(one: Path, other: Path) -> None:
    """Final parameters, losses, evaluations and best score are equal in every bit."""
    assert same_bits(newest_state(one), newest_state(other))
    first, second = (json.loads((d / "results.json").read_text()) for d in (one, other))
    assert first == second
    lines = [(d / "evaluations.jsonl").read_text().splitlines() for d in (one, other)]
    assert [json.loads(line) for line in lines[0]] == [json.loads(line) for line in lines[1]]
