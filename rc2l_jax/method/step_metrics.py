"""What a step reports besides its losses: how good the pseudo labels are, what was not finite."""

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

NONFINITE = "nonfinite/"  # prefix of the metrics that say how often a term was not finite


def of_terms(prefix: str, terms: Terms) -> dict[str, Mean]:
    """Loss terms as reported: of the last decoder layer, which is the one used at inference."""
    return {f"{prefix}_{k}": jax.tree.map(lambda x: x[-1], v) for k, v in terms.items()}


def of_labeled(truth: Target, finite: jax.Array) -> dict[str, Mean]:
    """How many classes found no slot an image, and how often matching was not finite.

    Args:
      truth: of the labelled images.
      finite: bool, see `matching.assign`.
    """
    return {
        "match/nonfinite": _mean_of(~finite),
        "label/dropped_segments": _mean_of(truth.dropped),
    }


def of_unlabeled(
    pseudo: PseudoLabels, target: Target, batch: Batch, num_classes: int
) -> dict[str, Any]:
    """Metrics of the teacher's pseudo labels.

    Args:
      pseudo: of the weak views.
      target: of the strong views.
      batch: for the ground truth, where the data set has it.
      num_classes: K.

    Returns:
      See `pseudo_label_metrics`; and "pseudo/classes", float32 [K], the segments of each class.
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
        "pseudo/classes": segment_counts(pseudo.segments, num_classes),
    }


def of_finite_steps(
    metrics: Mapping[str, Any],
    scalars: Mapping[str, jax.Array],
    norms: Mapping[str, jax.Array],
    finite: jax.Array,
) -> dict[str, Mean]:
    """All metrics of a step; one that is not finite says what was not, and counts in no mean.

    Args:
      metrics: of `total_loss`, summed over devices.
      scalars: one number of the step each.
      norms: see `nonfinite_terms`.
      finite: bool [], whether loss and gradient are.
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
    """Pseudo segments of the weak views beside the ground truth, where the data set has it.

    Args:
      segments: masks [B, M, h, w].
      label: uint8 [B, h, w], 255 where there is no ground truth. It is used for nothing else.
      valid: bool [B, h, w], False on padding.
      num_classes: K.

    Returns:
      Means of: "pseudo/segments" an image; "pseudo/coverage", the share of pixels covered;
      "pseudo/score", the teacher's confidence in a segment; "pseudo/accuracy", the share of
      segments whose class is the most frequent one under their mask; "pseudo/pixel_accuracy",
      the share of covered pixels whose class is right.
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
    """Which loss terms, and the gradients of which modules, are not finite.

    Args:
      losses: {"loss/...": (sum, count)}.
      norms: of each module's gradients, {"backbone": [], "class_head": [], ...}.

    Returns:
      {"nonfinite/" + name: (1 or 0, 1)}, of every "loss/..." and every "grad/<module>".
    """
    values = {name: total for name, (total, _) in losses.items()}
    values |= {f"grad/{module}": norm for module, norm in norms.items()}
    broken = {name: jnp.float32(~jnp.isfinite(value)) for name, value in values.items()}
    return {f"{NONFINITE}{name}": (value, jnp.ones(())) for name, value in broken.items()}


def _mean_of(values: jax.Array) -> Mean:
    return values.sum(), jnp.asarray(values.size)
