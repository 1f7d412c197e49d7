"""The random keys of one training step, and numbers drawn with them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rc2l_jax.structs import AXIS, Batch, TrainState


class Keys(NamedTuple):
    """A step's random streams: a key an image, [B, 2], for all but the last two.

    Images take theirs by their position in the global batch: colours and boxes depend neither on
    the number of devices nor on how many parts a batch is taken in.
    """

    color: jax.Array
    unlabeled_color: jax.Array
    strong_color: jax.Array
    box: jax.Array
    partner: jax.Array
    dropout: jax.Array


def step_keys(state: TrainState, batch: Batch, part: jax.Array | None = None) -> Keys:
    """One named key a use, from the base key and the step.

    Args:
      state: for both.
      batch: [B, ...], a contiguous part of the global batch.
      part: which one, int32 []; the device's if None.
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
    """A key an image, [B, 2], by its position in the global batch.

    Args:
      key: of the stream.
      num_images: B.
      first: position of the first of them.
    """
    return jax.vmap(lambda i: jax.random.fold_in(key, first + i))(jnp.arange(num_images))


def uniform_draws(keys: jax.Array, number: int) -> jax.Array:
    """`number` random numbers in [0, 1) of each key: keys [B, 2] -> float32 [number, B].

    Of a key of its own each, but drawn by one call of the generator: every call costs the step as
    much compilation as a layer of the network.
    """
    own = jax.vmap(lambda key: jax.random.split(key, number), out_axes=1)(keys)
    return jax.vmap(jax.vmap(jax.random.uniform))(own)


def between(x: jax.Array, low: float, high: float) -> jax.Array:
    """Brings numbers in [0, 1) to [low, high), as `jax.random.uniform` does."""
    return jnp.maximum(low, x * (high - low) + low)
