"""How often each class is named, and the correction of a teacher that names some too often.

A teacher that learns from itself names its frequent classes ever more often, until the others are
gone from the pseudo labels; confidence does not show it. The correction is the distribution
alignment of ReMixMatch (arXiv 1911.09785, section 3.1), on queries instead of images. Off by
default: the paper has none.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.structs import Segments

# A class that was never seen is treated as this share of all.
_MIN_SHARE = 1e-4


def segment_counts(segments: Segments, num_classes: int) -> jax.Array:
    """float32 [K], how many segments each class has."""
    one_hot = jax.nn.one_hot(segments.classes, num_classes)
    return jnp.where(segments.valid[:, :, None], one_hot, 0.0).sum((0, 1))


def query_counts(class_logits: jax.Array) -> jax.Array:
    """float32 [K], the queries' probability [B, N, K+1] of each class, summed; no gradient."""
    probabilities = jax.nn.softmax(jax.lax.stop_gradient(class_logits))
    return probabilities[..., :-1].sum((0, 1))


def class_counts(truth: Segments, predicted: jax.Array | None, num_classes: int) -> jax.Array:
    """What `update_shares` takes: float32 [2, K].

    Args:
      truth: of the labelled images.
      predicted: `query_counts` of the teacher; None, which counts as zeros, if it saw no image.
      num_classes: K.
    """
    labeled = segment_counts(truth, num_classes)
    return jnp.stack([labeled, jnp.zeros_like(labeled) if predicted is None else predicted])


def update_shares(shares: jax.Array, counts: jax.Array, rate: jax.Array) -> jax.Array:
    """Moves `TrainState.class_shares` towards what one step saw.

    Args:
      shares: float32 [2, K], each row adds up to 1.
      counts: float32 [2, K], `class_counts` of all devices. A row that is zero or not finite
        changes nothing.
      rate: in 0..1, the weight of this step.
    """
    total = counts.sum(1, keepdims=True)
    usable = jnp.isfinite(total) & (total > 0)
    seen = jnp.where(usable, counts, shares) / jnp.where(usable, total, 1.0)
    return (1.0 - rate) * shares + rate * seen


def align_classes(class_logits: jax.Array, shares: jax.Array, power: float) -> jax.Array:
    """Multiplies each class's probability by (labelled share / teacher's share)^power.

    Args:
      class_logits: [..., K+1]; the last, no-object, keeps its weight.
      shares: float32 [2, K], see `update_shares`.
      power: 0 changes nothing, 1 corrects by the whole ratio.

    Returns:
      Class logits [..., K+1].
    """
    labeled, predicted = jnp.log(jnp.maximum(shares, _MIN_SHARE))
    return class_logits.at[..., :-1].add(power * (labeled - predicted))
