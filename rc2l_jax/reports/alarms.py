"""Warnings of a run: steps that were not finite, and pseudo labels that have collapsed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rc2l_jax.method.step_metrics import NONFINITE

# Below these means over the steps since the last log there is a warning.
_FEW_SEGMENTS = 0.05  # pseudo segments per image
_FEW_CLASSES = 1.1  # classes among a step's pseudo segments


def without_zeros(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leaves out the "nonfinite/..." metrics that are 0: usually these are all, some twenty."""
    return {k: v for k, v in metrics.items() if v or not k.startswith(NONFINITE)}


def nonfinite_counts(metrics: Mapping[str, float], steps: int) -> dict[str, int]:
    """Counts, for each loss or gradient term, the steps in which it was not finite.

    Args:
      metrics: means over the steps since the last log.
      steps: how many steps these are.

    Returns:
      {term: number of steps}, the most frequent first; terms that were always finite are left out.
    """
    counts = {
        name.removeprefix(NONFINITE): round(share * steps)
        for name, share in metrics.items()
        if name.startswith(NONFINITE) and share > 0
    }
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def nonfinite_warning(metrics: Mapping[str, float], steps: int) -> str:
    """Returns a warning that says how many steps were skipped, and why; "" if none was.

    Args:
      metrics: means over the steps since the last log.
      steps: how many steps these are.
    """
    skipped = round(metrics["nonfinite_steps"] * steps)
    if not skipped:
        return ""
    terms = ", ".join(f"{name} {n}" for name, n in nonfinite_counts(metrics, steps).items())
    return (
        f"warning: {skipped} of the last {steps} steps not finite ({terms}), and skipped: they "
        "changed neither student, teacher nor optimiser"
    )


def collapse_warning(metrics: Mapping[str, float], num_classes: int) -> str:
    """Returns a warning if pseudo segments are almost none or of one class only; "" if not.

    There is no warning while the unlabelled loss terms have weight 0: pseudo labels then teach
    nothing, whatever they are.

    Args:
      metrics: means over the steps since the last log.
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


def collapses(evaluations: Sequence[Mapping[str, Any]], num_classes: int) -> str:
    """Says whether pseudo labels had collapsed at evaluations of a run; "" if at none.

    Args:
      evaluations: lines of evaluations.jsonl, as `history.read_evaluations` returns them.
      num_classes: K.
    """
    found = {}
    for line in evaluations:
        metrics = {k: math.nan if v is None else v for k, v in line["metrics"].items()}
        if warning := collapse_warning(metrics, num_classes):
            found[line["step"]] = warning.removeprefix("warning: ")
    if not found:
        return ""
    where = f"Pseudo labels had collapsed at {len(found)} of {len(evaluations)} evaluations."
    step, text = found.popitem()
    return f"{where} At step {step}: {text}."
