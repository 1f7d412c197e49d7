"""A threshold for each class: pseudo labels name the surest pixels of every class.

A teacher trained on few labels is far surer of frequent and easy classes than of others. With one
threshold for all, hardly a pixel of the others is named, and the student unlearns them. So each
class's threshold is a share of the score that its pixels have on average, as FreeMatch adapts its
own to each class (arXiv 2205.07246, equation 9; there the average is divided by that of the surest
class). The paper has one threshold for all classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.structs import Mean


def score_sums(scores: jax.Array, valid: jax.Array) -> Mean:
    """Scores of the pixels at which a class is the best one, by class, without gradient.

    Args:
      scores: float32 [B, K, h, w], class scores of semantic inference; they count as 1 at most.
      valid: bool [B, h, w], False on padding, which is left out.

    Returns:
      The sum of the scores and the number of the pixels, float32 [K] each.
    """
    scores = jax.lax.stop_gradient(scores)
    classes = jnp.arange(scores.shape[1])[:, None, None]
    won = (scores.argmax(1)[:, None] == classes) & valid[:, None]
    total = jnp.where(won, jnp.minimum(scores, 1.0), 0.0).sum((0, 2, 3))
    return total, won.sum((0, 2, 3)).astype(jnp.float32)


def nothing_seen(num_classes: int) -> Mean:
    """`score_sums` of no pixel at all."""
    return jnp.zeros(num_classes), jnp.zeros(num_classes)


def update_scores(class_scores: jax.Array, seen: Mean, rate: jax.Array) -> jax.Array:
    """Moves `TrainState.class_scores` towards the mean scores of one step.

    Args:
      class_scores: float32 [K].
      seen: `score_sums`, added up over all devices. Classes without a pixel, or with a sum that is
        not finite, stay as they are.
      rate: weight of this step, in 0..1.
    """
    total, count = seen
    usable = jnp.isfinite(total) & (count > 0)
    mean = jnp.where(usable, total, class_scores) / jnp.where(usable, count, 1.0)
    return (1.0 - rate) * class_scores + rate * mean


def pixel_thresholds(class_scores: jax.Array, threshold: float, by_class: bool) -> jax.Array:
    """The score that a pixel has to exceed to be named, for each class: float32 [K].

    Args:
      class_scores: float32 [K], each class's mean score (`TrainState.class_scores`).
      threshold: the threshold of all classes, or, `by_class`, a share of the class's mean score.
      by_class: whether each class has its own.
    """
    return threshold * (class_scores if by_class else jnp.ones_like(class_scores))
