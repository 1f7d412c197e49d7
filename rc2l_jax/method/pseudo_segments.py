"""The teacher's pseudo label z^t: turns its predictions into segments."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.method.segments import Target, keep_largest, merge_same_class
from rc2l_jax.structs import Segments

# The values of `pseudo.source`: `pseudo_segments` or `semantic_segments` makes the pseudo label.
SOURCES = ("query", "semantic")


def pseudo_segments(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    valid: jax.Array,
    *,
    max_segments: int,
    score_threshold: float,
    mask_threshold: float,
    merge: bool,
    min_area: int,
) -> Target:
    """The pseudo label z^t from single queries: each query's segment is the pixels that it wins.

    A pixel is won by the query with the largest product of class and mask probability.

    Args:
      class_logits: float32 [B, N, K+1].
      mask_logits: float32 [B, N, h, w].
      valid: bool [B, h, w], False on padding.
      max_segments: M. If there are more segments, the largest get a slot.
      score_threshold: a query competes if its most probable class is not no-object and has a
        probability above this.
      mask_threshold: a pixel joins the segment of the query that wins it only if that query's
        mask probability there is at least this.
      merge: whether the segments of a class become one.
      min_area: segments of fewer pixels of the mask grid are dropped.

    Returns:
      The segments, with masks bool [B, M, h, w] and without gradient, and the number of segments
      that found no slot.
    """
    no_object = class_logits.shape[-1] - 1
    probabilities = jax.nn.softmax(jax.lax.stop_gradient(class_logits))
    classes, score = probabilities.argmax(-1), probabilities.max(-1)
    competes = (classes != no_object) & (score > score_threshold)
    masks = jax.nn.sigmoid(jax.lax.stop_gradient(mask_logits))

    # Queries that do not compete bid -1, which is below the bid of every query that does. `where`
    # also keeps out NaNs, which such a query's mask may hold.
    bids = jnp.where(competes[:, :, None, None], score[:, :, None, None] * masks, -1.0)
    winner = bids.argmax(1)  # [B, h, w]
    is_winner = winner[:, None] == jnp.arange(classes.shape[1])[:, None, None]
    won = is_winner & (masks >= mask_threshold) & competes[:, :, None, None] & valid[:, None]
    segments = Segments(
        classes=jnp.where(competes, classes, 0), masks=won, valid=competes, score=score, known=valid
    )
    # Merged first: parts of a class need no slots of their own, and may be small.
    segments = merge_same_class(segments) if merge else segments
    return keep_largest(segments, max_segments, min_area)


def best_classes(scores: jax.Array, valid: jax.Array) -> jax.Array:
    """Where each class is the best one: bool [B, K, h, w], False on padding.

    Args:
      scores: float32 [B, K, h, w], class scores of semantic inference.
      valid: bool [B, h, w], False on padding.
    """
    classes = jnp.arange(scores.shape[1])[:, None, None]
    return (scores.argmax(1)[:, None] == classes) & valid[:, None]


def semantic_segments(
    scores: jax.Array,
    valid: jax.Array,
    *,
    max_segments: int,
    thresholds: jax.Array,
    min_area: int,
) -> Target:
    """The pseudo label z^t from semantic inference: one segment for each class.

    Where several queries share an object, each of them is unsure and none wins all of it. Their
    sum, which inference uses, still names the class.

    Args:
      scores: float32 [B, K, h, w], the sums over queries sum_i p_i(c) m_i of
        `maskformer.semantic_scores`.
      valid: bool [B, h, w], False on padding.
      max_segments: M. If more classes are present, the largest segments get a slot.
      thresholds: float32 [K]; a pixel joins the segment of its best class if its score exceeds
        that class's threshold.
      min_area: segments of fewer pixels of the mask grid are dropped.

    Returns:
      As `pseudo_segments`, but with one segment for each class, whose score is the mean of the
      scores (at most 1) of its pixels.
    """
    scores = jax.lax.stop_gradient(scores)
    classes = jnp.broadcast_to(jnp.arange(scores.shape[1]), scores.shape[:2])
    won = best_classes(scores, valid) & (scores > thresholds[:, None, None])
    total = jnp.where(won, jnp.minimum(scores, 1.0), 0.0).sum((2, 3))
    segments = Segments(
        classes=classes,
        masks=won,
        valid=won.any((2, 3)),
        score=total / jnp.maximum(won.sum((2, 3)), 1),
        known=valid,
    )
    return keep_largest(segments, max_segments, min_area)
