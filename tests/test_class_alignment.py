"""rc2l_jax/method/class_alignment.py: class shares and alignment, against values by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rc2l_jax.method import class_alignment
from rc2l_jax.structs import Segments

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4)), jnp.float32)  # K = 3
SHARES = np.array([[0.5, 0.3, 0.2], [0.8, 0.15, 0.05]], np.float32)


def softmax(x: np.ndarray | jax.Array) -> np.ndarray:
    e = np.exp(np.asarray(x) - np.max(x, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_alignment_multiplies_probabilities_by_the_ratio_of_shares(power):
    ratio = np.append((SHARES[0] / SHARES[1]) ** power, 1.0)  # no-object keeps its weight
    expected = softmax(LOGITS) * ratio
    expected /= expected.sum(-1, keepdims=True)
    got = softmax(class_alignment.align_classes(LOGITS, SHARES, power))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_alignment_with_power_0_or_equal_shares_changes_nothing():
    np.testing.assert_array_equal(class_alignment.align_classes(LOGITS, SHARES, 0.0), LOGITS)
    equal = SHARES[[0, 0]]
    np.testing.assert_array_equal(class_alignment.align_classes(LOGITS, equal, 1.0), LOGITS)


def test_a_class_never_seen_stays_finite():
    shares = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5]], np.float32)
    got = class_alignment.align_classes(LOGITS, shares, 1.0)
    assert np.isfinite(got).all()
    assert (got[..., 0] < LOGITS[..., 0]).all() and (got[..., 1] > LOGITS[..., 1]).all()


def test_shares_move_towards_what_was_seen():
    counts = np.array([[2, 6, 0], [1, 0, 3]], np.float32)
    got = class_alignment.update_shares(SHARES, counts, 0.1)
    expected = 0.9 * SHARES + 0.1 * np.array([[0.25, 0.75, 0], [0.25, 0, 0.75]])
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("nothing", [0.0, np.nan, np.inf])
def test_nothing_seen_or_not_finite_changes_nothing(nothing):
    counts = np.array([[1, 1, 2], [nothing] * 3], np.float32)
    got = class_alignment.update_shares(SHARES, counts, 0.5)
    np.testing.assert_allclose(got[1], SHARES[1], rtol=1e-6)
    np.testing.assert_allclose(got[0], (SHARES[0] + [0.25, 0.25, 0.5]) / 2, rtol=1e-6)


def test_counts_of_segments_skip_empty_slots():
    segments = Segments(
        classes=np.array([[3, 1, 3], [9, 3, 9]], np.int32),
        masks=np.ones((2, 3, 2, 2), bool),
        valid=np.array([[True, True, True], [False, True, False]]),
        score=np.ones((2, 3), np.float32),
        known=np.ones((2, 2, 2), bool),
    )
    np.testing.assert_array_equal(class_alignment.segment_counts(segments, 5), [0, 1, 0, 3, 0])


def test_counts_of_queries_add_up_probabilities_without_no_object():
    expected = softmax(LOGITS)[..., :3].sum((0, 1))
    np.testing.assert_allclose(class_alignment.query_counts(LOGITS), expected, rtol=1e-5)
    gradient = jax.grad(lambda x: class_alignment.query_counts(x).sum())(LOGITS)
    assert not np.any(gradient)
