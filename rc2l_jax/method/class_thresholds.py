"""A threshold for each class: pseudo labels name the surest pixels of every class.

A teacher trained on few labels is far surer of frequent and easy classes than of others. With one
threshold for all, hardly a pixel of the others is named, and the student unlearns them. So each
class's threshold is a share of the score that its pixels have on average. FreeMatch does likewise
(arXiv 2205.07246), but divides the average by that of the surest class. The paper does not
say which pixels a pseudo label names; one threshold for all classes is usual.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.method.pseudo_segments import best_classes

# A class whose moving average of pixels is below this was not seen for thousands of steps.
_FEWEST_PIXELS = 1e-20


def score_sums(scores: jax.Array, valid: jax.Array) -> jax.Array:
    """Scores of the pixels at which a class is the best one, by class, without gradient.

    Args:
      scores: float32 [B, K, h, w], class scores of semantic inference; they count as 1 at most.
      valid: bool [B, h, w], False on padding, which is left out.

    Returns:
      Float32 [2, K]: the sum of the scores, and the number of the pixels.
    """
    scores = jax.lax.stop_gradient(scores)
    won = best_classes(scores, valid)
    total = jnp.where(won, jnp.minimum(scores, 1.0), 0.0).sum((0, 2, 3))
    return jnp.stack([total, won.sum((0, 2, 3)).astype(jnp.float32)])


def mean_scores(class_scores: jax.Array) -> jax.Array:
    """Each class's mean score, float32 [K]; 1 for a class that no pixel had so far, or lately.

    Args:
      class_scores: float32 [2, K] (`TrainState.class_scores`).
    """
    total, count = class_scores
    seen = count > _FEWEST_PIXELS
    return jnp.where(seen, total / jnp.where(seen, count, 1.0), 1.0)


def pixel_thresholds(class_scores: jax.Array, threshold: float, by_class: bool) -> jax.Array:
    """The score that a pixel has to exceed to be named, for each class: float32 [K].

    Args:
      class_scores: float32 [2, K] (`TrainState.class_scores`).
      threshold: the threshold of all classes, or, `by_class`, a share of the class's mean score.
      by_class: whether each class has its own.
    """
    num_classes = class_scores.shape[1]
    return threshold * (mean_scores(class_scores) if by_class else jnp.ones(num_classes))
