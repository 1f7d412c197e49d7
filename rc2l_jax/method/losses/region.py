"""RC²L's losses on unlabelled images (Eqs. 5-10) and the consistency baseline (Table 3, row 1).

Every loss takes what one decoder layer of the student predicts on the strong views, the pseudo
segments of those views on the mask grid and, except for SMC, the matching between the two. It
returns a `Mean`: a sum over segments and their number, which `objective.weighted_total` divides
over all devices. Only `segments.known` pixels count in masks. Pixels that no pseudo segment covers
are among them only with `pseudo.uncovered = "negative"`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from rc2l_jax.method.losses.mask import dice_loss, focal_loss, probability_logits
from rc2l_jax.method.losses.supervised import class_targets, weighted_class_loss
from rc2l_jax.structs import Assignment, Mean, Segments

DENOMINATORS = ("with_positive", "paper")  # see `region_mask_contrast`
NORMALIZERS = ("segments", "images")  # what sums over segments are divided by
UNIONS = ("normalized", "semantic", "max")  # see `semantic_union`

# Keeps square roots and divisions away from zero where a mask or a feature vanishes.
_EPSILON = 1e-6

# Products in full float32. By default accelerators multiply float32 matrices with fewer bits, and
# the division of similarities by a temperature would enlarge that error.
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def region_mask_contrast(
    matched_masks: jax.Array,
    segments: Segments,
    assignment: Assignment,
    *,
    temperature: float,
    denominator: str,
) -> Mean:
    """RMC, Eq. 5: a pseudo mask is to be closer to its matched query's mask than to the others.

    Args:
      matched_masks: logits [B, M, h, w] of each slot's matched query, from `gather_queries`.
      segments: pseudo segments, with masks [B, M, h, w].
      assignment: [B, M].
      temperature: tau_m.
      denominator: "paper" leaves the positive pair out of the denominator, as Eq. 5 is printed. The
        loss can then fall to -1 / tau_m, and it pulls pairs that agree as hard as those that do
        not. "with_positive" includes the positive pair (InfoNCE); the loss is at least 0.
    """
    known = segments.known[:, None].astype(jnp.float32)
    student = jax.nn.sigmoid(matched_masks.astype(jnp.float32)) * known  # [B, M, h, w]
    target = _target_masks(segments) * known
    # d(m^s_j, m^t_i) = 2 |m_j n m_i| / (|m_j| + |m_i|), for all pairs: [B, j, i]. The paper prints
    # a union in place of the sum; the Dice coefficient has the sum. The student's masks are soft
    # here, so that they have a gradient.
    shared = _einsum("bjhw,bihw->bji", student, target)
    size = student.sum((2, 3))[:, :, None] + target.sum((2, 3))[:, None, :]
    similarity = 2.0 * shared / jnp.maximum(size, _EPSILON)
    return _contrast(similarity, segments, assignment, temperature, denominator)


def region_feature_contrast(
    matched_masks: jax.Array,
    pixel_features: jax.Array,
    segments: Segments,
    assignment: Assignment,
    *,
    temperature: float,
    denominator: str,
) -> Mean:
    """RFC, Eqs. 6-8: as RMC, with features averaged under the masks in place of the masks.

    Args:
      matched_masks: logits [B, M, h, w] of each slot's matched query, from `gather_queries`.
      pixel_features: F^s [B, h, w, C], the student's. They are averaged under the pseudo masks as
        well as under the student's (the paper, below Eq. 7).
      segments: pseudo segments, with masks [B, M, h, w].
      assignment: [B, M].
      temperature: tau_f.
      denominator: "with_positive" or "paper", as in `region_mask_contrast`. Cosines reach -1, so
        with "paper" the loss can fall to -2 / tau_f.

    Gradients reach F^s through r^t (Eq. 7) as well as through r^s (Eq. 6). The paper does not say
    whether r^t is a constant.
    """
    known = segments.known[:, None].astype(jnp.float32)
    student = jax.nn.sigmoid(matched_masks.astype(jnp.float32)) * known
    # r^s of Eq. 6 and r^t of Eq. 7, [B, M, C] each, in one product: the features are read once.
    masks = jnp.concatenate([student, _target_masks(segments) * known], axis=1)
    region, target = jnp.split(_unit(masked_average(masks, pixel_features)), 2, axis=1)
    cosine = _einsum("bjc,bic->bji", region, target)
    return _contrast(cosine, segments, assignment, temperature, denominator)


def region_class_consistency(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    segments: Segments,
    assignment: Assignment,
    *,
    no_object_weight: float,
) -> Mean:
    """RCC, Eq. 9: the query matched to a pseudo segment predicts its class.

    Args:
      class_logits: [B, N, K+1].
      mask_logits: [B, N, h, w].
      segments: pseudo segments, with masks [B, M, h, w].
      assignment: [B, M].
      no_object_weight: weight of queries without a segment, which learn no-object as in Eq. 1; 0 is
        Eq. 9 as printed. It is multiplied by the share of the query's mask that lies on known
        pixels: where the teacher left pixels open there may be an object.

    Returns:
      Sum of weighted cross-entropies, and sum of weights. With `no_object_weight` 0 the latter is
      the number of matched segments.
    """
    num_queries, num_classes = class_logits.shape[1], class_logits.shape[2] - 1
    targets = class_targets(segments, assignment, num_queries, num_classes)
    masks = jax.nn.sigmoid(jax.lax.stop_gradient(mask_logits))
    on_known = (masks * segments.known[:, None]).sum((2, 3)) / (masks.sum((2, 3)) + _EPSILON)
    return weighted_class_loss(class_logits, targets, no_object_weight * on_known)


def semantic_union(
    class_logits: jax.Array, mask_logits: jax.Array, classes: jax.Array, union: str
) -> jax.Array:
    """Union({m_i}, c) of Eq. 10: one mask of a class, from all of the student's queries.

    Args:
      class_logits: [B, N, K+1].
      mask_logits: [B, N, h, w].
      classes: int32 [B, M], the class c of each slot.
      union: how masks are joined:
        "semantic": sum_i p_i(c) m_i as in MaskFormer's semantic inference, clipped at 1. Where it
        is clipped it has no gradient, so that a pixel that is confidently of a wrong class is not
        corrected.
        "normalized": the same sum, divided by the sum over all classes where that exceeds 1. So
        the classes always compete for a pixel.
        "max": the largest mask among the queries whose most probable class is c; 0 if there is
        none.

    Returns:
      Probabilities [B, M, h, w].

    Raises:
      ValueError: `union` is none of these.
    """
    probabilities = jax.nn.softmax(class_logits.astype(jnp.float32))
    masks = jax.nn.sigmoid(mask_logits)
    if union in ("semantic", "normalized"):
        index = jnp.broadcast_to(classes[:, None, :], probabilities.shape[:2] + classes.shape[1:])
        of_class = jnp.take_along_axis(probabilities, index, axis=2)  # [B, N, M]
        total = _einsum("bnm,bnhw->bmhw", of_class, masks)
        if union == "semantic":
            return jnp.minimum(total, 1.0)
        of_any = _einsum("bn,bnhw->bhw", probabilities[..., :-1].sum(-1), masks)
        return total / jnp.maximum(of_any, 1.0)[:, None]
    if union != "max":
        raise ValueError(f"union = {union!r}; use one of {', '.join(UNIONS)}.")
    predicted = probabilities.argmax(-1)  # [B, N]
    has_class = predicted[:, :, None] == classes[:, None, :]  # [B, N, M]
    return jax.vmap(
        lambda has: jnp.where(has[:, :, None, None], masks, 0.0).max(1), in_axes=2, out_axes=1
    )(has_class)


def semantic_mask_consistency(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    semantic: Segments,
    *,
    union: str,
    **mask_loss: float,
) -> Mean:
    """SMC, Eq. 10: L_mask between the student's union of a class and the pseudo semantic mask.

    Eq. 10 has a term for each segment. Here a class has one, however many segments it has, and the
    number that is returned is of classes.

    Args:
      class_logits: [B, N, K+1].
      mask_logits: [B, N, h, w].
      semantic: pseudo segments after `segments.merge_same_class`: one for each class present.
      union: how the student's masks of a class are joined, see `semantic_union`.
      mask_loss: weights and focal parameters of L_mask, the keyword arguments of `_mask_loss`.
    """
    classes = jnp.where(semantic.valid, semantic.classes, 0)
    logits = probability_logits(semantic_union(class_logits, mask_logits, classes, union))
    loss = _mask_loss(logits, semantic, **mask_loss)
    return jnp.where(semantic.valid, loss, 0.0).sum(), semantic.valid.sum().astype(jnp.float32)


def mask_consistency(
    matched_masks: jax.Array,
    segments: Segments,
    assignment: Assignment,
    **mask_loss: float,
) -> Mean:
    """The baseline of Table 3, row 1: L_mask on matched pairs.

    Args:
      matched_masks: logits [B, M, h, w] of each slot's matched query, from `gather_queries`.
      segments: pseudo segments, with masks [B, M, h, w].
      assignment: [B, M].
      mask_loss: weights and focal parameters of L_mask, the keyword arguments of `_mask_loss`.
    """
    loss = _mask_loss(matched_masks, segments, **mask_loss)
    active = _active(segments, assignment)
    return jnp.where(active, loss, 0.0).sum(), _count(segments)


def masked_average(masks: jax.Array, features: jax.Array) -> jax.Array:
    """GAP of Eqs. 6-7: features [B, h, w, C] averaged under masks [B, M, h, w] -> [B, M, C].

    The sum is divided by the mask's area, where GAP as printed divides by the number of all pixels;
    a cosine does not tell them apart.
    """
    total = _einsum("bmhw,bhwc->bmc", masks, features)
    return total / (masks.sum((2, 3)) + _EPSILON)[:, :, None]


def _mask_loss(
    logits: jax.Array,
    segments: Segments,
    *,
    focal_weight: float,
    dice_weight: float,
    focal_alpha: float,
    focal_gamma: float,
) -> jax.Array:
    """L_mask between mask logits [B, M, h, w] and each slot's mask: float32 [B, M]."""
    known, target = segments.known[:, None], _target_masks(segments)
    focal = focal_loss(logits, target, known, alpha=focal_alpha, gamma=focal_gamma)
    return focal_weight * focal + dice_weight * dice_loss(logits, target, known)


def _contrast(
    similarity: jax.Array,
    segments: Segments,
    assignment: Assignment,
    temperature: float,
    denominator: str,
) -> Mean:
    """The contrastive loss of Eqs. 5 and 8, from the similarities of all pairs.

    A segment's positive pair is that with its own matched query, its negative pairs are those with
    the image's other matched queries. The loss of a segment without negative pairs is 0.

    Args:
      similarity: [B, j (matched query of slot j), i (pseudo segment)].
      segments: supplies which slots hold a segment.
      assignment: supplies which slots are matched.
      temperature: tau, by which similarities are divided.
      denominator: "with_positive" if the denominator includes the positive pair, "paper" if not.
    """
    if denominator not in DENOMINATORS:
        raise ValueError(f"denominator = {denominator!r}; use one of {', '.join(DENOMINATORS)}.")
    active = _active(segments, assignment)
    slots = similarity.shape[-1]
    logits = similarity / temperature
    other = active[:, :, None] & ~jnp.eye(slots, dtype=bool)  # [B, j, i]
    has_negative = active & other.any(1)  # [B, i]
    # Without a negative, sum over everything instead and drop the result below: the gradient of
    # logsumexp over an empty set is NaN.
    negatives = jnp.where(has_negative[:, None, :], other, True)
    positive = jnp.diagonal(logits, axis1=1, axis2=2)
    loss = jax.nn.logsumexp(logits, axis=1, where=negatives) - positive
    if denominator == "with_positive":
        # log((e^p + sum e^n) / e^p) = log(1 + e^loss): never below 0, not even by rounding.
        loss = jax.nn.softplus(loss)
    return jnp.where(has_negative, loss, 0.0).sum(), _count(segments)


def _active(segments: Segments, assignment: Assignment) -> jax.Array:
    return segments.valid & assignment.matched


def _count(segments: Segments) -> jax.Array:
    return segments.valid.sum().astype(jnp.float32)


def _target_masks(segments: Segments) -> jax.Array:
    """Masks as float32 [B, M, h, w], zero in empty slots, whatever those hold."""
    return jnp.where(segments.valid[:, :, None, None], segments.masks, 0).astype(jnp.float32)


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt((x * x).sum(-1, keepdims=True) + _EPSILON**2)
