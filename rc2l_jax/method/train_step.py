"""One training step: the paper's Figure 2, from left to right in `total_loss`.

`train_step` is a pure function of (state, batch). It runs on every device under the pmap axis
`AXIS`; `training/devices.py` applies pmap.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rc2l_jax.method import objective, step_metrics
from rc2l_jax.method.class_alignment import class_counts, update_shares
from rc2l_jax.method.class_prototypes import prototype_sums
from rc2l_jax.method.keys import Keys, step_keys
from rc2l_jax.method.moving_average import update_average
from rc2l_jax.method.optimizer import applied_steps, global_norm, learning_rate_schedule
from rc2l_jax.method.state import learned
from rc2l_jax.method.teacher import ema_decay, ema_update, teacher_segments
from rc2l_jax.method.views import labeled_view, strong_view, weak_view
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.models.pixels import normalize
from rc2l_jax.structs import AXIS, Batch, Mean, Predictions, TrainState


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
      params: the student's parameters that are learned; a frozen backbone is in `state`.
      state: supplies everything else: teacher, batch statistics, what is known of the classes, step
        and key.
      batch: this device's images [B, ...], or the part of them that is taken at a time.
      part: int32 [], which of the `accumulate_steps` parts of this device's share it is, from which
        the random keys follow (see `keys.step_keys`).
      model: the architecture of student and teacher.
      config: the run's, with the keys of `configs/base.py`.

    Returns:
      The loss, and (new batch statistics, losses by name, metrics to be summed over devices).
    """
    keys = step_keys(state, batch, part, config.accumulate_steps)
    labeled, truth = labeled_view(batch, keys, config)  # z^gt
    images, targets, pseudo = [labeled], [truth], None
    if batch.unlabeled_image.shape[0]:  # there are none in supervised training
        weak = weak_view(batch, keys, config)  # x^w
        pseudo = teacher_segments(state, weak, batch.unlabeled_valid, model, config)  # z^t
        strong, target = strong_view(batch, weak, pseudo.segments, keys, config)  # x^s, by CutMix
        images.append(strong)
        targets.append(target)

    student = {**state.params, **params}
    predictions, batch_stats = student_forward(model, student, state, images, keys, config)
    pairs = [(on, target.segments) for on, target in zip(predictions, targets)]
    assignments, finite = objective.match_all(pairs, config)

    label_loss, label_terms = objective.label_loss(*pairs[0], assignments[0], config)  # Eq. 1
    unlabel_loss, unlabel_terms = jnp.zeros(()), {}
    if pseudo is not None:
        # Eq. 2
        unlabel_loss, unlabel_terms = objective.unlabel_loss(*pairs[1], assignments[1], config)
    loss = label_loss + objective.unsup_weight(state.step, config) * unlabel_loss  # Eq. 3

    losses = {"total": loss, "label": label_loss, "unlabel": unlabel_loss}
    metrics = step_metrics.of_terms("loss/label", label_terms)
    metrics |= step_metrics.of_matching(finite) | step_metrics.of_labeled(truth)
    named, scores = None, jnp.zeros_like(state.class_scores)
    if pseudo is not None:
        metrics |= step_metrics.of_terms("loss/unlabel", unlabel_terms)
        metrics |= step_metrics.of_unlabeled(pseudo, target, batch, config.data.num_classes)
        named, scores = pseudo.class_counts, pseudo.class_scores
    counts = class_counts(truth.segments, named, config.data.num_classes)
    metrics["classes"] = {"counts": counts, "scores": scores}
    if config.pseudo.prototype_check:
        features, prototypes = predictions[0].backbone_features, state.class_prototypes
        sums = prototype_sums(features, truth.segments, prototypes)
        metrics["classes"]["prototypes"] = sums
    return loss, (batch_stats, losses, metrics)


@jax.named_scope("student_forward")
def student_forward(
    model: MaskFormer,
    params: Any,
    state: TrainState,
    images: list[jax.Array],
    keys: Keys,
    config: ConfigDict,
) -> tuple[list[Predictions], Any]:
    """Runs the student in training mode on the labelled images and, if given, the strong views.

    Args:
      model: the architecture.
      params: the student's parameters.
      state: supplies its batch statistics.
      images: the labelled images and the strong views, [B, H, W, 3] in 0..255 each.
      keys: the random keys of the step.
      config: the run's; `unsup.deep_supervision` is read.

    Returns:
      Its predictions on each, and its new batch statistics. Those on the strong views are the last
      decoder layer's only, on which the unlabelled losses act, unless `unsup.deep_supervision`.
    """
    every_layer = (True, config.unsup.deep_supervision)
    predictions, updated = model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        normalize(jnp.concatenate(images)),
        [(len(x), layers) for x, layers in zip(images, every_layer)],
        train=True,
        positions=keys.positions,
        rngs={"dropout": keys.dropout},
        mutable=["batch_stats"],
        method="predict_groups",
    )
    return predictions, updated.get("batch_stats", state.batch_stats)


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
      batch: this device's images [B, ...]. Without unlabelled images the step is supervised only.
      model: the architecture of student and teacher.
      optimizer: for the student's parameters.
      config: the run's, with the keys of `configs/base.py`.

    Returns:
      The next state, and metrics as (sum, count) over all devices. A step with a non-finite loss
      or gradient changes only the step number and `nonfinite_run`.
    """
    grads, (batch_stats, losses, metrics) = batch_gradients(state, batch, model, config)
    grads, losses = jax.lax.pmean((grads, losses), AXIS)
    metrics = jax.lax.psum(jax.tree.map(jnp.float32, metrics), AXIS)
    norms = {module: global_norm(tree) for module, tree in grads.items()}
    grad_norm = global_norm(norms)
    finite = jnp.isfinite(grad_norm) & jnp.isfinite(losses["total"])
    update = functools.partial(update_if_finite, optimizer=optimizer, config=config)
    trained = state.replace(params=learned(state.params, config))
    # Parameters, moments and gradients are updated as vectors: XLA compiles one kernel for all
    # vectors of a length, and fuses more of them. Not on a TPU, where making vectors of matrices
    # rearranges them in memory.
    new_state, update_norm = jax.lax.platform_dependent(
        *(finite, trained, grads, batch_stats, metrics.pop("classes"), grad_norm),
        tpu=update,
        default=functools.partial(_on_vectors, update),
    )
    run = jnp.where(finite, 0, state.nonfinite_run + 1)
    params = {**state.params, **new_state.params}
    new_state = new_state.replace(step=state.step + 1, params=params, nonfinite_run=run)

    scalars = {f"loss/{name}": value for name, value in losses.items()} | {
        "grad_norm": grad_norm,
        "update_norm": update_norm,
        "learning_rate": learning_rate_schedule(config)(applied_steps(state.opt_state)),
        "unsup_weight": objective.unsup_weight(state.step, config),
    }
    return new_state, step_metrics.of_finite_steps(metrics, scalars, norms, finite)


def batch_gradients(
    state: TrainState, batch: Batch, model: MaskFormer, config: ConfigDict
) -> tuple[Any, tuple[Any, dict[str, jax.Array], dict[str, Any]]]:
    """Gradients of `total_loss` on one device's batch, and the function's other results.

    With `config.accumulate_steps` above 1 the batch is processed in that many parts, one after the
    other. Gradients and losses are then averaged over the parts, and metrics added up. The same
    part of all devices together is treated as a batch: its losses are divided by its own counts,
    CutMix mixes its images only among themselves, and norm "batch" uses its statistics. A part has
    every `accumulate_steps`-th image, so that its images do not depend on the number of devices.
    """
    parts = config.accumulate_steps
    gradient = functools.partial(jax.grad(total_loss, has_aux=True), model=model, config=config)
    params = learned(state.params, config)
    if parts == 1:
        return gradient(params, state, batch, 0)

    def add(carry: tuple, inputs: tuple[jax.Array, Batch]) -> tuple[tuple, None]:
        batch_stats, sums = carry
        index, part = inputs
        now = state.replace(batch_stats=batch_stats)
        grads, (batch_stats, *rest) = gradient(params, now, part, index)
        return (batch_stats, jax.tree.map(jnp.add, sums, (grads, *rest))), None

    divided = jax.tree.map(
        lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )
    first = jax.tree.map(lambda x: x[0], divided)
    grads, (_, *rest) = jax.eval_shape(gradient, params, state, first, 0)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, *rest))
    carry = jax.lax.scan(add, (state.batch_stats, zeros), (jnp.arange(parts), divided))[0]
    batch_stats, (grads, losses, metrics) = carry
    grads, losses = jax.tree.map(lambda x: x / parts, (grads, losses))
    return grads, (batch_stats, losses, metrics)


def update_if_finite(
    finite: jax.Array,
    state: TrainState,
    *given: Any,
    optimizer: optax.GradientTransformationExtraArgs,
    config: ConfigDict,
) -> tuple[TrainState, jax.Array]:
    """`updated_state` of the other arguments; or, if not `finite`, the state as it was, and 0."""
    # A branch instead of a `where` for each leaf. With `where`, XLA computes scalars (norms, rates,
    # the decay) again inside the update of every leaf, and compiles them with it.
    return jax.lax.cond(
        finite,
        functools.partial(updated_state, optimizer=optimizer, config=config),
        lambda state, *_: (state, jnp.zeros(())),
        state,
        *given,
    )


@jax.named_scope("updated_state")
def updated_state(
    state: TrainState,
    grads: Any,
    batch_stats: Any,
    classes: dict[str, Any],
    grad_norm: jax.Array,
    *,
    optimizer: optax.GradientTransformationExtraArgs,
    config: ConfigDict,
) -> tuple[TrainState, jax.Array]:
    """AdamW on the student, then Eq. 4 on the teacher. Returns the state and the update's norm.

    The step number is left as it was.

    Args:
      state: before the step, with the learned parameters only.
      grads: mean over all devices, a tree like `state.params`.
      batch_stats: the student's new batch statistics.
      classes: summed over all devices: "counts" from `class_alignment.class_counts`, "scores" from
        `class_thresholds.score_sums` and, with `pseudo.prototype_check`, "prototypes" from
        `class_prototypes.prototype_sums`.
      grad_norm: norm of `grads`, by which the optimiser clips.
      optimizer: for the student's parameters.
      config: the run's, with the keys of `configs/base.py`.
    """
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, norm=grad_norm)
    params = optax.apply_updates(state.params, updates)
    ema = functools.partial(ema_update, decay=config.ema_decay, step=state.step)
    rate = 1.0 - ema_decay(config.ema_decay, state.step)
    teacher_batch_stats = state.teacher_batch_stats
    if config.model.norm == "batch":  # the others' are constants
        teacher_batch_stats = ema(teacher_batch_stats, batch_stats)
    new_state = state.replace(
        params=params,
        batch_stats=batch_stats,
        teacher_params=ema(state.teacher_params, params),
        teacher_batch_stats=teacher_batch_stats,
        opt_state=opt_state,
        class_shares=update_shares(state.class_shares, classes["counts"], rate),
        class_scores=update_average(state.class_scores, classes["scores"], rate),
    )
    if "prototypes" in classes:
        prototypes = update_average(state.class_prototypes, classes["prototypes"], rate)
        new_state = new_state.replace(class_prototypes=prototypes)
    return new_state, global_norm(updates)


def _on_vectors(
    update: Callable[..., tuple[TrainState, jax.Array]],
    finite: jax.Array,
    state: TrainState,
    grads: Any,
    *given: Any,
) -> tuple[TrainState, jax.Array]:
    """Calls `update` with parameters, moments and gradients as vectors."""

    def raveled(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(-1) if x.ndim > 1 else x, tree)

    names = ("params", "teacher_params", "opt_state")
    vectors = state.replace(**{name: raveled(getattr(state, name)) for name in names})
    new_state, norm_of_update = update(finite, vectors, raveled(grads), *given)
    reshaped = jax.tree.map(lambda new, old: new.reshape(old.shape), new_state, state)
    return reshaped, norm_of_update
