"""Class alignment: corrects a teacher that predicts some classes too often.

A teacher that learns from itself predicts frequent classes more and more often, until the others
are gone from the pseudo labels; its confidence does not show this. The correction is ReMixMatch's
distribution alignment (arXiv 1911.09785, section 3.1), applied to queries instead of images. The
paper has none, so it is off by default (`pseudo.class_alignment = 0`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.structs import Segments

# Smaller shares count as this one, so that a class never seen has a finite correction.
_MIN_SHARE = 1e-4


def segment_counts(segments: Segments, num_classes: int) -> jax.Array:
    """Number of segments of each class in the batch, float32 [K]."""
    one_hot = jax.nn.one_hot(segments.classes, num_classes)
    return jnp.where(segments.valid[:, :, None], one_hot, 0.0).sum((0, 1))


def query_counts(class_logits: jax.Array) -> jax.Array:
    """Each class's probability summed over all queries, float32 [K], without gradient.

    Args:
      class_logits: [B, N, K+1].
    """
    probabilities = jax.nn.softmax(jax.lax.stop_gradient(class_logits))
    return probabilities[..., :-1].sum((0, 1))


def class_counts(truth: Segments, predicted: jax.Array | None, num_classes: int) -> jax.Array:
    """The counts that `update_shares` takes: float32 [2, K].

    Args:
      truth: segments of the labelled images.
      predicted: `query_counts` of the teacher; None if there are no unlabelled images, which
        counts as zeros.
      num_classes: K.
    """
    labeled = segment_counts(truth, num_classes)
    return jnp.stack([labeled, jnp.zeros_like(labeled) if predicted is None else predicted])


def update_shares(shares: jax.Array, counts: jax.Array, rate: jax.Array) -> jax.Array:
    """Moves `TrainState.class_shares` towards the shares of one step.

    Args:
      shares: float32 [2, K], each row adds up to 1.
      counts: float32 [2, K], `class_counts` summed over all devices. A row whose sum is 0 or not
        finite leaves its shares as they are.
      rate: weight of this step, in 0..1.
    """
    total = counts.sum(1, keepdims=True)
    usable = jnp.isfinite(total) & (total > 0)
    seen = jnp.where(usable, counts, shares) / jnp.where(usable, total, 1.0)
    return (1.0 - rate) * shares + rate * seen


def align_classes(class_logits: jax.Array, shares: jax.Array, power: float) -> jax.Array:
    """Multiplies each class's unnormalised probability by (labelled / teacher's share)^power.

    Args:
      class_logits: [..., K+1]; the last one, no-object, is left as it is.
      shares: float32 [2, K], labelled shares and the teacher's (`TrainState.class_shares`).
      power: 0 changes nothing, 1 corrects by the whole ratio.

    Returns:
      Class logits [..., K+1].
    """
    labeled, predicted = jnp.log(jnp.maximum(shares, _MIN_SHARE))
    return class_logits.at[..., :-1].add(power * (labeled - predicted))
