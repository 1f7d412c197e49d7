"""rc2l_jax/method/losses/region.py: values and gradients against Eqs. 5-10 in torch; invariants.

The equations are written out as loops, in double precision.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from rc2l_jax.method.losses import region
from rc2l_jax.method.segments import merge_same_class
from rc2l_jax.structs import Assignment, Segments, gather_queries

NUM_CLASSES, NUM_QUERIES, NUM_SLOTS, WIDTH, GRID = 3, 6, 4, 5, (6, 7)
TAU = 0.3
MASK_LOSS = {"focal_weight": 2.0, "dice_weight": 0.7, "focal_alpha": 0.25, "focal_gamma": 2.0}
NO_OBJECT_WEIGHT = 0.1
# The upper limit of a union. In float32 its distance to 1 is 1 % off from 1e-6.
ALMOST_ONE = float(np.float32(1 - 1e-6))


# --- The losses under test: every variant of every term, as functions of one signature. ---


def _masks_of(x, assignment):
    return gather_queries(x["masks"], assignment)


def _rmc(x, segments, assignment, denominator):
    return region.region_mask_contrast(
        _masks_of(x, assignment), segments, assignment, temperature=TAU, denominator=denominator
    )


def _rfc(x, segments, assignment, denominator):
    return region.region_feature_contrast(
        _masks_of(x, assignment),
        x["features"],
        segments,
        assignment,
        temperature=TAU,
        denominator=denominator,
    )


def _rcc(x, segments, assignment, no_object_weight):
    return region.region_class_consistency(
        x["classes"], x["masks"], segments, assignment, no_object_weight=no_object_weight
    )


def _smc(x, segments, assignment, union):
    del assignment  # Eq. 10 needs no matching
    return region.semantic_mask_consistency(
        x["classes"], x["masks"], merge_same_class(segments), union=union, **MASK_LOSS
    )


def _consistency(x, segments, assignment):
    return region.mask_consistency(_masks_of(x, assignment), segments, assignment, **MASK_LOSS)


TERMS = {
    "rmc_paper": functools.partial(_rmc, denominator="paper"),
    "rmc_with_positive": functools.partial(_rmc, denominator="with_positive"),
    "rfc_paper": functools.partial(_rfc, denominator="paper"),
    "rfc_with_positive": functools.partial(_rfc, denominator="with_positive"),
    "rcc": functools.partial(_rcc, no_object_weight=0.0),
    "rcc_no_object": functools.partial(_rcc, no_object_weight=NO_OBJECT_WEIGHT),
    "smc_semantic": functools.partial(_smc, union="semantic"),
    "smc_normalized": functools.partial(_smc, union="normalized"),
    "smc_max": functools.partial(_smc, union="max"),
    "consistency": _consistency,
}
CONTRASTS = [name for name in TERMS if name.startswith(("rmc", "rfc"))]


@jax.jit
def every_term(x, segments, assignment):
    """{name: (sum, count, gradient of the sum)}; one compilation serves all tests."""
    results = {}
    for name, term in TERMS.items():
        (value, count), grads = jax.value_and_grad(
            lambda x, term=term: _sum_first(term(x, segments, assignment)), has_aux=True
        )(x)
        results[name] = (value, count, grads)
    return results


def _sum_first(mean):
    return mean[0], mean[1]


# --- Equations 5 to 10, one image and one segment after another. ---


def _matched(segments, assignment, image):
    """[(slot, query)] of the image's valid and matched segments: the matching sigma."""
    return [
        (m, int(assignment.query[image, m]))
        for m in range(NUM_SLOTS)
        if segments.valid[image, m] and assignment.matched[image, m]
    ]


def _valid_count(segments):
    return float(np.sum(segments.valid))


def _contrast_reference(similarity, pairs, with_positive):
    """Sum over an image's matched i of -log(exp(s_ii / tau) / sum_j exp(s_ji / tau))."""
    total = torch.zeros((), dtype=torch.float64)
    if len(pairs) < 2:
        return total
    for i, own in pairs:
        rows = [query for _, query in pairs if with_positive or query != own]
        denominator = sum(torch.exp(similarity(query, i) / TAU) for query in rows)
        total = total - torch.log(torch.exp(similarity(own, i) / TAU) / denominator)
    return total


def _target(segments, image, slot):
    return torch.tensor(np.asarray(segments.masks[image, slot]), dtype=torch.float64)


def rmc_reference(x, segments, assignment, with_positive):
    total = torch.zeros((), dtype=torch.float64)
    for b in range(len(segments.valid)):
        known = torch.tensor(segments.known[b])

        def dice(query, slot, b=b, known=known):
            student = torch.sigmoid(x["masks"][b, query])[known]
            target = _target(segments, b, slot)[known]
            return 2 * (student * target).sum() / (student.sum() + target.sum())

        total = total + _contrast_reference(dice, _matched(segments, assignment, b), with_positive)
    return total, _valid_count(segments)


def rfc_reference(x, segments, assignment, with_positive):
    total = torch.zeros((), dtype=torch.float64)
    for b in range(len(segments.valid)):
        known = torch.tensor(segments.known[b])
        features = x["features"][b][known]  # [pixels, C]

        def pooled(mask, features=features, known=known):
            weights = mask[known][:, None]
            return (weights * features).sum(0) / weights.sum()

        def cosine(query, slot, b=b, pooled=pooled):
            r_s, r_t = (
                pooled(torch.sigmoid(x["masks"][b, query])),
                pooled(_target(segments, b, slot)),
            )
            return (r_s @ r_t) / (r_s.norm() * r_t.norm())

        total = total + _contrast_reference(
            cosine, _matched(segments, assignment, b), with_positive
        )
    return total, _valid_count(segments)


def rcc_reference(x, segments, assignment, no_object_weight):
    total, count = torch.zeros((), dtype=torch.float64), 0.0
    for b in range(len(segments.valid)):
        pairs = _matched(segments, assignment, b)
        p = torch.softmax(x["classes"][b], -1)
        for slot, query in pairs:
            total = total - torch.log(p[query, int(segments.classes[b, slot])])
            count += 1.0
        known = torch.tensor(segments.known[b])
        for query in set(range(NUM_QUERIES)) - {query for _, query in pairs}:
            mask = torch.sigmoid(x["masks"][b, query]).detach()
            weight = no_object_weight * float(mask[known].sum() / mask.sum())
            total = total - weight * torch.log(p[query, NUM_CLASSES])
            count += weight
    return total, count


def _l_mask(p, target, known):
    """Weighted sum of focal loss (mean over known pixels) and dice loss, of probabilities."""
    p, t = p[known], target[known]
    per_pixel = -0.25 * t * (1 - p) ** 2 * torch.log(p) - 0.75 * (1 - t) * p**2 * torch.log(1 - p)
    dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    return MASK_LOSS["focal_weight"] * per_pixel.mean() + MASK_LOSS["dice_weight"] * dice


def smc_reference(x, segments, union):
    total, count = torch.zeros((), dtype=torch.float64), 0.0
    for b in range(len(segments.valid)):
        known = torch.tensor(segments.known[b])
        p, masks = torch.softmax(x["classes"][b], -1), torch.sigmoid(x["masks"][b])
        slots = [m for m in range(NUM_SLOTS) if segments.valid[b, m]]
        for c in {int(segments.classes[b, m]) for m in slots}:
            target = sum(_target(segments, b, m) for m in slots if segments.classes[b, m] == c)
            student = torch.zeros(GRID, dtype=torch.float64)
            of_any = torch.zeros(GRID, dtype=torch.float64)
            for query in range(NUM_QUERIES):
                if union in ("semantic", "normalized"):
                    student = student + p[query, c] * masks[query]
                    of_any = of_any + (1 - p[query, -1]) * masks[query]
                elif int(p[query].argmax()) == c:
                    student = torch.maximum(student, masks[query])
            if union == "normalized":
                student = student / of_any.clamp(min=1.0)
            total = total + _l_mask(student.clamp(1e-6, ALMOST_ONE), target, known)
            count += 1.0
    return total, count


def consistency_reference(x, segments, assignment):
    total = torch.zeros((), dtype=torch.float64)
    for b in range(len(segments.valid)):
        known = torch.tensor(segments.known[b])
        for slot, query in _matched(segments, assignment, b):
            mask = torch.sigmoid(x["masks"][b, query])
            total = total + _l_mask(mask, _target(segments, b, slot), known)
    return total, _valid_count(segments)


REFERENCES = {
    "rmc_paper": lambda *a: rmc_reference(*a, with_positive=False),
    "rmc_with_positive": lambda *a: rmc_reference(*a, with_positive=True),
    "rfc_paper": lambda *a: rfc_reference(*a, with_positive=False),
    "rfc_with_positive": lambda *a: rfc_reference(*a, with_positive=True),
    "rcc": lambda *a: rcc_reference(*a, no_object_weight=0.0),
    "rcc_no_object": lambda *a: rcc_reference(*a, no_object_weight=NO_OBJECT_WEIGHT),
    "smc_semantic": lambda x, s, a: smc_reference(x, s, "semantic"),
    "smc_normalized": lambda x, s, a: smc_reference(x, s, "normalized"),
    "smc_max": lambda x, s, a: smc_reference(x, s, "max"),
    "consistency": consistency_reference,
}


# --- Inputs: four images with 4 (two of one class, one unmatched), 2, 1 and 0 segments. ---

VALID = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
MATCHED = np.array([[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
QUERY = np.array([[2, 5, 0, 1], [0, 3, 0, 4], [0, 0, 2, 0], [0, 0, 0, 0]], np.int32)
CLASSES = np.array([[0, 2, 1, 2], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]], np.int32)


def random_inputs(seed=0):
    rng = np.random.default_rng(seed)
    batch = len(VALID)
    x = {
        "classes": rng.normal(size=(batch, NUM_QUERIES, NUM_CLASSES + 1)).astype(np.float32) * 2,
        "masks": rng.normal(size=(batch, NUM_QUERIES, *GRID)).astype(np.float32) * 3,
        "features": rng.normal(size=(batch, *GRID, WIDTH)).astype(np.float32),
    }
    owner = rng.integers(-2, NUM_SLOTS, size=(batch, *GRID))  # negative: in no segment
    masks = (owner[:, None] == np.arange(NUM_SLOTS)[:, None, None]) & VALID[:, :, None, None]
    segments = Segments(
        classes=CLASSES,
        masks=masks,
        valid=VALID,
        score=np.where(VALID, 0.9, 0).astype(np.float32),
        known=masks.any(1),
    )
    return x, segments, Assignment(query=QUERY, matched=MATCHED)


@pytest.fixture(scope="module")
def results():
    return every_term(*random_inputs())


@pytest.mark.parametrize("name", TERMS)
def test_values_and_gradients_equal_the_equations(name, results):
    x, segments, assignment = random_inputs()
    x = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in x.items()}
    expected, expected_count = REFERENCES[name](x, segments, assignment)
    expected.backward()
    value, count, grads = results[name]
    np.testing.assert_allclose(value, expected.item(), rtol=2e-5)
    np.testing.assert_allclose(count, expected_count, rtol=1e-5)
    for key, leaf in x.items():
        gradient = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(grads[key], gradient, atol=2e-5 * scale + 1e-12, err_msg=key)


def test_the_inputs_leave_nothing_trivial(results):
    """Guards the comparison above: each term has a value and a gradient to compare."""
    for name, (value, count, grads) in results.items():
        assert abs(value) > 0.1, name
        assert count > 2, name
        assert max(np.abs(g).max() for g in grads.values()) > 1e-3, name


@pytest.mark.parametrize("garbage", [True, np.nan])
def test_what_invalid_slots_hold_changes_nothing(garbage, results):
    x, segments, _ = random_inputs()
    empty = ~VALID
    masks = segments.masks if garbage is True else segments.masks.astype(np.float32)
    poisoned = segments.replace(
        classes=np.where(empty, 10_000, CLASSES),
        masks=np.where(empty[:, :, None, None], np.array(garbage, masks.dtype), masks),
        score=np.where(empty, np.nan, segments.score).astype(np.float32),
    )
    # The query of an unmatched slot must not matter either, nor the match of an invalid slot.
    misled = Assignment(query=np.where(MATCHED, QUERY, 5), matched=MATCHED | empty)
    got = every_term(x, poisoned, misled)
    for name in TERMS:
        for a, b in zip(jax.tree.leaves(got[name]), jax.tree.leaves(results[name])):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9, err_msg=name)


def test_gradients_stay_with_matched_queries_and_known_pixels(results):
    _, segments, _ = random_inputs()
    used = np.zeros((len(VALID), NUM_QUERIES), bool)
    for b, m in zip(*np.nonzero(VALID & MATCHED)):
        used[b, QUERY[b, m]] = True
    for name in [*CONTRASTS, "consistency"]:
        grad = np.asarray(results[name][2]["masks"])
        reaches = used if name == "consistency" else used & (MATCHED.sum(1) > 1)[:, None]
        assert (grad[~reaches] == 0).all(), name
        assert (np.abs(grad[reaches]).max((1, 2)) > 0).all(), name
    assert (results["rcc"][2]["classes"][~used] == 0).all()
    for name, (_, _, grads) in results.items():
        unknown = ~np.asarray(segments.known)
        assert (np.moveaxis(np.asarray(grads["masks"]), 1, -1)[unknown] == 0).all(), name
        assert (np.asarray(grads["features"])[unknown] == 0).all(), name
    for name in ("rcc", "rcc_no_object"):
        assert (results[name][2]["masks"] == 0).all()  # a mask's share on known pixels is constant


def test_one_segment_has_nothing_to_contrast_with():
    x, segments, assignment = random_inputs()
    alone = VALID & (np.cumsum(VALID, 1) == 1)
    segments = segments.replace(valid=alone)
    got = every_term(x, segments, assignment)
    for name in CONTRASTS:
        value, count, grads = got[name]
        assert value == 0
        assert count == 3
        assert all((g == 0).all() for g in grads.values())
    for name in ("rcc", "smc_semantic", "smc_max", "consistency"):
        assert got[name][0] > 0
        assert all(np.isfinite(g).all() for g in got[name][2].values())


def test_a_batch_without_pseudo_segments_costs_nothing():
    x, segments, _ = random_inputs()
    nothing = segments.replace(
        valid=np.zeros_like(VALID),
        masks=np.zeros_like(segments.masks),
        known=np.zeros_like(segments.known),
    )
    got = every_term(x, nothing, Assignment(query=QUERY, matched=np.zeros_like(MATCHED)))
    for name in TERMS:
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(got[name])), name


def test_extreme_predictions_stay_finite():
    """Masks sure of all pixels or of none, and features of zero, give no NaN in norms or logs."""
    x, segments, assignment = random_inputs()
    for masks in (-200.0, 200.0):
        extreme = {
            "classes": np.sign(x["classes"]) * np.float32(500),
            "masks": np.full_like(x["masks"], masks),
            "features": np.zeros_like(x["features"]),
        }
        for name, leaves in every_term(extreme, segments, assignment).items():
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(leaves)), name


# --- Two halves of a picture, each matched to its own query, perfectly. ---


def halves():
    masks = np.zeros((1, 2, 2, 4), bool)
    masks[0, 0, :, :2] = masks[0, 1, :, 2:] = True
    segments = Segments(
        classes=np.array([[0, 1]]),
        masks=masks,
        valid=np.ones((1, 2), bool),
        score=np.ones((1, 2), np.float32),
        known=np.ones((1, 2, 4), bool),
    )
    assignment = Assignment(query=np.array([[0, 1]]), matched=np.ones((1, 2), bool))
    features = np.where(masks[0, 0][None, :, :, None], 1.0, -1.0) * np.ones(3)
    logits = np.where(masks, 60.0, -60.0)
    return jnp.float32(logits), jnp.float32(features), segments, assignment


@functools.partial(jax.jit, static_argnums=3)
def contrasts_of_halves(logits, features, temperature, denominator):
    """RMC, RFC and the gradients of their sum."""
    _, _, segments, assignment = halves()
    kind = {"temperature": temperature, "denominator": denominator}

    def both(logits, features):
        masks = gather_queries(logits, assignment)
        rmc, _ = region.region_mask_contrast(masks, segments, assignment, **kind)
        rfc, _ = region.region_feature_contrast(masks, features, segments, assignment, **kind)
        return rmc + rfc, (rmc, rfc)

    (_, values), grads = jax.value_and_grad(both, argnums=(0, 1), has_aux=True)(logits, features)
    return values, grads


@pytest.mark.parametrize("tau", [1.0, 0.1, 0.01])
def test_paper_denominators_fall_with_one_over_tau_and_with_positive_stays_above_zero(tau):
    """The positive pair's similarity is 1, the other's 0 (disjoint masks) or -1 (features)."""
    logits, features, _, _ = halves()
    values, grads = contrasts_of_halves(logits, features, tau, "paper")
    np.testing.assert_allclose(values, [-2 / tau, -4 / tau], rtol=1e-5)
    bounded, more_grads = contrasts_of_halves(logits, features, tau, "with_positive")
    expected = [2 * math.log1p(math.exp(-d / tau)) for d in (1, 2)]
    np.testing.assert_allclose(bounded, expected, rtol=1e-4, atol=1e-37)
    assert min(bounded) >= 0
    assert all(np.isfinite(g).all() for g in (*grads, *more_grads))


def test_with_positive_is_never_negative():
    for seed in range(1, 6):
        got = every_term(*random_inputs(seed))
        assert got["rmc_with_positive"][0] >= 0
        assert got["rfc_with_positive"][0] >= 0


def test_dice_similarity_of_drawn_masks():
    logits, features, _, _ = halves()
    # Shifted by one column, a mask covers half of its own target and half of the other one: the
    # positive pair is as similar as the negative one.
    (rmc, _), _ = contrasts_of_halves(jnp.roll(logits, 1, axis=-1), features, 1.0, "paper")
    np.testing.assert_allclose(rmc, 0.0, atol=1e-6)
    # Grown to 6 pixels, its dice is 2 x 4 / (6 + 4) with its own target, 2 x 2 / (6 + 4) with the
    # other.
    grown = logits.at[0, 0, :, 2].set(60.0)
    (rmc, _), _ = contrasts_of_halves(grown, features, 1.0, "paper")
    np.testing.assert_allclose(rmc, (0.0 - 0.8) + (0.4 - 1.0), atol=1e-6)


def test_semantic_union_of_drawn_masks():
    """Two queries that share a pixel; classes 0.6 / 0.4 and 0.5 / 0.5."""
    classes = jnp.log(jnp.array([[[0.6, 0.4, 1e-9], [0.5, 0.5, 1e-9]]]))
    on, off = 30.0, -30.0
    masks = jnp.array([[[[on, on, off]], [[off, on, off]]]])  # [1, 2, 1, 3]
    wanted = jnp.array([[0, 1]])
    semantic = region.semantic_union(classes, masks, wanted, "semantic")
    np.testing.assert_allclose(semantic[0, :, 0], [[0.6, 1.0, 0], [0.4, 0.9, 0]], atol=1e-6)
    normalized = region.semantic_union(classes, masks, wanted, "normalized")
    np.testing.assert_allclose(normalized[0, :, 0], [[0.6, 0.55, 0], [0.4, 0.45, 0]], atol=1e-6)
    largest = region.semantic_union(classes, masks, wanted, "max")
    np.testing.assert_allclose(largest[0, :, 0], [[1, 1, 0], [0, 0, 0]], atol=1e-6)
