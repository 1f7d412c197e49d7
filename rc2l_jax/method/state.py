"""The state a run starts from."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from rc2l_jax.method.optimizer import create_optimizer
from rc2l_jax.models.maskformer import MaskFormer, build_model
from rc2l_jax.structs import TrainState
from rc2l_jax.weights import InitReport, load_pretrained


def create_train_state(
    config: ConfigDict,
) -> tuple[MaskFormer, optax.GradientTransformation, TrainState]:
    """Builds model, optimiser and the state of step 0; the teacher starts as the student.

    Args:
      config: see `configs/base.py`; `config.seed` decides every parameter.

    Returns:
      The model (its batch norms synchronise over axis "batch"), the optimiser and the state.
    """
    model, optimizer = build_model(config), create_optimizer(config)
    return model, optimizer, jax.jit(lambda: initial_state(model, optimizer, config))()


def initial_state(
    model: MaskFormer, optimizer: optax.GradientTransformation, config: ConfigDict
) -> TrainState:
    """The state of step 0 (traceable: `jax.eval_shape` gives its shapes at no cost)."""
    # "rbg" for the initial parameters: some hundred draws, which XLA compiles several times faster
    # than with the default generator. The run's own key is of the default kind.
    init_key = jax.random.key(config.seed, impl="rbg")
    run_key = jax.random.PRNGKey(config.seed)
    size = config.data.crop_size
    variables = model.init(init_key, jnp.zeros((1, size, size, 3)), train=False)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    # The state is donated to the step: no two of its leaves may share a buffer.
    copy = lambda tree: jax.tree.map(jnp.copy, tree)  # noqa: E731
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=run_key,
        params=params,
        batch_stats=batch_stats,
        teacher_params=copy(params),
        teacher_batch_stats=copy(batch_stats),
        opt_state=optimizer.init(params),
        class_shares=jnp.full(
            (2, config.data.num_classes), 1.0 / config.data.num_classes, jnp.float32
        ),
        nonfinite_run=jnp.zeros((), jnp.int32),
    )


def pretrained_state(
    state: TrainState, config: ConfigDict, run: dict[str, np.ndarray] | None = None
) -> tuple[TrainState, InitReport]:
    """Starts student and teacher from the weights that `config.init_from` names.

    Args:
      state: of step 0.
      config: see `load_pretrained`.
      run: see `load_pretrained`.

    Raises:
      WeightsError: see `load_pretrained`; nothing is half-loaded.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    loaded, report = load_pretrained(variables, config, run)
    return start_from(state, loaded), report


def start_from(state: TrainState, variables: Any) -> TrainState:
    """The state with {"params", "batch_stats"} as both student and teacher."""
    # Two copies: the state is donated to the step, and no two of its leaves may share a buffer.
    student, teacher = (jax.tree.map(jnp.array, variables) for _ in range(2))
    return state.replace(
        params=student["params"],
        batch_stats=student["batch_stats"],
        teacher_params=teacher["params"],
        teacher_batch_stats=teacher["batch_stats"],
    )


def ema_decay(decay: float, step: jax.Array) -> jax.Array:
    """tau warmed up: at most 1 - 1 / (step + 1), `step` being the steps done before this one.

    So the first averages are of what was seen so far and not mostly of the initial value.
    """
    return jnp.minimum(decay, 1.0 - 1.0 / (step.astype(jnp.float32) + 1.0))


def ema_update(teacher: Any, student: Any, decay: float, step: jax.Array) -> Any:
    """Eq. 4, theta_t = tau theta_t + (1 - tau) theta_s, with tau warmed up.

    Args:
      teacher: a tree of float32 arrays.
      student: the same tree, already updated by this step.
      decay: tau.
      step: see `ema_decay`.
    """
    tau = ema_decay(decay, step)
    return jax.tree.map(lambda t, s: tau * t + (1.0 - tau) * s, teacher, student)
