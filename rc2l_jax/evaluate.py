"""Evaluation: MaskFormer's semantic inference, and mIoU at each label's own resolution."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rc2l_jax import augment
from rc2l_jax.metrics import confusion_matrix, iou
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.structs import AXIS, VOID, EvalBatch

# Called after each batch with the batch and {network: uint8 [D, B/D, H, W] predictions} of this
# host, as long as it returns True.
Observer = Callable[[EvalBatch, dict[str, np.ndarray]], bool]


def semantic_inference(
    class_logits: jax.Array, mask_logits: jax.Array, size: tuple[int, int]
) -> jax.Array:
    """Scores every class at every pixel (MaskFormer, section 3.4, `semantic_inference`).

    Masks are upsampled as logits, before the sigmoid, as MaskFormer does. Images are done one
    after the other, so that only one image's N upsampled masks are in memory.

    Args:
      class_logits: float32 [B, N, K+1], last class no-object.
      mask_logits: float32 [B, N, h, w].
      size: (H, W) of the network's (padded) input.

    Returns:
      float32 [B, K, H, W]: sum over queries of p(class) times p(mask).
    """

    def one(logits: tuple[jax.Array, jax.Array]) -> jax.Array:
        classes, masks = logits
        masks = jax.image.resize(masks, (masks.shape[0], *size), "bilinear", antialias=False)
        return jnp.einsum(
            "nk,nhw->khw",
            jax.nn.softmax(classes)[:, :-1],
            jax.nn.sigmoid(masks),
            precision=jax.lax.Precision.HIGHEST,
        )

    return jax.lax.map(one, (class_logits, mask_logits))


def resize_valid_part(
    scores: jax.Array, size: jax.Array, out_size: jax.Array, out_shape: tuple[int, int]
) -> jax.Array:
    """Crops to a size known at run time only and resizes to another, with static shapes.

    Bilinear with half-pixel centres, edges repeated, no antialiasing: torch's
    `interpolate(x[..., :size[0], :size[1]], out_size, mode="bilinear", align_corners=False)`.

    Args:
      scores: float32 [K, H, W].
      size: int32 [2], height and width of the part to read.
      out_size: int32 [2], height and width of the part to write.
      out_shape: static (H', W'), at least `out_size`.

    Returns:
      float32 [K, H', W']; outside `out_size` the edge is repeated.
    """
    for axis in (0, 1):
        low, high, weight = _source_pixels(size[axis], out_size[axis], out_shape[axis])
        weight = weight[:, None] if axis == 0 else weight
        low_part = jnp.take(scores, low, axis=axis + 1)
        high_part = jnp.take(scores, high, axis=axis + 1)
        scores = low_part * (1.0 - weight) + high_part * weight
    return scores


def _source_pixels(
    size: jax.Array, out_size: jax.Array, length: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Each output pixel's two neighbours along one axis, and the second's weight: [length]."""
    # A padding example has size 0: read pixel 0 rather than divide by zero.
    last = jnp.maximum(size, 1) - 1
    scale = size.astype(jnp.float32) / jnp.maximum(out_size, 1).astype(jnp.float32)
    source = (jnp.arange(length, dtype=jnp.float32) + 0.5) * scale - 0.5
    source = jnp.clip(source, 0.0, last.astype(jnp.float32))
    low = jnp.floor(source).astype(jnp.int32)
    return low, jnp.minimum(low + 1, last), source - low


def predict_labels(model: MaskFormer, variables: Any, batch: EvalBatch) -> jax.Array:
    """Labels every pixel at the resolution of the example's own label.

    Args:
      model: the network.
      variables: its "params" and "batch_stats".
      batch: of one device, images uint8 [B, He, We, 3].

    Returns:
      uint8 [B, Hl, Wl], class ids 0..K-1; what lies outside `label_size` means nothing.
    """
    images = augment.normalize(batch.image)
    predictions = model.apply(variables, images, train=False)
    out_shape = batch.label.shape[-2:]

    def one(args: tuple[jax.Array, ...]) -> jax.Array:
        classes, masks, size, label_size = args
        scores = semantic_inference(classes[None], masks[None], images.shape[1:3])[0]
        scores = resize_valid_part(scores, size, label_size, out_shape)
        return scores.argmax(0).astype(jnp.uint8)

    last_layer = (predictions.class_logits[-1], predictions.mask_logits[-1])
    return jax.lax.map(one, (*last_layer, batch.size, batch.label_size))


@functools.lru_cache(maxsize=4)
def _parallel_eval_step(model: MaskFormer) -> Callable[[Any, EvalBatch], tuple[Any, Any]]:
    """Lifts prediction and counting over all devices; cached, so that it compiles once a run."""

    def step(variables: Any, batch: EvalBatch) -> tuple[jax.Array, jax.Array]:
        prediction = predict_labels(model, variables, batch)
        counts = (batch.index >= 0)[:, None, None]
        label = jnp.where(counts, batch.label, VOID)
        confusion = confusion_matrix(prediction, label, model.num_classes)
        return jax.lax.psum(confusion, AXIS), prediction

    return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, 0))


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
      config: see `configs/base.py`; reads `data.num_classes`.
      observe: sees each batch with its predictions until it returns False.

    Returns:
      {name: int64 [K, K]}, rows are true classes, over all hosts. Void, padding and the examples
      that fill the last batch (index -1) are not counted.
    """
    step = _parallel_eval_step(model)
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
    return {
        "step": step,
        "dataset": config.data.name,
        "split": config.data.eval_split,
        **scores,
        "best": dict(best),
        "losses": dict(losses),
    }


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
