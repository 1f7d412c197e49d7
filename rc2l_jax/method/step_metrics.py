"""The metrics of a step: loss terms, quality of the pseudo labels, and what was not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rc2l_jax.method.class_alignment import segment_counts
from rc2l_jax.method.objective import Terms
from rc2l_jax.method.segments import Target, nearest_downsample
from rc2l_jax.method.teacher import PseudoLabels
from rc2l_jax.structs import Batch, Mean, Segments

NONFINITE = "nonfinite/"  # prefix of metrics that say how often a term was not finite


def of_terms(prefix: str, terms: Terms) -> dict[str, Mean]:
    """Loss terms as metrics: those of the last decoder layer, the one that inference uses."""
    return {f"{prefix}_{k}": jax.tree.map(lambda x: x[-1], v) for k, v in terms.items()}


def of_matching(finite: jax.Array) -> dict[str, Mean]:
    """How often a cost matrix was not finite.

    Args:
      finite: bool [G], whether each cost matrix of the step was, from `objective.match_all`.
    """
    return {"match/nonfinite": _mean_of(~finite)}


def of_labeled(truth: Target) -> dict[str, Mean]:
    """Mean number of classes of the labelled images, `truth`, for which there was no slot."""
    return {"label/dropped_segments": _mean_of(truth.dropped)}


def of_unlabeled(
    pseudo: PseudoLabels, target: Target, batch: Batch, num_classes: int
) -> dict[str, Any]:
    """Metrics of the teacher's pseudo labels.

    Args:
      pseudo: the teacher's, of the weak views.
      target: segments of the strong views.
      batch: supplies the ground truth, where the data set has it.
      num_classes: K.

    Returns:
      The metrics of `pseudo_label_metrics`; "pseudo/dropped_segments", the mean number of segments
      for which weak and strong view had no slot; "pseudo/refused_segments", the mean number of
      those that do not look like their class; and "pseudo/classes", float32 [K], the number of
      segments of each class.
    """
    grid = pseudo.segments.known.shape[1:]
    metrics = pseudo_label_metrics(
        pseudo.segments,
        nearest_downsample(batch.unlabeled_label, grid),
        nearest_downsample(batch.unlabeled_valid, grid),
        num_classes=num_classes,
    )
    return metrics | {
        "pseudo/dropped_segments": _mean_of(pseudo.dropped + target.dropped),
        "pseudo/refused_segments": _mean_of(pseudo.refused),
        "pseudo/classes": segment_counts(pseudo.segments, num_classes),
    }


def of_finite_steps(
    metrics: Mapping[str, Any],
    scalars: Mapping[str, jax.Array],
    norms: Mapping[str, jax.Array],
    finite: jax.Array,
) -> dict[str, Mean]:
    """All metrics of a step. A step that is not finite reports why, and counts in no other mean.

    Args:
      metrics: those of `train_step.total_loss`, summed over devices.
      scalars: metrics that are one number for the whole step, such as "grad_norm".
      norms: norm of each module's gradients.
      finite: bool [], whether loss and gradients are finite.
    """
    metrics, scalars = dict(metrics), dict(scalars)
    if "pseudo/classes" in metrics:
        classes_present = metrics.pop("pseudo/classes") > 0  # [K]
        scalars["pseudo/classes"] = classes_present.sum()
    metrics |= {k: (jnp.float32(v), jnp.ones(())) for k, v in scalars.items()}
    means = jax.tree.map(lambda x: jnp.where(finite, x, 0.0), metrics)
    terms = {name: term for name, term in metrics.items() if name.startswith("loss/")}
    counts = nonfinite_terms(terms, norms)
    counts["nonfinite_steps"] = jnp.float32(~finite), jnp.ones(())
    return means | counts | {"match/nonfinite": metrics["match/nonfinite"]}


def pseudo_label_metrics(
    segments: Segments, label: jax.Array, valid: jax.Array, *, num_classes: int
) -> dict[str, Mean]:
    """Compares the pseudo segments of weak views with the ground truth, where there is one.

    Args:
      segments: with masks [B, M, h, w].
      label: uint8 [B, h, w], 255 where there is no ground truth.
      valid: bool [B, h, w], False on padding.
      num_classes: K.

    Returns:
      "pseudo/segments", the mean number of segments in an image; "pseudo/coverage", the share of
      pixels that a segment covers; "pseudo/score", the teacher's mean confidence in a segment;
      "pseudo/accuracy", the share of segments whose class is the most frequent one of the ground
      truth under their mask; "pseudo/pixel_accuracy", the share of covered pixels whose class is
      right. The last two leave out what has no ground truth.
    """
    masks = jnp.where(segments.valid[:, :, None, None], segments.masks, False)
    one_hot = jax.nn.one_hot(label, num_classes)  # void and padding are in no class
    votes = jnp.einsum("bmhw,bhwk->bmk", masks.astype(jnp.float32), one_hot)
    judged = segments.valid & (votes.sum(-1) > 0)
    classes = jnp.where(segments.valid, segments.classes, 0)
    right = judged & (votes.argmax(-1) == classes)
    right_pixels = jnp.take_along_axis(votes, classes[..., None], axis=-1)
    return {
        "pseudo/segments": (segments.valid.sum(), segments.valid.shape[0]),
        "pseudo/coverage": ((masks.any(1) & valid).sum(), valid.sum()),
        "pseudo/score": (jnp.where(segments.valid, segments.score, 0).sum(), segments.valid.sum()),
        "pseudo/accuracy": (right.sum(), judged.sum()),
        "pseudo/pixel_accuracy": (right_pixels.sum(), votes.sum()),
    }


def nonfinite_terms(losses: Mapping[str, Mean], norms: Mapping[str, jax.Array]) -> dict[str, Mean]:
    """Says which loss terms, and the gradients of which modules, are not finite.

    Args:
      losses: {"loss/...": (sum, count)}.
      norms: norm [] of each module's gradients, {"backbone": ..., "class_head": ..., ...}.

    Returns:
      {"nonfinite/" + name: (1 or 0, 1)}, where a name is "loss/..." or "grad/<module>" and 1 means
      not finite.
    """
    values = {name: total for name, (total, _) in losses.items()}
    values |= {f"grad/{module}": norm for module, norm in norms.items()}
    broken = {name: jnp.float32(~jnp.isfinite(value)) for name, value in values.items()}
    return {f"{NONFINITE}{name}": (value, jnp.ones(())) for name, value in broken.items()}


def _mean_of(values: jax.Array) -> Mean:
    return values.sum(), jnp.asarray(values.size)
