"""The supervised loss of one decoder layer (Eq. 1), as MaskFormer defines it.

Sources: Eq. 1 of the RC²L paper; `mask_former/modeling/criterion.py`. Every term is a
(sum, count) pair: sums and counts are added over devices and hosts before the one division, so a
batch split over devices gives the loss of the whole batch. (MaskFormer takes the class term's mean
on each device and averages the means.)

All functions act on B images; decoder layers may be folded into B, or vmapped over.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.losses import mask
from rc2l_jax.structs import Assignment, Mean, Segments, gather_queries

# Into so many parts the slots of a batch are divided: few enough to cost nothing, enough to skip
# most of the empty ones.
_PARTS = 16


def supervised_loss(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    segments: Segments,
    assignment: Assignment,
    *,
    no_object_weight: float,
    focal_alpha: float,
    focal_gamma: float,
) -> dict[str, Mean]:
    """The three terms of Eq. 1, unweighted.

    Args:
      class_logits: [B, N, K+1].
      mask_logits: [B, N, h, w].
      segments: ground truth with masks [B, M, H, W].
      assignment: [B, M], from `matching.assign`.
      no_object_weight: weight in the class term of queries that have no segment.
      focal_alpha: see `mask.focal_loss`.
      focal_gamma: see `mask.focal_loss`.

    Returns:
      "class": sum of weighted cross-entropies, sum of weights.
      "focal", "dice": sum over matched pairs, number of segments. As in MaskFormer the number
        counts segments, not pairs; they differ only where an image has more segments than queries
        or its costs were not finite.
    """
    targets = class_targets(
        segments, assignment, class_logits.shape[-2], class_logits.shape[-1] - 1
    )
    focal, dice = _mask_terms(mask_logits, segments, assignment, focal_alpha, focal_gamma)
    count = segments.valid.sum(dtype=jnp.float32)
    return {
        "class": weighted_class_loss(class_logits, targets, no_object_weight),
        "focal": (focal, count),
        "dice": (dice, count),
    }


def _mask_terms(
    mask_logits: jax.Array,
    segments: Segments,
    assignment: Assignment,
    focal_alpha: float,
    focal_gamma: float,
) -> tuple[jax.Array, jax.Array]:
    """Sums of focal and dice loss over the matched pairs, at the segments' resolution.

    Most slots are empty, and masks at full resolution are what the loss costs: pairs are put first,
    and the parts in which there is none are not computed. The backward pass computes a part again:
    of all masks at full resolution only one part's are ever in memory.
    """
    used = (assignment.matched & segments.valid).ravel()
    size, num_slots = segments.masks.shape[-2:], segments.valid.shape[-1]
    logits = _matched_logits(mask_logits, assignment, used.reshape(segments.valid.shape))
    logits = logits.reshape(-1, *logits.shape[-2:])
    masks = segments.masks.reshape(-1, *size)

    slots = jnp.argsort(~used, stable=True)
    parts = min(_PARTS, len(used))
    # What fills up the last part repeats the last slot, and does not count.
    slots = jnp.pad(slots, (0, -len(used) % parts), mode="edge")
    counted = used[slots] & (jnp.arange(len(slots)) < len(used))
    slots, counted = slots.reshape(parts, -1), counted.reshape(parts, -1)

    def pairs_of(
        logits: jax.Array, slots: jax.Array, used: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        known = segments.known[slots // num_slots]
        targets = jnp.where(used[:, None, None], masks[slots], 0)
        full = upsample(logits, size)
        focal = mask.focal_loss(full, targets, known, alpha=focal_alpha, gamma=focal_gamma)
        dice = mask.dice_loss(full, targets, known)
        return jnp.where(used, focal, 0.0).sum(), jnp.where(used, dice, 0.0).sum()

    # Checkpointed around the condition: inside of it, both branches' residuals would be kept for
    # every part, and the empty one's zeros have the size of all masks.
    @jax.checkpoint
    def part(logits: jax.Array, slots: jax.Array, used: jax.Array) -> tuple[jax.Array, jax.Array]:
        nothing = lambda *_: (jnp.zeros(()), jnp.zeros(()))  # noqa: E731
        return jax.lax.cond(used.any(), pairs_of, nothing, logits, slots, used)

    def step(_: None, inputs: tuple[jax.Array, ...]) -> tuple[None, tuple[jax.Array, jax.Array]]:
        return None, part(*inputs)

    _, (focal, dice) = jax.lax.scan(step, None, (logits[slots], slots, counted))
    return focal.sum(), dice.sum()


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
      int32 [B, N]: the matched segment's class, K (no-object) without one.
    """
    used = assignment.matched & segments.valid
    given = (assignment.query[..., None] == jnp.arange(num_queries)) & used[..., None]  # [B, M, N]
    classes = jnp.where(given, segments.classes[..., None], 0).sum(-2)
    return jnp.where(given.any(-2), classes, num_classes).astype(jnp.int32)


def weighted_class_loss(
    class_logits: jax.Array, targets: jax.Array, no_object_weight: float
) -> Mean:
    """Cross-entropy whose mean is weighted, as `torch.nn.CrossEntropyLoss(weight)` takes it.

    Args:
      class_logits: [..., N, K+1].
      targets: int32 [..., N], K for no-object.
      no_object_weight: weight of queries whose target is no-object; all others have 1. With 0 they
        take no part.

    Returns:
      float32 scalars: sum of weight x cross-entropy, sum of weights.
    """
    log_probs = jax.nn.log_softmax(class_logits.astype(jnp.float32))
    entropy = -jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
    no_object = class_logits.shape[-1] - 1
    weight = jnp.where(targets == no_object, no_object_weight, 1.0).astype(jnp.float32)
    return (weight * entropy).sum(), weight.sum()


def upsample(mask_logits: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear resize with half-pixel centres, torch's `align_corners=False`.

    Args:
      mask_logits: [..., h, w].
      size: (H, W).

    Returns:
      float32 [..., H, W].
    """
    shape = (*mask_logits.shape[:-2], *size)
    return jax.image.resize(mask_logits.astype(jnp.float32), shape, "bilinear", antialias=False)


def _matched_logits(mask_logits: jax.Array, assignment: Assignment, used: jax.Array) -> jax.Array:
    """Mask logits of the query of every slot, [B, M, h, w]; 0, without gradient, if unused."""
    return jnp.where(used[..., None, None], gather_queries(mask_logits, assignment), 0.0)
