"""Focal and dice loss of matched pairs at the segments' resolution, in little time and memory.

At that resolution masks are the largest arrays of a step, and there are L layers of them, but most
slots of a batch are empty. So only slots in use are upsampled and compared, a few at a time. The
forward pass also computes the gradient of the weighted sum of both losses with respect to the mask
logits, at their low resolution, and keeps it for the backward pass, so that no mask is upsampled
twice or kept in full.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rc2l_jax.method.losses.mask import dice_loss, focal_loss
from rc2l_jax.structs import Assignment, Segments, merge_layers, split_layers

# A lot is the slots compared at once: twice the number of images, and at least this many. That is
# enough to keep a device busy, and few enough that the last, partly empty lot costs little.
_FEWEST_SLOTS = 8


class _Slots(NamedTuple):
    """All slots of all layers, those in use first.

    Attributes:
      layer, image, segment, query: int32 [S], indices by which a slot's mask (image and segment)
        and mask logits (layer, image and query) are found.
      used: bool [S], whether a slot has a valid segment with a matched query.
    """

    layer: jax.Array
    image: jax.Array
    segment: jax.Array
    query: jax.Array
    used: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6, 7))
def matched_mask_losses(
    mask_logits: jax.Array,
    segments: Segments,
    assignment: Assignment,
    focal_weight: float,
    dice_weight: float,
    focal_alpha: float,
    focal_gamma: float,
    gradient_dtype: str = "float32",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums over the matched pairs of each layer: of their loss, and of its two parts.

    Args:
      mask_logits: [L, B, N, h, w]; the gradient is with respect to these alone.
      segments: with masks [B, M, H, W].
      assignment: [L, B, M].
      focal_weight: of the focal loss.
      dice_weight: of the dice loss.
      focal_alpha: weight of the pixels inside a segment; those outside get 1 - alpha.
      focal_gamma: exponent of the focal loss's modulating factor.
      gradient_dtype: that of the activations behind the mask logits, to which the logits' gradient
        is rounded before any other array of its size is made.

    Returns:
      Float32 [L] each: the sum of `focal_weight` x focal + `dice_weight` x dice; and the sums of
      focal and of dice, which have no gradient.
    """
    static = focal_weight, dice_weight, focal_alpha, focal_gamma, gradient_dtype
    return _forward(mask_logits, segments, assignment, *static)[0]


def _forward(
    mask_logits: jax.Array,
    segments: Segments,
    assignment: Assignment,
    focal_weight: float,
    dice_weight: float,
    focal_alpha: float,
    focal_gamma: float,
    gradient_dtype: str = "float32",
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple]:
    layers, images = assignment.query.shape[:2]
    size = segments.masks.shape[-2:]
    slots = _slots(segments, assignment)
    lot = min(max(_FEWEST_SLOTS, 2 * images), len(slots.used))
    # Fills up the last lot; the slots added are not in use.
    slots = jax.tree.map(lambda x: jnp.pad(x, (0, -len(x) % lot)), slots)
    merged = merge_layers(mask_logits)

    def losses(logits: jax.Array, masks: jax.Array, known: jax.Array) -> tuple:
        full = upsample(logits, size)
        focal = focal_loss(full, masks, known, alpha=focal_alpha, gamma=focal_gamma)
        dice = dice_loss(full, masks, known)
        return focal_weight * focal + dice_weight * dice, (focal, dice)

    def compare(index: jax.Array, carry: tuple) -> tuple:
        sums, gradient = carry

        def take(x: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(x, index * lot, lot)

        some = jax.tree.map(take, slots)
        used = some.used[:, None, None]
        logits = jnp.where(used, merged[_place(some, mask_logits.shape)], 0.0)
        masks = jnp.where(used, segments.masks[some.image, some.segment], 0)
        known = segments.known[some.image]
        logits = logits.astype(jnp.float32)
        loss, pull, parts = jax.vjp(lambda x: losses(x, masks, known), logits, has_aux=True)
        sums = [
            total.at[some.layer].add(jnp.where(some.used, value, 0.0))
            for total, value in zip(sums, (loss, *parts))
        ]
        (found,) = pull(some.used.astype(jnp.float32))
        found = found.astype(gradient_dtype)
        return sums, jax.lax.dynamic_update_slice_in_dim(gradient, found, index * lot, 0)

    shape = len(slots.used), *mask_logits.shape[-2:]
    start = [jnp.zeros(layers)] * 3, jnp.zeros(shape, gradient_dtype)
    lots = -(-slots.used.sum() // lot)
    sums, gradient = jax.lax.fori_loop(0, lots, compare, start)
    # The backward pass needs the logits' shape and dtype but not their data, hence an empty slice.
    return tuple(sums), (gradient, slots, mask_logits[..., :0])


def _backward(
    focal_weight: float,
    dice_weight: float,
    focal_alpha: float,
    focal_gamma: float,
    gradient_dtype: str,
    saved: tuple,
    cotangents: tuple,
) -> tuple:
    del focal_weight, dice_weight, focal_alpha, focal_gamma
    gradient, slots, like = saved
    of_slot = (cotangents[0][slots.layer, None, None] * gradient).astype(gradient_dtype)
    layers, images, queries = like.shape[:3]
    image, row = _place(slots, like.shape)
    row = jnp.where(slots.used, row, layers * queries)  # out of range: dropped
    merged = jnp.zeros((images, layers * queries, *of_slot.shape[1:]), gradient_dtype)
    merged = merged.at[image, row].set(of_slot, mode="drop")  # a query has one slot at most
    return split_layers(merged, layers).astype(like.dtype), None, None


def _place(slots: _Slots, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Where `merge_layers` puts the slots' queries, of an array of `shape` [L, B, N, ...]."""
    return slots.image, slots.layer * shape[2] + slots.query


matched_mask_losses.defvjp(_forward, _backward)


def _slots(segments: Segments, assignment: Assignment) -> _Slots:
    used = (assignment.matched & segments.valid).ravel()
    order = jnp.argsort(~used, stable=True)
    layer, image, segment = jnp.unravel_index(order, assignment.query.shape)
    return _Slots(layer, image, segment, assignment.query.ravel()[order], used[order])


def upsample(mask_logits: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear resize with half-pixel centres, as torch's with `align_corners=False`.

    Args:
      mask_logits: [..., h, w].
      size: (H, W).

    Returns:
      float32 [..., H, W].
    """
    shape = (*mask_logits.shape[:-2], *size)
    return jax.image.resize(mask_logits.astype(jnp.float32), shape, "bilinear", antialias=False)
