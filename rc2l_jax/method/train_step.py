"""One training step: the paper's Figure 2 from top to bottom.

`train_step` is a pure function of (state, batch) that runs on each device under axis `AXIS`;
`parallel_train_step` is the one place where it is lifted over devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from rc2l_jax.method import objective
from rc2l_jax.method.class_alignment import segment_counts, update_shares
from rc2l_jax.method.color import normalize
from rc2l_jax.method.optimizer import applied_steps, learning_rate_schedule
from rc2l_jax.method.segments import nearest_downsample
from rc2l_jax.method.state import ema_decay, ema_update
from rc2l_jax.method.step_metrics import nonfinite_terms, pseudo_label_metrics
from rc2l_jax.method.views import UnlabeledViews, labeled_view, step_keys, unlabeled_views
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.run.distributed import compiled_together
from rc2l_jax.structs import AXIS, Batch, Mean, Predictions, TrainState


def parallel_train_step(
    model: MaskFormer, optimizer: optax.GradientTransformation, config: ConfigDict
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Mean]]]:
    """Lifts `train_step` over all devices; the state is replicated, and donated.

    Returns:
      A function of the state and a batch whose leaves are [D, B/D, ...] (D local devices).
    """
    step = functools.partial(train_step, model=model, optimizer=optimizer, config=config)
    lifted = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0)
    return compiled_together(lifted)


def replicate(state: TrainState, num_devices: int | None = None) -> TrainState:
    """Puts a state on the first local devices just as the step returns it: one compilation less."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:num_devices]), (AXIS,))
    return jax.device_put(state, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: MaskFormer,
    optimizer: optax.GradientTransformation,
    config: ConfigDict,
) -> tuple[TrainState, dict[str, Mean]]:
    """One step on one device's share of the batch.

    Args:
      state: the same on every device.
      batch: [B, ...]; with no unlabelled images in it the step is the supervised one.
      model: the architecture of student and teacher.
      optimizer: over the student's parameters.
      config: see `configs/base.py`.

    Returns:
      The next state, and metrics as (sum, count) over all devices. A step with a non-finite loss
      or gradient changes nothing but the step number and `nonfinite_run`.
    """
    grads, (batch_stats, losses, metrics) = batch_gradients(state, batch, model, config)
    grads, losses = jax.lax.pmean((grads, losses), AXIS)
    metrics = jax.lax.psum(jax.tree.map(jnp.float32, metrics), AXIS)
    updated, updates = apply_gradients(state, grads, batch_stats, optimizer, config)
    rate = 1.0 - ema_decay(config.ema_decay, state.step)
    shares = update_shares(state.class_shares, metrics.pop("class_counts"), rate)
    updated = updated.replace(class_shares=shares)
    finite = jnp.isfinite(optax.global_norm(grads)) & jnp.isfinite(losses["total"])
    new_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
    run = jnp.where(finite, 0, state.nonfinite_run + 1)
    new_state = new_state.replace(step=state.step + 1, nonfinite_run=run)

    scalars = {f"loss/{name}": value for name, value in losses.items()} | {
        "grad_norm": optax.global_norm(grads),
        "update_norm": optax.global_norm(updates),
        "learning_rate": learning_rate_schedule(config)(applied_steps(state.opt_state)),
        "unsup_weight": objective.unsup_weight(state.step, config),
    }
    if "pseudo/classes" in metrics:
        classes_present = metrics.pop("pseudo/classes") > 0  # [K]
        scalars["pseudo/classes"] = classes_present.sum()
    metrics |= {k: (jnp.float32(v), jnp.ones(())) for k, v in scalars.items()}
    return new_state, _of_finite_steps(metrics, grads, finite)


def _of_finite_steps(
    metrics: dict[str, Mean], grads: Mapping[str, Any], finite: jax.Array
) -> dict[str, Mean]:
    """The step's metrics; one that is not finite says what was not, and counts in no mean."""
    means = jax.tree.map(lambda x: jnp.where(finite, x, 0.0), metrics)
    terms = {name: term for name, term in metrics.items() if name.startswith("loss/")}
    counts = nonfinite_terms(terms, grads)
    counts["nonfinite_steps"] = jnp.float32(~finite), jnp.ones(())
    return means | counts | {"match/nonfinite": metrics["match/nonfinite"]}


def batch_gradients(
    state: TrainState, batch: Batch, model: MaskFormer, config: ConfigDict
) -> tuple[Any, tuple[Any, dict[str, jax.Array], dict[str, Any]]]:
    """Gradients of `total_loss` on one device's batch, and what it returns besides.

    With `config.accumulate_steps` above 1 the batch is taken in so many parts, one after the other:
    gradients and losses are their means, metrics their sums. A part's losses are divided by its own
    counts, it mixes (CutMix) only its own images, and norm "batch" goes by its own statistics.
    """
    device, parts = jax.lax.axis_index(AXIS), config.accumulate_steps
    gradient = functools.partial(jax.grad(total_loss, has_aux=True), model=model, config=config)
    if parts == 1:
        return gradient(state.params, state, batch, device)

    def add(carry: tuple, inputs: tuple[jax.Array, Batch]) -> tuple[tuple, None]:
        batch_stats, sums = carry
        index, part = inputs
        now = state.replace(batch_stats=batch_stats)
        grads, (batch_stats, *rest) = gradient(state.params, now, part, device * parts + index)
        return (batch_stats, jax.tree.map(jnp.add, sums, (grads, *rest))), None

    divided = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch)
    first = jax.tree.map(lambda x: x[0], divided)
    grads, (_, *rest) = jax.eval_shape(gradient, state.params, state, first, device)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, *rest))
    carry = jax.lax.scan(add, (state.batch_stats, zeros), (jnp.arange(parts), divided))[0]
    batch_stats, (grads, losses, metrics) = carry
    grads, losses = jax.tree.map(lambda x: x / parts, (grads, losses))
    return grads, (batch_stats, losses, metrics)


def total_loss(
    params: Any,
    state: TrainState,
    batch: Batch,
    part: jax.Array,
    model: MaskFormer,
    config: ConfigDict,
) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array], dict[str, Any]]]:
    """Eq. 3 on one device's share of the batch, to be averaged over devices with `pmean`.

    Args:
      params: the student's.
      state: for everything else: teacher, batch statistics, step and key.
      batch: see `train_step`.
      part: which part of the global batch this is, see `views.step_keys`.
      model: the architecture.
      config: see `configs/base.py`.

    Returns:
      The loss, and (new batch statistics, losses by name, metrics to be summed over devices).
    """
    keys = step_keys(state, batch, part)
    labeled, target, label_dropped = labeled_view(batch, keys.color, config)
    images, num_labeled = labeled, labeled.shape[0]
    has_unlabeled = batch.unlabeled_image.shape[0] > 0
    if has_unlabeled:
        views = unlabeled_views(state, batch, keys, model, config)
        images = jnp.concatenate([labeled, views.strong])

    predictions, batch_stats = student_forward(model, params, state, images, keys.dropout)
    pairs = [(_images(predictions, slice(num_labeled)), target)]
    if has_unlabeled:
        on_strong = _images(predictions, slice(num_labeled, None))
        pairs.append((_unlabeled_layers(on_strong, config), views.segments))
    assignments, finite = objective.match_all(pairs, config)

    terms = objective.label_terms(*pairs[0], assignments[0], config)
    label_loss = objective.weighted_total(terms, objective.label_weights(config))  # Eq. 1
    metrics = _last_layer("loss/label", terms) | {
        "match/nonfinite": _mean_of(~finite),
        "label/dropped_segments": _mean_of(label_dropped),
    }
    labeled_counts = segment_counts(target, config.data.num_classes)
    teacher_counts = jnp.zeros_like(labeled_counts)
    unlabel_loss = jnp.zeros(())
    if has_unlabeled:
        terms = objective.unlabel_terms(*pairs[1], assignments[1], config)
        unlabel_loss = objective.weighted_total(terms, objective.unlabel_weights(config))  # Eq. 2
        teacher_counts = views.class_counts
        metrics |= _last_layer("loss/unlabel", terms) | _pseudo_metrics(views, batch, config)
    metrics["class_counts"] = jnp.stack([labeled_counts, teacher_counts])
    loss = label_loss + objective.unsup_weight(state.step, config) * unlabel_loss  # Eq. 3
    losses = {"total": loss, "label": label_loss, "unlabel": unlabel_loss}
    return loss, (batch_stats, losses, metrics)


def student_forward(
    model: MaskFormer, params: Any, state: TrainState, images: jax.Array, dropout: jax.Array
) -> tuple[Predictions, Any]:
    """The student on images [B, H, W, 3] (0..255), training; and its new batch statistics."""
    predictions, updated = model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        normalize(images),
        train=True,
        rngs={"dropout": dropout},
        mutable=["batch_stats"],
    )
    return predictions, updated.get("batch_stats", state.batch_stats)


def apply_gradients(
    state: TrainState,
    grads: Any,
    batch_stats: Any,
    optimizer: optax.GradientTransformation,
    config: ConfigDict,
) -> tuple[TrainState, Any]:
    """AdamW on the student, then Eq. 4 on the teacher. Returns the state and the updates."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = functools.partial(ema_update, decay=config.ema_decay, step=state.step)
    new_state = state.replace(
        params=params,
        batch_stats=batch_stats,
        teacher_params=ema(state.teacher_params, params),
        teacher_batch_stats=ema(state.teacher_batch_stats, batch_stats),
        opt_state=opt_state,
    )
    return new_state, updates


def _images(predictions: Predictions, images: slice) -> Predictions:
    return Predictions(
        class_logits=predictions.class_logits[:, images],
        mask_logits=predictions.mask_logits[:, images],
        pixel_features=predictions.pixel_features[images],
    )


def _unlabeled_layers(predictions: Predictions, config: ConfigDict) -> Predictions:
    """The layers on which the unlabelled losses act: all, or the last only."""
    first = 0 if config.unsup.deep_supervision else -1
    return predictions.replace(
        class_logits=predictions.class_logits[first:], mask_logits=predictions.mask_logits[first:]
    )


def _last_layer(prefix: str, terms: objective.Terms) -> dict[str, Mean]:
    """Terms as reported: of the last decoder layer, which is the one used at inference."""
    return {f"{prefix}_{k}": jax.tree.map(lambda x: x[-1], v) for k, v in terms.items()}


def _mean_of(values: jax.Array) -> Mean:
    return values.sum(), jnp.asarray(values.size)


def _pseudo_metrics(views: UnlabeledViews, batch: Batch, config: ConfigDict) -> dict[str, Any]:
    grid = views.weak_segments.known.shape[1:]
    metrics = pseudo_label_metrics(
        views.weak_segments,
        nearest_downsample(batch.unlabeled_label, grid),
        nearest_downsample(batch.unlabeled_valid, grid),
        num_classes=config.data.num_classes,
    )
    return metrics | {
        "pseudo/dropped_segments": _mean_of(views.dropped),
        "pseudo/classes": segment_counts(views.weak_segments, config.data.num_classes),
    }
