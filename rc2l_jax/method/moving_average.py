"""The moving average of sums over steps, from which what is known of the classes follows."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def update_average(average: jax.Array, seen: jax.Array, rate: jax.Array) -> jax.Array:
    """Moves an average towards the sums of one step.

    Sums and counts are averaged separately, and divided where a mean is needed. An average of each
    step's mean would hardly move for a class that few steps show.

    Args:
      average: float32, of any shape.
      seen: the same shape, added up over all devices. If it is not finite, nothing changes.
      rate: weight of this step, in 0..1.
    """
    seen = jnp.where(jnp.isfinite(seen).all(), seen, average)
    return (1.0 - rate) * average + rate * seen
