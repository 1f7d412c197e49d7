"""Random keys of a step, and what student and teacher get to see of its batch (Figure 2, left)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rc2l_jax.method import color as augment
from rc2l_jax.method.class_alignment import align_classes, query_counts
from rc2l_jax.method.segments import (
    cutmix_segments,
    ground_truth_segments,
    label_map,
    merge_same_class,
    nearest_downsample,
    pseudo_segments,
    semantic_segments,
)
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.structs import AXIS, Batch, Segments, TrainState


class Keys(NamedTuple):
    """The step's random streams: a key an image, [B, 2], for all but the last two.

    Images take theirs by their position in the global batch: colours and boxes depend neither on
    the number of devices nor on how many parts a batch is taken in.
    """

    color: jax.Array
    unlabeled_color: jax.Array
    strong_color: jax.Array
    box: jax.Array
    partner: jax.Array
    dropout: jax.Array


def step_keys(state: TrainState, batch: Batch, part: jax.Array | None = None) -> Keys:
    """One named key a use, from the base key and the step.

    Args:
      state: for both.
      batch: [B, ...], a contiguous part of the global batch.
      part: which one, int32 []; the device's if None.
    """
    part = jax.lax.axis_index(AXIS) if part is None else part
    keys = Keys(*jax.random.split(jax.random.fold_in(state.key, state.step), len(Keys._fields)))
    labeled, unlabeled = batch.image.shape[0], batch.unlabeled_image.shape[0]
    of_images = lambda key, count: augment.image_keys(key, count, part * count)  # noqa: E731
    return Keys(
        color=of_images(keys.color, labeled),
        unlabeled_color=of_images(keys.unlabeled_color, unlabeled),
        strong_color=of_images(keys.strong_color, unlabeled),
        box=of_images(keys.box, unlabeled),
        partner=keys.partner,
        dropout=jax.random.fold_in(keys.dropout, part),
    )


def colored(images: jax.Array, valid: jax.Array, keys: jax.Array, config: ConfigDict) -> jax.Array:
    """Colour augmentation (if `data.color`) of uint8 [B, H, W, 3], to float32 in 0..255."""
    if not config.data.color:
        return images.astype(jnp.float32)
    return augment.color_augment(keys, images, valid)


def strong_colored(batch: Batch, weak: jax.Array, keys: jax.Array, config: ConfigDict) -> jax.Array:
    """The strong view [B, H, W, 3] before CutMix: see `strong_color` in the config."""
    images, valid = batch.unlabeled_image, batch.unlabeled_valid
    if config.strong_color == "weak":
        return colored(images, valid, keys, config)
    if config.strong_color == "jitter":
        return augment.color_jitter(keys, images, valid, **config.jitter)
    return weak


def labeled_view(
    batch: Batch, keys: jax.Array, config: ConfigDict
) -> tuple[jax.Array, Segments, jax.Array]:
    """Labelled images in colour, their segments z^gt [B, M, H, W], and how many found no slot."""
    segments, dropped = ground_truth_segments(
        batch.label,
        batch.valid,
        num_classes=config.data.num_classes,
        max_segments=config.max_segments,
        ignore_void=config.ignore_void,
    )
    return colored(batch.image, batch.valid, keys, config), segments, dropped


@flax.struct.dataclass
class UnlabeledViews:
    """Both views of the unlabelled images and the teacher's pseudo label z^t of each.

    Attributes:
      weak: x^w, float32 [B, H, W, 3] in 0..255.
      weak_segments: pseudo segments of x^w, masks [B, M, h, w].
      strong: x^s, float32 [B, H, W, 3] in 0..255.
      segments: pseudo segments of x^s, masks [B, M, h, w].
      dropped: int32 [B], segments that found no slot.
      class_counts: float32 [K], the teacher's (`class_balance.query_counts`), before alignment.
    """

    weak: jax.Array
    weak_segments: Segments
    strong: jax.Array
    segments: Segments
    dropped: jax.Array
    class_counts: jax.Array


def unlabeled_views(
    state: TrainState, batch: Batch, keys: Keys, model: MaskFormer, config: ConfigDict
) -> UnlabeledViews:
    """Weak view -> teacher -> pseudo segments; then CutMix of the view and of its segments."""
    weak = batch.unlabeled_image.astype(jnp.float32)
    if config.weak_color:
        weak = colored(batch.unlabeled_image, batch.unlabeled_valid, keys.unlabeled_color, config)
    weak_segments, dropped, class_counts = teacher_segments(
        state, weak, batch.unlabeled_valid, model, config
    )
    strong = strong_colored(batch, weak, keys.strong_color, config)

    num_images, grid = weak.shape[0], weak_segments.known.shape[1:]
    box = augment.cutmix_boxes(
        keys.box,
        grid,
        probability=config.cutmix.probability,
        min_area=config.cutmix.min_area,
        max_area=config.cutmix.max_area,
        max_aspect=config.cutmix.max_aspect,
    )
    partner = augment.cutmix_partners(keys.partner, num_images)
    segments, mix_dropped = cutmix_segments(
        weak_segments,
        box,
        partner,
        max_segments=config.max_segments,
        min_area=config.pseudo.min_area,
        merge=config.pseudo.merge_same_class,
    )
    # What the teacher left open: masks may be compared there or not. An image of which it said
    # nothing is no evidence in either case.
    if config.pseudo.uncovered == "unknown":
        known = segments.masks.any(1)
    else:
        known = segments.known & segments.valid.any(1)[:, None, None]
    segments = segments.replace(known=known)
    return UnlabeledViews(
        weak=weak,
        weak_segments=weak_segments,
        strong=augment.cutmix_images(strong, box, partner),
        segments=segments,
        dropped=dropped + mix_dropped,
        class_counts=class_counts,
    )


def teacher_segments(
    state: TrainState, weak: jax.Array, valid: jax.Array, model: MaskFormer, config: ConfigDict
) -> tuple[Segments, jax.Array, jax.Array]:
    """The teacher (EMA parameters, inference mode) on x^w -> z^t; no gradient passes from here.

    Returns:
      Segments [B, M, h, w], int32 [B] how many found no slot, and the teacher's class counts [K].
    """
    teacher = {"params": state.teacher_params, "batch_stats": state.teacher_batch_stats}
    predictions = model.apply(teacher, augment.normalize(weak), train=False, every_layer=False)
    class_logits, mask_logits = jax.lax.stop_gradient(
        (predictions.class_logits[-1], predictions.mask_logits[-1])
    )
    aligned = align_classes(class_logits, state.class_shares, config.pseudo.class_alignment)
    on_grid = nearest_downsample(valid, mask_logits.shape[-2:])
    segments, dropped = _segments(aligned, mask_logits, on_grid, config)
    if config.pseudo.merge_same_class:
        segments = merge_same_class(segments)
    return segments, dropped, query_counts(class_logits)


def _segments(
    class_logits: jax.Array, mask_logits: jax.Array, valid: jax.Array, config: ConfigDict
) -> tuple[Segments, jax.Array]:
    pseudo = config.pseudo
    common = {"max_segments": config.max_segments, "min_area": pseudo.min_area}
    if pseudo.source == "semantic":
        return semantic_segments(
            class_logits, mask_logits, valid, pixel_threshold=pseudo.pixel_threshold, **common
        )
    return pseudo_segments(
        class_logits,
        mask_logits,
        valid,
        score_threshold=pseudo.score_threshold,
        mask_threshold=pseudo.mask_threshold,
        **common,
    )


def parallel_views(
    model: MaskFormer, config: ConfigDict
) -> Callable[[TrainState, Batch], tuple[jax.Array, ...]]:
    """Lifts over devices what a step makes of unlabelled images, for pictures.

    Returns:
      A function of state and batch to the weak view, its segments as label maps, the strong view
      and its segments: [D, B/D, ...] each.
    """

    def views(state: TrainState, batch: Batch) -> tuple[jax.Array, ...]:
        x = unlabeled_views(state, batch, step_keys(state, batch), model, config)
        return x.weak, label_map(x.weak_segments), x.strong, label_map(x.segments)

    return jax.pmap(views, axis_name=AXIS, in_axes=(None, 0))
