"""The teacher's pseudo label z^t: from its predictions to segments."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.method.segments import Target, keep_largest
from rc2l_jax.models.maskformer import semantic_scores
from rc2l_jax.structs import Segments

# What `pseudo.source` may be: which of the two functions below makes the pseudo label.
SOURCES = ("query", "semantic")


def pseudo_segments(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    valid: jax.Array,
    *,
    max_segments: int,
    score_threshold: float,
    mask_threshold: float,
    min_area: int,
) -> Target:
    """The teacher's pseudo label z^t: queries compete for each pixel by score times mask.

    Args:
      class_logits: float32 [B, N, K+1].
      mask_logits: float32 [B, N, h, w].
      valid: bool [B, h, w], False on padding.
      max_segments: M. If more queries win a segment, the largest win.
      score_threshold: a query competes if its best class is not no-object and more probable.
      mask_threshold: a pixel belongs to its winner if the winner's mask is at least this probable.
      min_area: smaller segments are dropped; in pixels of the mask grid.

    Returns:
      The segments, masks bool [B, M, h, w], without gradient, and the number of queries whose
      segments found no slot.
    """
    no_object = class_logits.shape[-1] - 1
    probabilities = jax.nn.softmax(jax.lax.stop_gradient(class_logits))
    classes, score = probabilities.argmax(-1), probabilities.max(-1)
    competes = (classes != no_object) & (score > score_threshold)
    masks = jax.nn.sigmoid(jax.lax.stop_gradient(mask_logits))

    # What does not compete bids below any mask, also one of 0 or, not competing, of NaN.
    bids = jnp.where(competes[:, :, None, None], score[:, :, None, None] * masks, -1.0)
    winner = bids.argmax(1)  # [B, h, w]
    is_winner = winner[:, None] == jnp.arange(classes.shape[1])[:, None, None]
    won = is_winner & (masks >= mask_threshold) & competes[:, :, None, None] & valid[:, None]
    segments = Segments(
        classes=jnp.where(competes, classes, 0), masks=won, valid=competes, score=score, known=valid
    )
    return keep_largest(segments, max_segments, min_area)


def semantic_segments(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    valid: jax.Array,
    *,
    max_segments: int,
    pixel_threshold: float,
    min_area: int,
) -> Target:
    """The teacher's pseudo label z^t from its semantic inference: one segment a class.

    Where several queries share an object, each alone is unsure and none wins a whole segment;
    their sum, which is what inference uses, still names the class.

    Args:
      class_logits: float32 [B, N, K+1].
      mask_logits: float32 [B, N, h, w].
      valid: bool [B, h, w], False on padding.
      max_segments: M. If more classes are present, the largest win.
      pixel_threshold: a pixel is covered if sum_i p_i(c) m_i of its best class exceeds this.
      min_area: smaller segments are dropped; in pixels of the mask grid.

    Returns:
      As `pseudo_segments`; the score is the mean over the segment, at most 1.
    """
    semantic = semantic_scores(*jax.lax.stop_gradient((class_logits, mask_logits)))
    classes = jnp.broadcast_to(jnp.arange(semantic.shape[1]), semantic.shape[:2])
    best = semantic.argmax(1)[:, None] == classes[:, :, None, None]
    won = best & (semantic > pixel_threshold) & valid[:, None]
    total = jnp.where(won, jnp.minimum(semantic, 1.0), 0.0).sum((2, 3))
    segments = Segments(
        classes=classes,
        masks=won,
        valid=won.any((2, 3)),
        score=total / jnp.maximum(won.sum((2, 3)), 1),
        known=valid,
    )
    return keep_largest(segments, max_segments, min_area)
