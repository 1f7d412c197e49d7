"""What the log warns of: steps that were not finite, and pseudo labels that have collapsed."""

from __future__ import annotations

from collections.abc import Mapping

from rc2l_jax.method.step_metrics import NONFINITE

# Means over the steps since the last log: below them hardly a step is an exception.
_FEW_SEGMENTS = 0.05  # an image
_FEW_CLASSES = 1.1  # a step


def without_zeros(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leaves out the terms that always were finite: some twenty numbers that say nothing."""
    return {k: v for k, v in metrics.items() if v or not k.startswith(NONFINITE)}


def nonfinite_counts(metrics: Mapping[str, float], steps: int) -> dict[str, int]:
    """How many of the last steps had which term not finite.

    Args:
      metrics: means over these steps.
      steps: their number.

    Returns:
      {term: number of steps}, without the terms that always were finite, the most frequent first.
    """
    counts = {
        name.removeprefix(NONFINITE): round(share * steps)
        for name, share in metrics.items()
        if name.startswith(NONFINITE) and share > 0
    }
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def nonfinite_warning(metrics: Mapping[str, float], steps: int) -> str:
    """Says how many of the last steps were skipped, and why; "" if none was."""
    skipped = round(metrics["nonfinite_steps"] * steps)
    if not skipped:
        return ""
    terms = ", ".join(f"{name} {n}" for name, n in nonfinite_counts(metrics, steps).items())
    return (
        f"warning: {skipped} of the last {steps} steps not finite ({terms}), and skipped: they "
        "changed neither student, teacher nor optimiser"
    )


def collapse_warning(metrics: Mapping[str, float], num_classes: int) -> str:
    """Says that the teacher's pseudo labels teach nothing (any more); "" if they do not seem so.

    Args:
      metrics: means over the last steps; while the unlabelled terms weigh nothing, the teacher may
        do what it likes.
      num_classes: K.
    """
    if metrics.get("unsup_weight", 0.0) <= 0 or "pseudo/segments" not in metrics:
        return ""
    names = ("pseudo/segments", "pseudo/coverage", "pseudo/classes", "pseudo/score")
    figures = ", ".join(f"{name} {metrics[name]:.3g}" for name in names if name in metrics)
    if metrics["pseudo/segments"] < _FEW_SEGMENTS:
        return (
            f"warning: the teacher finds almost no pseudo segment ({figures}): the unlabelled "
            "images teach nothing. Lower pseudo.score_threshold or pseudo.pixel_threshold, or "
            "raise unsup_start_step"
        )
    if num_classes > 1 and metrics["pseudo/classes"] < _FEW_CLASSES:
        return (
            f"warning: all pseudo segments of a step are of one class ({figures}): the teacher may "
            "have collapsed. Raise unsup_start_step or pseudo.class_alignment, or lower "
            "unsup_weight"
        )
    return ""
