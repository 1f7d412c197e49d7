"""The views of a batch that student and teacher see, and their segments (Figure 2, left)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rc2l_jax.method.color import color_augment, color_jitter
from rc2l_jax.method.cutmix import cutmix_boxes, cutmix_images, cutmix_segments, next_images
from rc2l_jax.method.keys import Keys
from rc2l_jax.method.segments import Target, ground_truth_segments
from rc2l_jax.structs import Batch, Segments

# The values that `strong_color` and `pseudo.uncovered` may have in the config.
STRONG_COLORS = ("same", "weak", "jitter")
UNCOVERED = ("unknown", "negative")


def labeled_view(batch: Batch, keys: Keys, config: ConfigDict) -> tuple[jax.Array, Target]:
    """The labelled images after colour augmentation, and their segments z^gt.

    Returns:
      float32 [B, H, W, 3] in 0..255, and the segments with masks [B, M, H, W].
    """
    truth = ground_truth_segments(
        batch.label,
        batch.valid,
        num_classes=config.data.num_classes,
        max_segments=config.max_segments,
        ignore_void=config.ignore_void,
    )
    return _colored(batch.image, batch.valid, keys.color, config), truth


@jax.named_scope("weak_view")
def weak_view(batch: Batch, keys: Keys, config: ConfigDict) -> jax.Array:
    """The weak view x^w, which the teacher sees: float32 [B, H, W, 3] in 0..255.

    The host has already resized, cropped and flipped the images; here only colours change.
    """
    images = batch.unlabeled_image
    if not config.weak_color:
        return images.astype(jnp.float32)
    return _colored(images, batch.unlabeled_valid, keys.unlabeled_color, config)


@jax.named_scope("strong_view")
def strong_view(
    batch: Batch, weak: jax.Array, pseudo: Segments, keys: Keys, config: ConfigDict
) -> tuple[jax.Array, Target]:
    """The strong view x^s, which the student sees: CutMix of images and of their segments.

    Its colours are those of the weak view or others, as `strong_color` says.

    Args:
      batch: this device's images [B, ...].
      weak: x^w, float32 [B, H, W, 3] in 0..255.
      pseudo: z^t of x^w, with masks [B, M, h, w].
      keys: the random keys of the step.
      config: the run's, with the keys of `configs/base.py`.

    Returns:
      float32 [B, H, W, 3] in 0..255, and the mixed segments with masks [B, M, h, w].
    """
    box = cutmix_boxes(
        keys.box,
        pseudo.known.shape[1:],
        probability=config.cutmix.probability,
        min_area=config.cutmix.min_area,
        max_area=config.cutmix.max_area,
        max_aspect=config.cutmix.max_aspect,
    )
    colored = _strong_colored(batch, weak, keys.strong_color, config)
    pasted, pasted_segments = next_images((colored, pseudo))
    slots, merge = config.max_segments, config.pseudo.merge_same_class
    segments, dropped = cutmix_segments(
        pseudo,
        pasted_segments,
        box,
        max_segments=min(slots, config.data.num_classes) if merge else slots,
        min_area=config.pseudo.min_area,
        merge=merge,
    )
    segments = segments.replace(known=_known(segments, config.pseudo.uncovered))
    return cutmix_images(colored, pasted, box), Target(segments, dropped)


def _known(segments: Segments, uncovered: str) -> jax.Array:
    """The pixels of strong views on which masks may be compared, bool [B, h, w].

    With `uncovered` "unknown" these are the pixels that a segment covers, with "negative" all but
    padding. An image without any segment has no such pixels in either case: that the teacher found
    nothing is no evidence that nothing is there.
    """
    if uncovered == "unknown":
        return segments.masks.any(1)
    return segments.known & segments.valid.any(1)[:, None, None]


def _strong_colored(
    batch: Batch, weak: jax.Array, keys: jax.Array, config: ConfigDict
) -> jax.Array:
    """The unlabelled images in the colours that `strong_color` asks for, before CutMix.

    Returns:
      float32 [B, H, W, 3] in 0..255.
    """
    images, valid = batch.unlabeled_image, batch.unlabeled_valid
    if config.strong_color == "weak":
        return _colored(images, valid, keys, config)
    if config.strong_color == "jitter":
        return color_jitter(keys, images, valid, **config.jitter)
    return weak


def _colored(images: jax.Array, valid: jax.Array, keys: jax.Array, config: ConfigDict) -> jax.Array:
    """Colour augmentation (if `data.color`) of uint8 [B, H, W, 3], to float32 in 0..255."""
    if not config.data.color:
        return images.astype(jnp.float32)
    return color_augment(keys, images, valid)
