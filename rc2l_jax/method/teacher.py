"""The EMA teacher: its pseudo label of a weak view, and its update (Eq. 4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rc2l_jax.method.class_alignment import align_classes, query_counts
from rc2l_jax.method.class_prototypes import confirmed, keep_segments
from rc2l_jax.method.class_thresholds import pixel_thresholds, score_sums
from rc2l_jax.method.pseudo_segments import pseudo_segments, semantic_segments
from rc2l_jax.method.segments import nearest_downsample
from rc2l_jax.models.maskformer import MaskFormer, semantic_scores
from rc2l_jax.models.pixels import normalize
from rc2l_jax.structs import Segments, TrainState


class PseudoLabels(NamedTuple):
    """What the teacher says about weak views.

    Attributes:
      segments: z^t, with masks [B, M, h, w].
      dropped: int32 [B], number of segments for which there was no slot.
      refused: int32 [B], number of segments that do not look like their class
        (`class_prototypes.confirmed`); 0 without `pseudo.prototype_check`.
      class_counts: float32 [K], each class's probability summed over all queries, before class
        alignment (`class_alignment.query_counts`).
      class_scores: float32 [2, K], sum and number of the scores of each class's pixels
        (`class_thresholds.score_sums`); zeros with `pseudo.source` "query".
    """

    segments: Segments
    dropped: jax.Array
    refused: jax.Array
    class_counts: jax.Array
    class_scores: jax.Array


@jax.named_scope("teacher_segments")
def teacher_segments(
    state: TrainState, weak: jax.Array, valid: jax.Array, model: MaskFormer, config: ConfigDict
) -> PseudoLabels:
    """The pseudo label z^t of a weak view x^w; no gradient passes through it.

    The teacher has the EMA parameters and runs in inference mode.

    Args:
      state: supplies the teacher's parameters and batch statistics, and what it knows of classes.
      weak: x^w, float32 [B, H, W, 3] in 0..255.
      valid: bool [B, H, W], False on padding.
      model: the architecture of student and teacher.
      config: the run's, with the keys of `configs/base.py`.
    """
    # Unless the norm is "batch", batch statistics are constants, and the same for both networks.
    # From the same arrays XLA computes what follows once.
    teacher = state.teacher
    if config.model.norm != "batch":
        teacher["batch_stats"] = state.batch_stats
    predictions = model.apply(teacher, normalize(weak), train=False, every_layer=False)
    class_logits, mask_logits = jax.lax.stop_gradient(
        (predictions.class_logits[-1], predictions.mask_logits[-1])
    )
    aligned = align_classes(class_logits, state.class_shares, config.pseudo.class_alignment)
    on_grid = nearest_downsample(valid, mask_logits.shape[-2:])
    pseudo, seen = config.pseudo, jnp.zeros_like(state.class_scores)
    common = {"max_segments": config.max_segments, "min_area": pseudo.min_area}
    if pseudo.source == "semantic":
        scores = semantic_scores(aligned, mask_logits)
        seen = score_sums(scores, on_grid)
        thresholds = pixel_thresholds(
            state.class_scores, pseudo.pixel_threshold, pseudo.threshold_by_class
        )
        segments, dropped = semantic_segments(scores, on_grid, thresholds=thresholds, **common)
    else:
        segments, dropped = pseudo_segments(
            aligned,
            mask_logits,
            on_grid,
            score_threshold=pseudo.score_threshold,
            mask_threshold=pseudo.mask_threshold,
            merge=pseudo.merge_same_class,
            **common,
        )
    found = segments.valid.sum(1)
    if pseudo.prototype_check:
        segments = keep_segments(
            segments,
            confirmed(predictions.backbone_features, segments, state.class_prototypes),
        )
    refused = found - segments.valid.sum(1)
    return PseudoLabels(segments, dropped, refused, query_counts(class_logits), seen)


def ema_decay(decay: float, step: jax.Array) -> jax.Array:
    """tau with a warm-up: at most 1 - 1 / (step + 1), with `step` the steps done before this one.

    So early averages are of the values seen so far, not mostly of the initial one.
    """
    return jnp.minimum(decay, 1.0 - 1.0 / (step.astype(jnp.float32) + 1.0))


def ema_update(teacher: Any, student: Any, decay: float, step: jax.Array) -> Any:
    """Eq. 4, theta_t = tau theta_t + (1 - tau) theta_s, with tau warmed up.

    Args:
      teacher: a tree of float32 arrays.
      student: the same tree, already updated by this step.
      decay: tau.
      step: int32 [], steps done before this one, for the warm-up (`ema_decay`).
    """
    tau = ema_decay(decay, step)
    return jax.tree.map(lambda t, s: tau * t + (1.0 - tau) * s, teacher, student)
