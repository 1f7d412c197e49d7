"""Focal and dice loss of matched pairs at the segments' resolution, in little time and memory.

At that resolution masks are the largest arrays of a step, and there are L layers of them, but most
slots of a batch are empty. So only slots in use are upsampled and compared, a few at a time. The
forward pass also computes the gradient with respect to the mask logits, at their low resolution,
and keeps it for the backward pass, so that no mask is upsampled twice or kept in full.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rc2l_jax.method.losses.mask import dice_loss, focal_loss
from rc2l_jax.structs import Assignment, Segments

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def matched_mask_losses(
    mask_logits: jax.Array,
    segments: Segments,
    assignment: Assignment,
    focal_alpha: float,
    focal_gamma: float,
) -> tuple[jax.Array, jax.Array]:
    """Sums of focal and dice loss over the matched pairs of each layer.

    Args:
      mask_logits: [L, B, N, h, w]; the gradient is with respect to these alone.
      segments: with masks [B, M, H, W].
      assignment: [L, B, M].
      focal_alpha: weight of the pixels inside a segment; those outside get 1 - alpha.
      focal_gamma: exponent of the focal loss's modulating factor.

    Returns:
      The focal and the dice sums, float32 [L] each.
    """
    return _forward(mask_logits, segments, assignment, focal_alpha, focal_gamma)[0]


def _forward(
    mask_logits: jax.Array,
    segments: Segments,
    assignment: Assignment,
    focal_alpha: float,
    focal_gamma: float,
) -> tuple[tuple[jax.Array, jax.Array], tuple]:
    layers, images = assignment.query.shape[:2]
    size = segments.masks.shape[-2:]
    slots = _slots(segments, assignment)
    lot = min(max(_FEWEST_SLOTS, 2 * images), len(slots.used))
    # Fills up the last lot; the slots added are not in use.
    slots = jax.tree.map(lambda x: jnp.pad(x, (0, -len(x) % lot)), slots)

    def losses(logits: jax.Array, masks: jax.Array, known: jax.Array) -> tuple:
        full = upsample(logits, size)
        focal = focal_loss(full, masks, known, alpha=focal_alpha, gamma=focal_gamma)
        return focal, dice_loss(full, masks, known)

    def compare(index: jax.Array, carry: tuple) -> tuple:
        sums, gradients = carry

        def take(x: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(x, index * lot, lot)

        some = jax.tree.map(take, slots)
        used = some.used[:, None, None]
        logits = jnp.where(used, mask_logits[some.layer, some.image, some.query], 0.0)
        masks = jnp.where(used, segments.masks[some.image, some.segment], 0)
        known = segments.known[some.image]
        values, pull = jax.vjp(lambda x: losses(x, masks, known), logits.astype(jnp.float32))
        weight, nothing = some.used.astype(jnp.float32), jnp.zeros(lot)
        found = pull((weight, nothing))[0], pull((nothing, weight))[0]
        sums = [
            total.at[some.layer].add(jnp.where(some.used, value, 0.0))
            for total, value in zip(sums, values)
        ]
        gradients = [
            jax.lax.dynamic_update_slice_in_dim(all_, new, index * lot, 0)
            for all_, new in zip(gradients, found)
        ]
        return sums, gradients

    start = (
        [jnp.zeros(layers)] * 2,
        [jnp.zeros((len(slots.used), *mask_logits.shape[-2:]))] * 2,
    )
    lots = -(-slots.used.sum() // lot)
    sums, gradients = jax.lax.fori_loop(0, lots, compare, start)
    # The backward pass needs the logits' shape and dtype but not their data, hence an empty slice.
    return tuple(sums), (gradients, slots, mask_logits[..., :0])


def _backward(focal_alpha: float, focal_gamma: float, saved: tuple, cotangents: tuple) -> tuple:
    del focal_alpha, focal_gamma
    gradients, slots, like = saved
    of_slot = sum(
        cotangent[slots.layer, None, None] * gradient
        for cotangent, gradient in zip(cotangents, gradients)
    )
    of_logits = jnp.zeros((*like.shape[:-1], of_slot.shape[-1]))
    query = jnp.where(slots.used, slots.query, like.shape[2])  # out of range: dropped
    of_logits = of_logits.at[slots.layer, slots.image, query].add(of_slot, mode="drop")
    return of_logits.astype(like.dtype), None, None


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
