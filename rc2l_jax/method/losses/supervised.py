"""The supervised loss of every decoder layer (Eq. 1), as MaskFormer defines it.

Sources: Eq. 1 of the RC²L paper; `mask_former/modeling/criterion.py`. Every term is a pair (sum,
count). `objective.weighted_total` divides after adding up both over devices and hosts, so that a
batch split over devices gives the loss of the whole batch. (MaskFormer divides the class term on
each device and averages the results.)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.method.losses.matched import matched_mask_losses
from rc2l_jax.structs import Assignment, Mean, Segments


def supervised_loss(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    segments: Segments,
    assignment: Assignment,
    *,
    no_object_weight: float,
    focal_weight: float,
    dice_weight: float,
    focal_alpha: float,
    focal_gamma: float,
    gradient_dtype: str = "float32",
) -> dict[str, Mean]:
    """The terms of Eq. 1 of each layer.

    Args:
      class_logits: [L, B, N, K+1].
      mask_logits: [L, B, N, h, w].
      segments: ground truth with masks [B, M, H, W].
      assignment: [L, B, M], from `matching.assign`.
      no_object_weight: weight in the class term of queries that have no segment.
      focal_weight: weight of the focal loss in "mask".
      dice_weight: weight of the dice loss in "mask".
      focal_alpha: weight of the pixels inside a segment; those outside get 1 - alpha.
      focal_gamma: exponent of the focal loss's modulating factor.
      gradient_dtype: to which the gradient of the mask logits is rounded.

    Returns:
      (sum, count) of each term, float32 [L] both:
      "class": sum of weighted cross-entropies, sum of weights.
      "mask": sum over matched pairs of L_mask, their weighted focal and dice loss; number of
        segments. As in MaskFormer the number is that of segments, not of pairs. The two differ only
        where an image has more segments than queries, or where its costs were not finite.
      "focal", "dice": the parts of "mask", without weights and without gradient.
    """

    def class_term(logits: jax.Array, assignment: Assignment) -> Mean:
        targets = class_targets(segments, assignment, logits.shape[-2], logits.shape[-1] - 1)
        return weighted_class_loss(logits, targets, no_object_weight)

    both, focal, dice = matched_mask_losses(
        mask_logits,
        segments,
        assignment,
        *(focal_weight, dice_weight, focal_alpha, focal_gamma, gradient_dtype),
    )
    count = jnp.full(focal.shape, segments.valid.sum(), jnp.float32)
    return {
        "class": jax.vmap(class_term)(class_logits, assignment),
        "mask": (both, count),
        "focal": (focal, count),
        "dice": (dice, count),
    }


def class_targets(
    segments: Segments, assignment: Assignment, num_queries: int, num_classes: int
) -> jax.Array:
    """The class every query is to predict.

    Args:
      segments: [B, M]; the masks are not read.
      assignment: [B, M].
      num_queries: N.
      num_classes: K.

    Returns:
      int32 [B, N]: the class of the segment matched to a query, or K (no-object) without one.
    """
    used = assignment.matched & segments.valid
    given = (assignment.query[..., None] == jnp.arange(num_queries)) & used[..., None]  # [B, M, N]
    classes = jnp.where(given, segments.classes[..., None], 0).sum(-2)
    return jnp.where(given.any(-2), classes, num_classes).astype(jnp.int32)


def weighted_class_loss(
    class_logits: jax.Array, targets: jax.Array, no_object_weight: jax.Array | float
) -> Mean:
    """Cross-entropy for a weighted mean, as `torch.nn.CrossEntropyLoss(weight)` computes it.

    Args:
      class_logits: [..., N, K+1].
      targets: int32 [..., N], K for no-object.
      no_object_weight: weight of queries whose target is no-object, a number for all or [..., N]
        with one for each; 0 leaves them out. The weight of all other queries is 1.

    Returns:
      float32 scalars: sum of weight x cross-entropy, sum of weights.
    """
    log_probs = jax.nn.log_softmax(class_logits.astype(jnp.float32))
    entropy = -jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
    no_object = class_logits.shape[-1] - 1
    weight = jnp.where(targets == no_object, no_object_weight, 1.0).astype(jnp.float32)
    return (weight * entropy).sum(), weight.sum()
