"""rc2l_jax/method/objective.py: each loss of Eq. 2 has its own weight and parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rc2l_jax.method import objective
from rc2l_jax.method.losses import region
from rc2l_jax.method.matching import matching_cost
from rc2l_jax.method.segments import merge_same_class
from rc2l_jax.structs import AXIS, Assignment, Predictions, Segments, gather_queries

# All values differ, so that no mix-up goes unnoticed.
WEIGHTS = {"rcc": 2.0, "smc": 3.0, "rmc": 5.0, "rfc": 7.0, "consistency": 11.0}
MASK_LOSS = {"focal_weight": 1.5, "dice_weight": 0.4, "focal_alpha": 0.3, "focal_gamma": 1.0}


def drawn() -> tuple[Predictions, Segments, Assignment]:
    """Random predictions of one layer, six queries and two images, each with three segments."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    predictions = Predictions(normal(1, 2, 6, 4), normal(1, 2, 6, 8, 8), normal(2, 8, 8, 5), None)
    masks = rng.integers(-1, 3, (2, 1, 8, 8)) == np.arange(3)[:, None, None]
    classes = jnp.asarray([[0, 1, 1], [2, 0, 1]], jnp.int32)
    full = np.ones((2, 3), bool)
    segments = Segments(classes, masks, full, full.astype(np.float32), masks.any(1))
    query = np.array([[[0, 3, 5], [1, 2, 4]]], np.int32)
    return predictions, segments, Assignment(query, np.ones((1, 2, 3), bool))


def test_costs_of_one_layer_and_image_at_a_time_are_those_of_all_at_once():
    """CPUs compute one at a time, all other devices all at once."""
    config = tiny.config()
    predictions, segments, _ = drawn()
    predictions = jax.tree.map(lambda x: jnp.concatenate([x, 0.5 * x, -x]), predictions)
    known = np.arange(8) < np.array([[[5]], [[8]]])  # the first image has unknown pixels
    segments = segments.replace(known=np.broadcast_to(known, (2, 8, 8)))

    def costs(predictions: Predictions) -> jax.Array:
        return objective.layer_costs(predictions, segments, config)

    expected = objective.split_layers(
        matching_cost(
            objective.merge_layers(predictions.class_logits),
            objective.merge_layers(predictions.mask_logits),
            segments,
            **config.match,
            focal_alpha=config.loss.focal_alpha,
            focal_gamma=config.loss.focal_gamma,
        ),
        3,
    )
    assert expected.shape == (3, 2, 6, 3)
    np.testing.assert_allclose(jax.jit(costs)(predictions), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("union", "denominator", "no_object", "normalizer"),
    [("normalized", "with_positive", True, "segments"), ("max", "paper", False, "images")],
)
def test_each_term_of_eq_2_has_its_own_numbers(union, denominator, no_object, normalizer):
    config = tiny.config(
        **{f"unsup__{name}_weight": weight for name, weight in WEIGHTS.items()},
        unsup__rmc_temperature=0.3,
        unsup__rfc_temperature=0.6,
        unsup__focal_weight=MASK_LOSS["focal_weight"],
        unsup__dice_weight=MASK_LOSS["dice_weight"],
        unsup__union=union,
        unsup__normalizer=normalizer,
        unsup__contrast_denominator=denominator,
        unsup__rcc_no_object=no_object,
        loss__no_object_weight=0.2,
        loss__focal_alpha=MASK_LOSS["focal_alpha"],
        loss__focal_gamma=MASK_LOSS["focal_gamma"],
    )
    predictions, segments, assignment = drawn()

    def total(predictions: Predictions) -> jax.Array:
        terms = objective.unlabel_terms(predictions, segments, assignment, config)
        return objective.weighted_total(terms, objective.unlabel_weights(config))

    (got,) = jax.pmap(total, axis_name=AXIS)(jax.tree.map(lambda x: x[None], predictions))

    classes, masks = predictions.class_logits[0], predictions.mask_logits[0]
    first = jax.tree.map(lambda x: x[0], assignment)
    matched = gather_queries(masks, first)
    contrast = {"denominator": denominator}
    terms = {
        "rcc": region.region_class_consistency(
            classes, masks, segments, first, no_object_weight=0.2 * no_object
        ),
        "smc": region.semantic_mask_consistency(
            classes, masks, merge_same_class(segments), union=union, **MASK_LOSS
        ),
        "rmc": region.region_mask_contrast(matched, segments, first, temperature=0.3, **contrast),
        "rfc": region.region_feature_contrast(
            matched, predictions.pixel_features, segments, first, temperature=0.6, **contrast
        ),
        "consistency": region.mask_consistency(matched, segments, first, **MASK_LOSS),
    }
    if normalizer == "images":  # as printed: a sum over the segments of each of two images
        terms = {name: (value, 2) for name, (value, _) in terms.items()}
    expected = sum(WEIGHTS[name] * value / count for name, (value, count) in terms.items())
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_pairs_with_unequal_slots_are_matched_as_alone():
    """Images of one kind may have more slots and more layers than those of the other."""
    predictions, segments, _ = drawn()
    config = tiny.config(matcher="host")
    two_layers = jax.tree.map(lambda x: jnp.concatenate([x, x[::-1] * 2]), predictions)
    two_layers = two_layers.replace(pixel_features=predictions.pixel_features)
    fewer = jax.tree.map(lambda x: x[:, :2], segments.replace(known=None))
    fewer = fewer.replace(known=segments.known)
    pairs = [(two_layers, fewer), (predictions, segments)]
    together, finite = objective.match_all(pairs, config)
    assert finite.shape == (2 * 2 + 2,) and finite.all()
    for pair, found in zip(pairs, together):
        (alone,), _ = objective.match_all([pair], config)
        assert found.query.shape == (*pair[0].class_logits.shape[:2], pair[1].valid.shape[1])
        jax.tree.map(np.testing.assert_array_equal, found, alone)
