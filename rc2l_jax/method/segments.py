"""Segments: made from label maps, sampled at the mask grid, selected, merged and painted."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rc2l_jax.structs import VOID, Segments


class Target(NamedTuple):
    """Segments to match predictions to.

    Attributes:
      segments: M slots for each image.
      dropped: int32 [B], number of segments for which there was no slot.
    """

    segments: Segments
    dropped: jax.Array


def nearest_downsample(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Samples [..., H, W] at `size` = (h, w) as torch's `interpolate(mode="nearest")` does.

    MaskFormer brings target masks to the mask grid in this way. Pixel floor(i * H / h) is taken.
    Like torch this computes in float32: in float64 a few sizes (such as 106 -> 26) give others.
    """
    rows, columns = (
        np.floor(np.arange(small, dtype=np.float32) * (np.float32(large) / np.float32(small)))
        for small, large in zip(size, x.shape[-2:])
    )
    rows, columns = rows.astype(np.int32), columns.astype(np.int32)
    return x[..., rows, :][..., columns]


def at_mask_grid(segments: Segments, size: tuple[int, int]) -> Segments:
    """Samples masks and known pixels at the mask grid `size` = (h, w), by nearest neighbour."""
    return segments.replace(
        masks=nearest_downsample(segments.masks, size),
        known=nearest_downsample(segments.known, size),
    )


def ground_truth_segments(
    label: jax.Array,
    valid: jax.Array,
    *,
    num_classes: int,
    max_segments: int,
    ignore_void: bool,
) -> Target:
    """One segment for each class that is present in the crop (z^gt of section 3.1).

    Args:
      label: uint8 [B, H, W], class ids or 255.
      valid: bool [B, H, W], False on padding, which is never compared.
      num_classes: K.
      max_segments: M, or K if that is less. If more classes are present, those with the largest
        areas get a slot.
      ignore_void: True excludes void pixels from every comparison. False compares them as pixels
        outside of every segment, as MaskFormer does.

    Returns:
      The segments, with masks bool [B, M, H, W], and the number of classes that found no slot.
    """
    ids = jnp.where(valid, label, VOID).astype(jnp.int32)
    # By comparing: accelerators are slow at adding up by index.
    area = (ids.reshape(len(ids), 1, -1) == jnp.arange(num_classes)[:, None]).sum(-1)
    largest, classes = jax.lax.top_k(area, min(max_segments, num_classes))
    slot_valid = largest > 0
    segments = Segments(
        classes=jnp.where(slot_valid, classes, 0),
        masks=(ids[:, None] == classes[:, :, None, None]) & slot_valid[:, :, None, None],
        valid=slot_valid,
        score=slot_valid.astype(jnp.float32),
        known=valid & (ids != VOID) if ignore_void else valid,
    )
    return Target(segments, (area > 0).sum(1) - slot_valid.sum(1))


def keep_largest(segments: Segments, max_segments: int, min_area: int) -> Target:
    """Keeps the `max_segments` largest of the segments with at least `min_area` pixels.

    Args:
      segments: with any number of slots.
      max_segments: number of slots M of the result, unless `segments` has fewer.
      min_area: in pixels of the masks. Segments without a pixel are dropped in any case.

    Returns:
      Segments with M slots, and the number of segments that were large enough but found no slot.
    """
    area = jnp.where(segments.valid, segments.masks.sum((2, 3)), 0)
    area = jnp.where(area >= max(min_area, 1), area, 0)
    largest, slot = jax.lax.top_k(area, min(max_segments, area.shape[1]))
    valid = largest > 0
    masks = jnp.take_along_axis(segments.masks, slot[:, :, None, None], axis=1)
    masks = masks & valid[:, :, None, None]

    def take(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, slot, axis=1)

    kept = segments.replace(
        classes=jnp.where(valid, take(segments.classes), 0),
        masks=masks,
        valid=valid,
        score=jnp.where(valid, take(segments.score), 0.0),
    )
    return Target(kept, (area > 0).sum(1) - valid.sum(1))


def merge_same_class(segments: Segments) -> Segments:
    """Joins the segments of a class in its first slot; its other slots become empty.

    The score of a joined segment is the mean of its parts' scores, weighted by area.
    """
    valid, classes = segments.valid, segments.classes
    same = (classes[:, :, None] == classes[:, None, :]) & valid[:, :, None] & valid[:, None, :]
    first = ~jnp.tril(same, k=-1).any(-1) & valid  # [B, M]: no earlier slot has this class
    joined = (same & first[:, :, None]).astype(jnp.float32)  # [B, M (into), M (from)]
    masks = jnp.where(valid[:, :, None, None], segments.masks, False).astype(jnp.float32)
    area = masks.sum((2, 3))
    score = (joined * (jnp.where(valid, segments.score, 0.0) * area)[:, None]).sum(-1)
    total = (joined * area[:, None]).sum(-1)
    return segments.replace(
        classes=jnp.where(first, classes, 0),
        masks=jnp.einsum("bij,bjhw->bihw", joined, masks) > 0,
        valid=first,
        score=score / jnp.maximum(total, 1.0),
    )


def label_map(segments: Segments) -> jax.Array:
    """Paints segments into a label map: uint8 [B, h, w], class ids or, without segment, 255."""
    painted = jnp.where(segments.valid[:, :, None, None] & segments.masks, 1, 0)
    classes = jnp.einsum("bmhw,bm->bhw", painted, segments.classes)
    return jnp.where(painted.any(1), classes, VOID).astype(jnp.uint8)
