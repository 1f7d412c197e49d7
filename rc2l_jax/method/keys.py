"""The random keys of one training step, and numbers that are drawn with them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rc2l_jax.structs import AXIS, Batch, TrainState


class Keys(NamedTuple):
    """The random keys of a step, one field for each use.

    `partner` and `dropout` are single keys, the others hold a key for each image, [B, 2]. An
    image's key follows from its position in the global batch. So colours and boxes depend neither
    on the number of devices nor on `accumulate_steps`.
    """

    color: jax.Array
    unlabeled_color: jax.Array
    strong_color: jax.Array
    box: jax.Array
    partner: jax.Array
    dropout: jax.Array


def step_keys(state: TrainState, batch: Batch, part: jax.Array | None = None) -> Keys:
    """Derives the keys of a step from the base key and the step number.

    Args:
      state: supplies both.
      batch: [B, ...], a contiguous part of the global batch.
      part: int32 [], position of this part in the global batch; None for the device's index.
    """
    part = jax.lax.axis_index(AXIS) if part is None else part
    keys = Keys(*jax.random.split(jax.random.fold_in(state.key, state.step), len(Keys._fields)))
    labeled, unlabeled = batch.image.shape[0], batch.unlabeled_image.shape[0]
    return Keys(
        color=image_keys(keys.color, labeled, part * labeled),
        unlabeled_color=image_keys(keys.unlabeled_color, unlabeled, part * unlabeled),
        strong_color=image_keys(keys.strong_color, unlabeled, part * unlabeled),
        box=image_keys(keys.box, unlabeled, part * unlabeled),
        partner=keys.partner,
        dropout=jax.random.fold_in(keys.dropout, part),
    )


def image_keys(key: jax.Array, num_images: int, first: jax.Array | int) -> jax.Array:
    """A key for each of some images, [B, 2], from its position in the global batch.

    Args:
      key: the key of this use in this step.
      num_images: B.
      first: position of the first image in the global batch.
    """
    return jax.vmap(lambda i: jax.random.fold_in(key, first + i))(jnp.arange(num_images))


def uniform_draws(keys: jax.Array, number: int) -> jax.Array:
    """Draws `number` uniform numbers in [0, 1) with each key: [B, 2] -> float32 [number, B].

    Each number has a key of its own, yet one call of the generator draws them all, because every
    call costs as much compilation as a layer of the network.
    """
    own = jax.vmap(lambda key: jax.random.split(key, number), out_axes=1)(keys)
    return jax.vmap(jax.vmap(jax.random.uniform))(own)


def between(x: jax.Array, low: float, high: float) -> jax.Array:
    """Scales numbers in [0, 1) to [low, high), as `jax.random.uniform` does."""
    return jnp.maximum(low, x * (high - low) + low)
