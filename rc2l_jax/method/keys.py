"""The random keys of one training step, and numbers that are drawn with them."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rc2l_jax.structs import AXIS, Batch, TrainState


class Keys(NamedTuple):
    """The random keys of a step, one field for each use.

    An image's key follows from its position in the global batch. So nothing that is drawn depends
    on the number of devices or on `accumulate_steps`.

    Attributes:
      color: [B, 2], a key for each labelled image.
      unlabeled_color, strong_color, box: [B, 2], a key for each unlabelled image.
      dropout: one key. Dropout also takes `positions`.
      positions: int32 [B], the positions of the labelled and then of the unlabelled images among
        all images of the global batch.
    """

    color: jax.Array
    unlabeled_color: jax.Array
    strong_color: jax.Array
    box: jax.Array
    dropout: jax.Array
    positions: jax.Array


def step_keys(state: TrainState, batch: Batch, part: jax.Array | int = 0, parts: int = 1) -> Keys:
    """Derives the keys of a step from the base key and the step number.

    Args:
      state: supplies both.
      batch: [B, ...], a part of this device's share of the global batch.
      part: which part it is: that with every `parts`-th image, from number `part` on.
      parts: number of parts of each device's share.
    """
    color, unlabeled_color, strong_color, box, dropout = jax.random.split(
        jax.random.fold_in(state.key, state.step), 5
    )
    labeled = image_positions(batch.image.shape[0], part, parts)
    unlabeled = image_positions(batch.unlabeled_image.shape[0], part, parts)
    all_labeled = len(labeled) * parts * jax.lax.axis_size(AXIS)
    return Keys(
        color=image_keys(color, labeled),
        unlabeled_color=image_keys(unlabeled_color, unlabeled),
        strong_color=image_keys(strong_color, unlabeled),
        box=image_keys(box, unlabeled),
        dropout=dropout,
        positions=jnp.concatenate([labeled, all_labeled + unlabeled]),
    )


def image_positions(num_images: int, part: jax.Array | int, parts: int) -> jax.Array:
    """Positions in the global batch of the images of one part (see `step_keys`): int32 [B]."""
    first = jax.lax.axis_index(AXIS) * num_images
    return (first + jnp.arange(num_images)) * parts + part


def image_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    """A key for each of some images, [B, 2], from their positions in the global batch, int [B]."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(positions)


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
