"""The state a run starts from."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rc2l_jax.method.optimizer import create_optimizer
from rc2l_jax.models.maskformer import MaskFormer, build_model
from rc2l_jax.structs import TrainState


def create_train_state(
    config: ConfigDict,
) -> tuple[MaskFormer, optax.GradientTransformation, TrainState]:
    """Builds model, optimiser and the state of step 0; the teacher starts as a copy of the student.

    Args:
      config: the run's, with the keys of `configs/base.py`. Its seed determines all initial
        parameters.

    Returns:
      The model (its batch norms synchronise over axis "batch"), the optimiser and the state.
    """
    model, optimizer = build_model(config), create_optimizer(config)
    return model, optimizer, jax.jit(lambda: initial_state(model, optimizer, config))()


def initial_state(
    model: MaskFormer, optimizer: optax.GradientTransformation, config: ConfigDict
) -> TrainState:
    """The state of step 0 (traceable: `jax.eval_shape` gives its shapes at no cost)."""
    # The initial parameters take some hundred draws. With the generator "rbg" XLA compiles them
    # several times faster than with the default one, which the run's own key has.
    init_key = jax.random.key(config.seed, impl="rbg")
    run_key = jax.random.PRNGKey(config.seed)
    size = config.data.crop_size
    images = jnp.zeros((1, size, size, 3))
    predictions, variables = model.init_with_output(init_key, images, train=False)
    width = predictions.backbone_features.shape[-1]
    params, batch_stats = variables["params"], variables.get("batch_stats", {})

    trained = learned(params, config)

    # The step is given the state's buffers (donation), so no two leaves may share one.
    def copy(tree: Any) -> Any:
        return jax.tree.map(jnp.copy, tree)

    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=run_key,
        params=params,
        batch_stats=batch_stats,
        teacher_params=copy(trained),
        teacher_batch_stats=copy(batch_stats),
        opt_state=optimizer.init(trained),
        class_shares=jnp.full(
            (2, config.data.num_classes), 1.0 / config.data.num_classes, jnp.float32
        ),
        class_scores=jnp.zeros((2, config.data.num_classes), jnp.float32),
        class_prototypes=jnp.zeros((config.data.num_classes, width + 2), jnp.float32),
        nonfinite_run=jnp.zeros((), jnp.int32),
    )


def learned(params: Any, config: ConfigDict) -> Any:
    """The parameters that training changes: without those of a frozen backbone.

    The optimiser and the teacher have nothing else.

    Args:
      params: by module.
      config: the run's; `model.freeze_backbone` is read.
    """
    if not config.model.freeze_backbone:
        return params
    return {module: tree for module, tree in params.items() if module != "backbone"}
