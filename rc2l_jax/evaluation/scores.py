"""Builds results.json from confusion matrices and losses, and picks the best evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rc2l_jax.evaluation.confusion import mean_of, measure
from rc2l_jax.run.storage import finite


def score(confusion: np.ndarray, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Builds one network's entry of results.json.

    Args:
      confusion: integer [K, K], rows are true classes, columns predicted ones.
      class_names: K names.

    Returns:
      {"miou": mean IoU, "iou": {class name: IoU}}, the same of the other `Measures` ("dice_f1",
      "precision" and "recall"), and "means", of these three; None for a number if no pixel was
      counted.
    """

    def number(x: float) -> float | None:
        return None if np.isnan(x) else float(x)

    measures = measure(confusion)._asdict()
    others = [name for name in measures if name != "iou"]
    return {
        "miou": number(mean_of(measures["iou"])),
        **{name: dict(zip(class_names, map(number, x))) for name, x in measures.items()},
        "means": {name: number(mean_of(measures[name])) for name in others},
    }


def build_evaluation(config: ConfigDict, step: int, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the part of results.json that comes from one evaluation; see `build_results`."""
    return {
        "step": step,
        "dataset": config.data.name,
        "split": config.data.eval_split,
        **scores,
    }


def build_results(
    config: ConfigDict,
    step: int,
    scores: Mapping[str, Any],
    best: Mapping[str, Any],
    losses: Mapping[str, float],
) -> dict[str, Any]:
    """Builds results.json.

    Args:
      config: see `configs/base.py`.
      step: the evaluated step.
      scores: {"student": ..., "teacher": ...}, as `score` returns each.
      best: the best evaluation so far, as `better` returns it.
      losses: the mean of every loss term at the last log, as `losses_of` returns them.

    Returns:
      A dictionary that JSON can hold.
    """
    evaluation = build_evaluation(config, step, scores)
    return evaluation | {"best": dict(best), "losses": dict(losses)}


def better(best: Mapping[str, Any] | None, step: int, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the better one of the best evaluation so far and a new one.

    They are compared by the higher mIoU of student and teacher; if equal, the earlier one stays.

    Args:
      best: the best so far, {"step", "student_miou", "teacher_miou"}, or None.
      step: the new evaluation's step.
      scores: the new evaluation's {"student": ..., "teacher": ...}, as `score` returns each.

    Returns:
      {"step", "student_miou", "teacher_miou"} of the better one.
    """
    new = {"step": step} | {f"{name}_miou": entry["miou"] for name, entry in scores.items()}

    def rank(x: Mapping[str, Any]) -> float:
        return max((v for k, v in x.items() if k != "step" and v is not None), default=-1.0)

    return new if not best or rank(new) > rank(best) else dict(best)


def losses_of(metrics: dict[str, float | None]) -> dict[str, float | None]:
    """Returns the loss terms among a log's metrics, without "loss/"; None if one is not finite."""
    prefix = "loss/"
    terms = {name: value for name, value in metrics.items() if name.startswith(prefix)}
    return finite({name.removeprefix(prefix): value for name, value in terms.items()})
