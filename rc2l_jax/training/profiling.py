"""A trace of a few steps, for TensorBoard's profile plugin and for Perfetto."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from rc2l_jax.reports.log import say
from rc2l_jax.structs import Batch, TrainState

# Steps before the trace: the first compiles, the next ones fill the input pipeline's buffers.
SKIPPED_STEPS = 10
TRACED_STEPS = 5

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]


def traced_steps(done: int, last: int) -> range:
    """Returns which steps to trace.

    Args:
      done: steps taken before this process; the next one compiles.
      last: step of the run.

    Returns:
      `TRACED_STEPS` steps after the first `SKIPPED_STEPS`. A run too short for that has its last
      ones traced, and the one that compiles only if there is no other.
    """
    first = min(done + SKIPPED_STEPS, last - TRACED_STEPS) + 1
    first = max(first, min(done + 2, last))
    return range(first, min(first + TRACED_STEPS, last + 1))


def _options() -> jax.profiler.ProfileOptions:
    options = jax.profiler.ProfileOptions()
    # A call of every Python function would fill the million events that a trace's JSON may hold
    # within two steps, and slow the steps down.
    options.python_tracer_level = 0
    return options


class ProfiledStep:
    """A training step that leaves a trace of some of its calls, and is otherwise the same."""

    def __init__(self, step_fn: Step, workdir: epath.Path, done: int, last: int):
        """Wraps a step; only process 0 traces.

        Args:
          step_fn: see `train_step.parallel_train_step`.
          workdir: where the trace goes: <workdir>/plugins/profile/<time>/.
          done: see `traced_steps`.
          last: see `traced_steps`.
        """
        self._step_fn, self._workdir, self._step = step_fn, workdir, done
        traced = traced_steps(done, last)
        self._first, self._last = traced[0], traced[-1]
        self._active = jax.process_index() == 0

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        """Takes a step. Waits for the device where the trace begins and where it ends."""
        self._step += 1
        if self._active and self._step == self._first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(
                self._workdir, create_perfetto_trace=True, profiler_options=_options()
            )
        with jax.profiler.StepTraceAnnotation("train", step_num=self._step):
            result = self._step_fn(state, batch)
        if self._active and self._step == self._last:
            jax.block_until_ready(result)
            jax.profiler.stop_trace()
            say(self._where())
        return result

    def _where(self) -> str:
        folder = max((self._workdir / "plugins" / "profile").iterdir())
        return (
            f"trace of steps {self._first} to {self._last}: {folder}; open its "
            "perfetto_trace.json.gz at https://ui.perfetto.dev, or pip install xprof and "
            f"tensorboard --logdir={self._workdir}"
        )
