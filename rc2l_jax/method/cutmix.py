"""CutMix (Yun et al. 2019) of images, and of the segments that belong to them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.method.keys import between, uniform_draws
from rc2l_jax.method.segments import Target, keep_largest, merge_same_class
from rc2l_jax.structs import MASK_STRIDE, Segments


def cutmix_boxes(
    keys: jax.Array,
    size: tuple[int, int],
    *,
    probability: float,
    min_area: float,
    max_area: float,
    max_aspect: float,
) -> jax.Array:
    """One box an image, on the mask grid (CutMix, Yun et al. 2019).

    Args:
      keys: [B, 2], a key an image.
      size: (h, w) of the mask grid.
      probability: chance that an image has a box at all.
      min_area: of the box, as a share of the image.
      max_area: likewise.
      max_aspect: the longest side over the shortest (as shares of the image's), drawn
        log-uniformly either way; less where a box of that area would not fit.

    Returns:
      bool [B, h, w], True inside the box.
    """
    h, w = size

    def one(apply: jax.Array, *drawn: jax.Array) -> jax.Array:
        area = between(drawn[0], min_area, max_area)
        bound = jnp.minimum(jnp.log(max_aspect), -jnp.log(area))  # no side above the image's
        log_aspect = bound * between(drawn[1], -1.0, 1.0)
        tall = jnp.clip(jnp.round(h * jnp.sqrt(area * jnp.exp(log_aspect))), 1, h)
        wide = jnp.clip(jnp.round(w * jnp.sqrt(area * jnp.exp(-log_aspect))), 1, w)
        top = jnp.floor(drawn[2] * (h - tall + 1))
        left = jnp.floor(drawn[3] * (w - wide + 1))
        rows, columns = jnp.arange(h)[:, None], jnp.arange(w)[None, :]
        inside = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
        return inside & (apply < probability)

    return jax.vmap(one)(*uniform_draws(keys, 5))


def cutmix_partners(key: jax.Array, num_images: int) -> jax.Array:
    """Whose pixels an image's box shows: int32 [B], never the image itself if B > 1."""
    shift = jax.random.randint(key, (), 1, max(num_images, 2))
    return (jnp.arange(num_images) + shift) % num_images


def cutmix_images(images: jax.Array, box: jax.Array, partner: jax.Array) -> jax.Array:
    """Pastes each image's box from its partner.

    Args:
      images: [B, H, W, ...], H and W multiples of `MASK_STRIDE`.
      box: bool [B, h, w].
      partner: int32 [B].
    """
    pixels = box.repeat(MASK_STRIDE, axis=1).repeat(MASK_STRIDE, axis=2)
    return jnp.where(
        pixels.reshape(pixels.shape + (1,) * (images.ndim - 3)), images[partner], images
    )


def cutmix_segments(
    segments: Segments,
    box: jax.Array,
    partner: jax.Array,
    *,
    max_segments: int,
    min_area: int,
    merge: bool,
) -> Target:
    """Cuts and pastes pseudo segments with the box that mixed their images.

    Args:
      segments: of the weak views, masks [B, M, h, w].
      box: bool [B, h, w], True where the image shows its partner.
      partner: int32 [B], index of the image pasted into the box.
      max_segments: M of the result; the largest win.
      min_area: what the cut leaves smaller than this is dropped.
      merge: join the segments of one class, of both images (`merge_same_class`).

    Returns:
      The mixed segments, and how many found no slot.
    """
    pasted = jax.tree.map(lambda x: x[partner], segments)

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
