"""The lines that a run prints: on process 0 only, but for the line that says where each runs."""

from __future__ import annotations

import datetime
import os
import platform
import socket
import time

import flax
import jax
from etils import epath
from ml_collections import ConfigDict

from rc2l_jax.structs import TrainState


def say(message: str, *, everywhere: bool = False) -> None:
    """Prints a line with the time, without buffering.

    Args:
      message: the text.
      everywhere: whether all processes print it, and not only process 0.
    """
    index = jax.process_index()
    if index == 0 or everywhere:
        who = f" [{index}]" if jax.process_count() > 1 else ""
        print(f"{datetime.datetime.now():%H:%M:%S}{who} {message}", flush=True)


def say_run(config: ConfigDict, workdir: epath.Path, state: TrainState) -> None:
    """Prints host, devices, versions, the run directory and the size of the model."""
    device = jax.devices()[0]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    now = datetime.datetime.now().astimezone()
    say(
        f"{now:%Y-%m-%d %H:%M:%S %Z}, host {socket.gethostname()}, pid {os.getpid()}, "
        f"process {jax.process_index()} of {jax.process_count()}",
        everywhere=True,
    )
    say(f"run directory {workdir}")
    say(
        f"{jax.device_count()} x {device.device_kind} ({device.platform}), "
        f"{jax.process_count()} process(es); Python {platform.python_version()}, "
        f"jax {jax.__version__}, flax {flax.__version__}"
    )
    say(f"{config.model.backbone} MaskFormer, {parameters:,} parameters")


class Clock:
    """Measures training speed, in steps per second since the last `restart`.

    It is restarted after compilation and after each log, so that evaluations do not count.
    """

    def __init__(self, step: int, num_steps: int):
        """Starts to measure at `step` of `num_steps` steps."""
        self._num_steps = num_steps
        self.restart(step)

    def restart(self, step: int) -> None:
        """Starts to measure again, at `step` and now."""
        self._step, self._time = step, time.perf_counter()

    def rate(self, step: int) -> float | None:
        """Returns steps per second since the last restart, or None if there was no step."""
        steps = step - self._step
        return steps / (time.perf_counter() - self._time) if steps else None

    def line(self, step: int, loss: float) -> str:
        """Returns a progress line for `step`: share done, loss, speed and time left."""
        rate, left = self.rate(step), self._num_steps - step
        line = f"step {step}/{self._num_steps}  {100 * step // self._num_steps}%  loss {loss:.4g}"
        if rate is None:
            return line
        eta = datetime.timedelta(seconds=round(left / rate))
        return f"{line}  steps/s {rate:.3g}  ETA {eta}"
