"""One pass over a split: confusion matrices of networks, at each label's own resolution."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rc2l_jax.evaluation.class_scores import InferenceOptions, predict_labels
from rc2l_jax.evaluation.confusion import confusion_matrix
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.run.distributed import compiled_together
from rc2l_jax.structs import AXIS, VOID, EvalBatch

# Called after each batch, until it returns False, with this host's batch and its predictions,
# {network: uint8 [D, B, Hl, Wl]}.
Observer = Callable[[EvalBatch, dict[str, np.ndarray]], bool]


@functools.lru_cache(maxsize=4)
def parallel_eval_step(
    model: MaskFormer,
    options: InferenceOptions,
    devices: tuple[jax.Device, ...] | None = None,
) -> Callable[[Any, EvalBatch], tuple[jax.Array, jax.Array]]:
    """Maps prediction and counting over devices.

    The result is cached, so that a run compiles it once for each shape of batches.

    Args:
      model: the architecture.
      options: how to predict.
      devices: those to compile for, of this or of another machine; None for all there are.

    Returns:
      A function of variables and a batch with leaves [D, B, ...]. It returns the confusion matrix
      of all devices, int [K, K], and predicted labels, uint8 [D, B, Hl, Wl].
    """

    def step(variables: Any, batch: EvalBatch) -> tuple[jax.Array, jax.Array]:
        prediction = predict_labels(model, variables, batch, options)
        counts = (batch.index >= 0)[:, None, None]
        label = jnp.where(counts, batch.label, VOID)
        confusion = confusion_matrix(prediction, label, model.num_classes)
        return jax.lax.psum(confusion, AXIS), prediction

    lifted = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, 0), devices=devices)
    return compiled_together(lifted)


def evaluate(
    model: MaskFormer,
    variables_by_name: Mapping[str, Any],
    batches: Iterable[EvalBatch],
    config: ConfigDict,
    observe: Observer | None = None,
) -> dict[str, np.ndarray]:
    """Counts pixels by true and predicted class, for several networks in one pass over a split.

    Args:
      model: the architecture of all networks.
      variables_by_name: {"student": {"params": ..., "batch_stats": ...}, "teacher": ...}.
      batches: batches of NumPy arrays [D, B, ...]; every host must bring equally many.
      config: see `configs/base.py`; reads `data.num_classes` and `eval`.
      observe: sees each batch with its predictions, until it returns False.

    Returns:
      {name: int64 [K, K]}, rows are true classes, columns predicted ones, summed over all hosts.
      Void, padding and the examples that fill up a batch (index -1) are not counted.
    """
    step = parallel_eval_step(model, InferenceOptions.from_config(config))
    num_classes = config.data.num_classes
    totals = {name: np.zeros((num_classes, num_classes), np.int64) for name in variables_by_name}
    pending: dict[str, jax.Array] = {}
    for batch in batches:
        outputs = {name: step(variables, batch) for name, variables in variables_by_name.items()}
        # The results fetched here are those of the batch before: so the device stays busy, and at
        # most two batches are in its memory.
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
    """Returns this host's part of an array sharded over devices, as `shape` = [D, B, Hl, Wl]."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data).ravel() for shard in shards]).reshape(shape)
