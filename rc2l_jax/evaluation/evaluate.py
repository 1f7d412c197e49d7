"""Evaluation: mIoU at each label's own resolution, and which of a run's evaluations is the best."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rc2l_jax.evaluation.class_scores import InferenceOptions, predict_labels
from rc2l_jax.evaluation.confusion import confusion_matrix, iou
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.run.distributed import compiled_together
from rc2l_jax.structs import AXIS, VOID, EvalBatch

# Called after each batch with the batch and {network: uint8 [D, B/D, H, W] predictions} of this
# host, as long as it returns True.
Observer = Callable[[EvalBatch, dict[str, np.ndarray]], bool]


@functools.lru_cache(maxsize=4)
def _parallel_eval_step(
    model: MaskFormer, options: InferenceOptions
) -> Callable[[Any, EvalBatch], tuple[jax.Array, jax.Array]]:
    """Lifts prediction and counting over all devices.

    Cached, so that it compiles once a run for each shape of batches.
    """

    def step(variables: Any, batch: EvalBatch) -> tuple[jax.Array, jax.Array]:
        prediction = predict_labels(model, variables, batch, options)
        counts = (batch.index >= 0)[:, None, None]
        label = jnp.where(counts, batch.label, VOID)
        confusion = confusion_matrix(prediction, label, model.num_classes)
        return jax.lax.psum(confusion, AXIS), prediction

    lifted = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, 0))
    return compiled_together(lifted)


def evaluate(
    model: MaskFormer,
    variables_by_name: Mapping[str, Any],
    batches: Iterable[EvalBatch],
    config: ConfigDict,
    observe: Observer | None = None,
) -> dict[str, np.ndarray]:
    """Counts true against predicted classes over a split, for several networks in one pass.

    Args:
      model: the network.
      variables_by_name: {"student": {"params": ..., "batch_stats": ...}, "teacher": ...}.
      batches: of numpy arrays [D, B/D, ...]; every host must bring the same number.
      config: see `configs/base.py`; reads `data.num_classes` and `eval`.
      observe: sees each batch with its predictions until it returns False.

    Returns:
      {name: int64 [K, K]}, rows are true classes, over all hosts. Void, padding and the examples
      that fill the last batch (index -1) are not counted.
    """
    step = _parallel_eval_step(model, InferenceOptions.from_config(config))
    num_classes = config.data.num_classes
    totals = {name: np.zeros((num_classes, num_classes), np.int64) for name in variables_by_name}
    pending: dict[str, jax.Array] = {}
    for batch in batches:
        outputs = {name: step(variables, batch) for name, variables in variables_by_name.items()}
        # Fetching the batch before keeps the device busy, and at most two batches in its memory.
        _add_counts(totals, pending)
        pending = {name: confusion for name, (confusion, _) in outputs.items()}
        if observe is not None:
            shape = batch.label.shape
            shown = {name: _to_host(labels, shape) for name, (_, labels) in outputs.items()}
            observe = observe if observe(batch, shown) else None
    _add_counts(totals, pending)
    return totals


def _add_counts(totals: dict[str, np.ndarray], counts: Mapping[str, jax.Array]) -> None:
    for name, confusion in counts.items():
        totals[name] += np.asarray(confusion, np.int64)


def _to_host(array: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """This host's part of an array that is sharded over devices, as `shape` [D, B/D, H, W]."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data).ravel() for shard in shards]).reshape(shape)


def score(confusion: np.ndarray, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Builds one network's entry of `results.json`.

    Args:
      confusion: integer [K, K].
      class_names: K names.

    Returns:
      {"miou": float, "iou": {class name: float}}; None where nothing was counted.
    """
    mean, per_class = iou(confusion)
    number = lambda x: None if np.isnan(x) else float(x)  # noqa: E731
    return {"miou": number(mean), "iou": dict(zip(class_names, map(number, per_class)))}


def build_evaluation(config: ConfigDict, step: int, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the part of `results.json` that one evaluation says; see `build_results`."""
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
    """Builds `results.json`.

    Args:
      config: see `configs/base.py`.
      step: of the evaluated checkpoint.
      scores: {"student": see `score`, "teacher": ...}.
      best: see `better`.
      losses: every loss term at the last logged step.

    Returns:
      A dictionary that JSON can hold.
    """
    evaluation = build_evaluation(config, step, scores)
    return evaluation | {"best": dict(best), "losses": dict(losses)}


def better(best: Mapping[str, Any] | None, step: int, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the better of two evaluations, by the mIoU of the better of student and teacher.

    Args:
      best: {"step", "student_miou", "teacher_miou"} so far, or None.
      step: of the new evaluation.
      scores: {"student": see `score`, "teacher": ...} of the new evaluation.
    """
    new = {"step": step} | {f"{name}_miou": entry["miou"] for name, entry in scores.items()}
    rank = lambda x: max((v for k, v in x.items() if k != "step" and v is not None), default=-1.0)  # noqa: E731
    return new if not best or rank(new) > rank(best) else dict(best)
