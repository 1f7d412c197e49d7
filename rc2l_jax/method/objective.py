"""Matching and the weighted losses of one step: Eqs. 1-3 with the numbers of the config."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rc2l_jax.method.losses import region
from rc2l_jax.method.losses.supervised import supervised_loss
from rc2l_jax.method.matching import assign, matching_cost
from rc2l_jax.method.segments import at_mask_grid, merge_same_class
from rc2l_jax.structs import (
    AXIS,
    Assignment,
    Mean,
    Predictions,
    Segments,
    gather_queries,
    merge_layers,
    split_layers,
)

# Loss terms by name, each as (sum [L], count [L]) over the decoder layers.
Terms = dict[str, Mean]


@jax.named_scope("match_all")
def match_all(
    pairs: list[tuple[Predictions, Segments]], config: ConfigDict
) -> tuple[list[Assignment], jax.Array]:
    """Matches every decoder layer and image of the step in one call of the matcher.

    Args:
      pairs: predictions [L, B, N, ...] and the segments [B, M, ...] to match them to; L and B
        may differ between the pairs.
      config: the run's; its cost weights, focal parameters and `matcher` are used.

    Returns:
      An assignment [L, B, M] for each pair; and bool [G], whether each of the G cost matrices (all
      layers and images of all pairs) was finite.
    """
    slots = max(segments.valid.shape[1] for _, segments in pairs)

    def fold(xs: list[jax.Array]) -> jax.Array:
        """Stacks [L, B, ..., M] to [G, ..., slots]; the slots added are empty."""
        return jnp.concatenate([_padded(x.reshape(-1, *x.shape[2:]), slots) for x in xs])

    costs = [layer_costs(predictions, segments, config) for predictions, segments in pairs]
    valid = [
        jnp.broadcast_to(s.valid, c.shape[:2] + s.valid.shape[1:])
        for c, (_, s) in zip(costs, pairs)
    ]
    assignment, finite = assign(fold(costs), fold(valid), matcher=config.matcher)
    assignments, start = [], 0
    for layers, images, _, own_slots in (cost.shape for cost in costs):
        assignments.append(_part(assignment, start, (layers, images, own_slots)))
        start += layers * images
    return assignments, finite


def _padded(x: jax.Array, slots: int) -> jax.Array:
    return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, slots - x.shape[-1]),))


def _part(assignment: Assignment, start: int, shape: tuple[int, int, int]) -> Assignment:
    """The assignment [L, B, M] = `shape` of the cost matrices from number `start` on."""
    layers, images, slots = shape
    rows = slice(start, start + layers * images)
    return jax.tree.map(lambda x: x[rows, :slots].reshape(shape), assignment)


def layer_costs(predictions: Predictions, segments: Segments, config: ConfigDict) -> jax.Array:
    """Cost matrices of all layers and images: float32 [L, B, N, M].

    Args:
      predictions: of L layers on B images; their classes and masks are compared.
      segments: to which every layer is compared, with masks [B, M, H, W] or [B, M, h, w].
      config: the run's; its cost weights and focal parameters are used.
    """
    targets = at_mask_grid(segments, predictions.mask_logits.shape[-2:])
    given = predictions.class_logits, predictions.mask_logits, targets
    given = jax.lax.stop_gradient(jax.tree.map(jnp.asarray, given))
    cost = functools.partial(
        matching_cost,
        class_weight=config.match.class_weight,
        focal_weight=config.match.focal_weight,
        dice_weight=config.match.dice_weight,
        focal_alpha=config.loss.focal_alpha,
        focal_gamma=config.loss.focal_gamma,
    )

    def at_once(classes: jax.Array, masks: jax.Array, targets: Segments) -> jax.Array:
        return split_layers(cost(merge_layers(classes), merge_layers(masks), targets), len(classes))

    def one_by_one(classes: jax.Array, masks: jax.Array, targets: Segments) -> jax.Array:
        layers, images = classes.shape[:2]

        def one(index: jax.Array) -> jax.Array:
            layer, image = index // images, index % images
            of_image = jax.tree.map(lambda x: x[image, None], targets)
            return cost(classes[layer, image, None], masks[layer, image, None], of_image)[0]

        each = jax.lax.map(one, jnp.arange(layers * images))
        return each.reshape(layers, images, *each.shape[1:])

    # The maps of all pixels' costs stay in a CPU's cache for one layer of one image. All at once
    # they are several arrays of the size of all mask logits, and writing them takes most of the
    # time.
    return jax.lax.platform_dependent(*given, cpu=one_by_one, default=at_once)


@jax.named_scope("label_loss")
def label_loss(
    predictions: Predictions, segments: Segments, assignment: Assignment, config: ConfigDict
) -> tuple[jax.Array, Terms]:
    """Eq. 1 on this device, to be averaged over devices (`weighted_total`), and its terms."""
    terms = label_terms(predictions, segments, assignment, config)
    loss = weighted_total(terms, {"class": config.loss.class_weight, "mask": 1.0})
    return loss, {name: terms[name] for name in ("class", "focal", "dice")}


def label_terms(
    predictions: Predictions, segments: Segments, assignment: Assignment, config: ConfigDict
) -> Terms:
    """The terms of Eq. 1, on every decoder layer (MaskFormer's deep supervision)."""
    return supervised_loss(
        predictions.class_logits,
        predictions.mask_logits,
        segments,
        assignment,
        no_object_weight=config.loss.no_object_weight,
        focal_weight=config.loss.focal_weight,
        dice_weight=config.loss.dice_weight,
        focal_alpha=config.loss.focal_alpha,
        focal_gamma=config.loss.focal_gamma,
        gradient_dtype=config.dtype,
    )


@jax.named_scope("unlabel_loss")
def unlabel_loss(
    predictions: Predictions, segments: Segments, assignment: Assignment, config: ConfigDict
) -> tuple[jax.Array, Terms]:
    """Eq. 2 on this device, to be averaged over devices (`weighted_total`), and its terms."""
    terms = unlabel_terms(predictions, segments, assignment, config)
    return weighted_total(terms, unlabel_weights(config)), terms


def unlabel_terms(
    predictions: Predictions, segments: Segments, assignment: Assignment, config: ConfigDict
) -> Terms:
    """The terms of Eq. 2 whose weight is not 0, on every decoder layer of `predictions`.

    Their counts are those of `unsup.normalizer`.
    """
    semantic = merge_same_class(segments)
    weights = unlabel_weights(config)

    def layer(args: tuple[jax.Array, jax.Array, Assignment]) -> Terms:
        terms = _region_terms(*args, predictions.pixel_features, segments, semantic, config)
        found = {name: term() for name, term in terms.items() if weights[name]}
        if config.unsup.normalizer == "images":
            count = jnp.float32(len(segments.valid))
            found = {name: (total, count) for name, (total, _) in found.items()}
        return found

    layers = predictions.class_logits, predictions.mask_logits, assignment
    if len(predictions.class_logits) > 1:
        return jax.lax.map(layer, layers)
    only = layer(jax.tree.map(lambda x: x[0], layers))  # without a loop's copies
    return jax.tree.map(lambda x: x[None], only)


def _region_terms(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    assignment: Assignment,
    pixel_features: jax.Array,
    segments: Segments,
    semantic: Segments,
    config: ConfigDict,
) -> dict:
    """Functions that compute the terms of one layer, so that those of weight 0 need not be."""
    unsup = config.unsup
    matched = gather_queries(mask_logits, assignment)  # once, so that its gradient is one scatter
    mask_loss = {
        "focal_weight": unsup.focal_weight,
        "dice_weight": unsup.dice_weight,
        "focal_alpha": config.loss.focal_alpha,
        "focal_gamma": config.loss.focal_gamma,
    }
    return {
        "rcc": lambda: region.region_class_consistency(
            class_logits,
            mask_logits,
            segments,
            assignment,
            no_object_weight=config.loss.no_object_weight * unsup.rcc_no_object,
        ),
        "smc": lambda: region.semantic_mask_consistency(
            class_logits, mask_logits, semantic, union=unsup.union, **mask_loss
        ),
        "rmc": lambda: region.region_mask_contrast(
            matched,
            segments,
            assignment,
            temperature=unsup.rmc_temperature,
            denominator=unsup.contrast_denominator,
        ),
        "rfc": lambda: region.region_feature_contrast(
            matched,
            pixel_features,
            segments,
            assignment,
            temperature=unsup.rfc_temperature,
            denominator=unsup.contrast_denominator,
        ),
        "consistency": lambda: region.mask_consistency(matched, segments, assignment, **mask_loss),
    }


def unlabel_weights(config: ConfigDict) -> dict[str, float]:
    """beta_1 to beta_4 of Eq. 2, and beta_0 of the consistency baseline."""
    names = ("rcc", "smc", "rmc", "rfc", "consistency")
    return {name: config.unsup[f"{name}_weight"] for name in names}


def unsup_weight(step: jax.Array, config: ConfigDict) -> jax.Array:
    """alpha of Eq. 3 at a step: 0 before `unsup_start_step`, then a ramp to `unsup_weight`."""
    since = step.astype(jnp.float32) - config.unsup_start_step + 1.0
    return config.unsup_weight * jnp.clip(since / max(config.unsup_ramp_steps, 1), 0.0, 1.0)


def weighted_total(terms: Terms, weights: dict[str, float]) -> jax.Array:
    """Weighted sum, over all layers, of the terms that have a weight, to be averaged with `pmean`.

    Each term is divided by its mean count over all devices and hosts. After the average it is its
    total sum divided by its total count, as MaskFormer divides by the number of masks: one device
    with 8 images gives the same as eight devices with 1 each.
    """
    total = jnp.zeros(())
    for name, (value, count) in terms.items():
        if name not in weights:
            continue
        count = jax.lax.pmean(jax.lax.stop_gradient(count), AXIS)
        total += weights[name] * (value / jnp.where(count > 0, count, 1.0)).sum()
    return total
