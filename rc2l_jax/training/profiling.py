"""Traces a few training steps, for TensorBoard's profile plugin and for Perfetto."""

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
    """Chooses the steps to trace.

    Args:
      done: steps that the run has taken before this process; this process compiles in the next one.
      last: the run's last step.

    Returns:
      `TRACED_STEPS` steps, after `SKIPPED_STEPS` that are not traced. If too few steps are left for
      that, the last ones; the step that compiles is among them only if it is the only one left.
    """
    first = min(done + SKIPPED_STEPS, last - TRACED_STEPS) + 1
    first = max(first, min(done + 2, last))
    return range(first, min(first + TRACED_STEPS, last + 1))


def _options() -> jax.profiler.ProfileOptions:
    options = jax.profiler.ProfileOptions()
    # Tracing every call of a Python function would reach, within two steps, the million events that
    # a trace's JSON may hold, and would slow the steps down.
    options.python_tracer_level = 0
    return options


class ProfiledStep:
    """Wraps a training step, and traces some of its calls."""

    def __init__(self, step_fn: Step, workdir: epath.Path, done: int, last: int):
        """Wraps a step. Only process 0 traces.

        Args:
          step_fn: the training step, see `devices.parallel_train_step`.
          workdir: the run directory; the trace goes to <workdir>/plugins/profile/<time>/.
          done: steps that the run has taken before this process.
          last: the run's last step.
        """
        self._step_fn, self._workdir, self._step = step_fn, workdir, done
        traced = traced_steps(done, last)
        self._first, self._last = traced[0], traced[-1]
        self._active = jax.process_index() == 0

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        """Takes a step. Where the trace begins and where it ends, it waits for the device."""
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
