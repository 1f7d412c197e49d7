"""Runs the training step, and the views that pictures show, on all devices (`jax.pmap`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from rc2l_jax.method.keys import step_keys
from rc2l_jax.method.segments import label_map
from rc2l_jax.method.teacher import teacher_segments
from rc2l_jax.method.train_step import train_step
from rc2l_jax.method.views import strong_view, weak_view
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.run.distributed import compiled_together
from rc2l_jax.structs import AXIS, Batch, Mean, TrainState


def parallel_train_step(
    model: MaskFormer,
    optimizer: optax.GradientTransformation,
    config: ConfigDict,
    devices: Sequence[jax.Device] | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Mean]]]:
    """Maps `train_step` over devices.

    Args:
      model: the architecture of student and teacher.
      optimizer: for the student's parameters.
      config: the run's.
      devices: those to compile for, of this or of another machine; None for all there are.

    Returns:
      A function of the replicated state, which is donated, and a batch with leaves [D, B, ...], D
      local devices. It returns the next state and the metrics of `train_step`.
    """
    step = functools.partial(train_step, model=model, optimizer=optimizer, config=config)
    lifted = jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=None,
        donate_argnums=0,
        devices=devices,
    )
    return compiled_together(lifted)


def replicate(state: TrainState, num_devices: int | None = None) -> TrainState:
    """Copies a state to the first `num_devices` local devices, or to all of them if None.

    It gets the sharding that the step returns, so that the second step need not compile again.
    """
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:num_devices]), (AXIS,))
    return jax.device_put(state, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def parallel_views(
    model: MaskFormer, config: ConfigDict
) -> Callable[[TrainState, Batch], tuple[jax.Array, ...]]:
    """Maps over all devices what a step makes of unlabelled images, for pictures.

    Returns:
      A function of the state and a batch with leaves [D, B, ...]. It returns, [D, B, ...] each,
      the weak views, their pseudo segments as label maps, the strong views, and their segments as
      label maps.
    """

    def views(state: TrainState, batch: Batch) -> tuple[jax.Array, ...]:
        keys = step_keys(state, batch)
        weak = weak_view(batch, keys, config)
        pseudo = teacher_segments(state, weak, batch.unlabeled_valid, model, config).segments
        strong, target = strong_view(batch, weak, pseudo, keys, config)
        return weak, label_map(pseudo), strong, label_map(target.segments)

    return jax.pmap(views, axis_name=AXIS, in_axes=(None, 0))
