"""CutMix (Yun et al. 2019) of images, and of the segments that belong to them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rc2l_jax.method.keys import between, uniform_draws
from rc2l_jax.method.segments import Target, keep_largest, merge_same_class
from rc2l_jax.structs import AXIS, MASK_STRIDE, Segments


def cutmix_boxes(
    keys: jax.Array,
    size: tuple[int, int],
    *,
    probability: float,
    min_area: float,
    max_area: float,
    max_aspect: float,
) -> jax.Array:
    """Draws a CutMix box for each image, on the mask grid.

    Args:
      keys: [B, 2], a random key for each image.
      size: (h, w) of the mask grid.
      probability: that an image has a box at all.
      min_area: smallest area of a box, as a share of the image.
      max_area: largest area of a box, as a share of the image.
      max_aspect: largest ratio of a box's sides, each taken as a share of the image's side. The
        ratio is drawn log-uniformly, with either side the longer one, from as much of the range
        as lets a box of the drawn area fit into the image.

    Returns:
      bool [B, h, w], True inside the box.
    """
    h, w = size

    def one(apply: jax.Array, *drawn: jax.Array) -> jax.Array:
        area = between(drawn[0], min_area, max_area)
        bound = jnp.minimum(jnp.log(max_aspect), -jnp.log(area))  # no side longer than the image's
        log_aspect = bound * between(drawn[1], -1.0, 1.0)
        tall = jnp.clip(jnp.round(h * jnp.sqrt(area * jnp.exp(log_aspect))), 1, h)
        wide = jnp.clip(jnp.round(w * jnp.sqrt(area * jnp.exp(-log_aspect))), 1, w)
        top = jnp.floor(drawn[2] * (h - tall + 1))
        left = jnp.floor(drawn[3] * (w - wide + 1))
        rows, columns = jnp.arange(h)[:, None], jnp.arange(w)[None, :]
        inside = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
        return inside & (apply < probability)

    return jax.vmap(one)(*uniform_draws(keys, 5))


def next_images(images: Any) -> Any:
    """For each image of the global batch the one after it; the first one follows the last one.

    The images are those that all devices process at a time. A device gets the image that follows
    its last one from its neighbour, so that neither the pairs nor the step depend on the number of
    devices.

    Args:
      images: a tree of arrays [B, ...], this device's.

    Returns:
      The same tree with what belongs to the next images. If there is only one image in all, it is
      its own next.
    """
    devices = jax.lax.axis_size(AXIS)
    before = [(device, (device - 1) % devices) for device in range(devices)]

    def shifted(x: jax.Array) -> jax.Array:
        return jnp.concatenate([x[1:], jax.lax.ppermute(x[:1], AXIS, before)])

    return jax.tree.map(shifted, images)


def cutmix_images(images: jax.Array, pasted: jax.Array, box: jax.Array) -> jax.Array:
    """Pastes the pixels of other images into the boxes.

    Args:
      images: [B, H, W, ...], H and W multiples of `MASK_STRIDE`.
      pasted: of the same shape, the images to paste.
      box: bool [B, h, w], True where an image shows the one pasted into it.
    """
    pixels = box.repeat(MASK_STRIDE, axis=1).repeat(MASK_STRIDE, axis=2)
    return jnp.where(pixels.reshape(pixels.shape + (1,) * (images.ndim - 3)), pasted, images)


def cutmix_segments(
    segments: Segments,
    pasted: Segments,
    box: jax.Array,
    *,
    max_segments: int,
    min_area: int,
    merge: bool,
) -> Target:
    """Cuts and pastes pseudo segments with the same box as their images.

    Args:
      segments: of the weak views, with masks [B, M, h, w].
      pasted: of the images that are pasted into them, of the same shapes.
      box: bool [B, h, w], True where an image shows the one pasted into it.
      max_segments: number of slots M of the result (or, if fewer, those of both inputs together).
        They go to the largest segments.
      min_area: segments of fewer pixels of the mask grid, after the cut, are dropped.
      merge: whether to join the segments of a class, also across the two images
        (`merge_same_class`).

    Returns:
      The mixed segments, and how many found no slot.
    """

    def both(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.concatenate([a, b], axis=1)

    mixed = Segments(
        classes=both(segments.classes, pasted.classes),
        masks=both(segments.masks & ~box[:, None], pasted.masks & box[:, None]),
        valid=both(segments.valid, pasted.valid),
        score=both(segments.score, pasted.score),
        known=jnp.where(box, pasted.known, segments.known),
    )
    if merge:
        mixed = merge_same_class(mixed)
    return keep_largest(mixed, max_segments, min_area)
