"""rc2l_jax/method/class_thresholds.py: a threshold for each class, against values by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rc2l_jax.method import class_thresholds
from rc2l_jax.method.moving_average import update_average
from rc2l_jax.method.state import create_train_state
from rc2l_jax.method.teacher import teacher_segments

# Of the four pixels the first two are class 0's, the third is class 1's, the fourth is padding.
SCORES = np.array([[[[0.9, 1.2, 0.1, 0.9]], [[0.1, 0.1, 0.4, 0.1]], [[0.0, 0.2, 0.3, 0.0]]]])
VALID = np.array([[[True, True, True, False]]])


def test_scores_are_added_up_by_the_class_that_wins_the_pixel():
    total, count = class_thresholds.score_sums(jnp.asarray(SCORES), VALID)
    np.testing.assert_allclose(total, [1.9, 0.4, 0.0], rtol=1e-6)  # 1.2 counts as 1
    np.testing.assert_array_equal(count, [2, 1, 0])


def test_a_rare_classs_mean_is_as_right_as_a_frequent_ones():
    """Class 0 has 50 pixels of 0.9 in every step, class 1 one of 0.4 in every tenth."""
    scores = jnp.zeros((2, 3))
    for step in range(40):
        rare = step % 10 == 0
        seen = np.array([[45.0, 0.4 * rare, 0.0], [50.0, 1.0 * rare, 0.0]])
        scores = update_average(scores, seen, 0.01)
    np.testing.assert_allclose(class_thresholds.mean_scores(scores), [0.9, 0.4, 1.0], rtol=1e-5)


def test_newer_scores_weigh_more():
    scores = jnp.array([[8.0], [10.0]])
    scores = update_average(scores, np.array([[4.0], [10.0]]), 0.25)
    np.testing.assert_allclose(class_thresholds.mean_scores(scores), [0.7], rtol=1e-6)


@pytest.mark.parametrize(("steps", "mean"), [(20, 0.4), (100, 1.0)])
def test_a_class_that_is_not_seen_any_more_keeps_its_score_for_long(steps, mean):
    scores = jnp.array([[4.0], [10.0]])
    for _ in range(steps):
        scores = update_average(scores, np.zeros((2, 1)), 0.5)
    np.testing.assert_allclose(class_thresholds.mean_scores(scores), [mean], rtol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_sum_that_is_not_finite_changes_nothing(wrong):
    scores = jnp.array([[0.8, 0.6], [1.0, 1.0]])
    got = update_average(scores, np.array([[wrong, 0.4], [2.0, 1.0]]), 0.5)
    np.testing.assert_array_equal(got, scores)


@pytest.mark.parametrize("by_class", [False, True])
def test_a_threshold_is_for_all_classes_or_a_share_of_the_classs_own_score(by_class):
    scores = jnp.array([[4.0, 1.0, 0.0], [4.0, 2.0, 0.0]])
    got = class_thresholds.pixel_thresholds(scores, 0.8, by_class)
    np.testing.assert_allclose(got, [0.8, 0.4 if by_class else 0.8, 0.8], rtol=1e-6)


def test_the_teacher_names_the_pixels_above_the_threshold_of_their_class():
    config = tiny.config()
    config.pseudo.update(source="semantic", pixel_threshold=0.9, threshold_by_class=True)
    config.pseudo.update(min_area=1, merge_same_class=True)
    model, _, state = create_train_state(config)
    batch = jax.tree.map(lambda x: jnp.asarray(x[0]), tiny.batch(1))
    given = batch.unlabeled_image.astype(jnp.float32), batch.unlabeled_valid, model, config
    # An untrained teacher's scores add up to more than 1.
    high = jnp.stack([jnp.full(tiny.NUM_CLASSES, 100.0), jnp.ones(tiny.NUM_CLASSES)])
    segments = teacher_segments(state.replace(class_scores=high), *given).segments
    assert not segments.valid.any()
    best = int(teacher_segments(state, *given).class_scores[1].argmax())
    lower = state.replace(class_scores=high.at[0, best].set(0.1))
    segments = teacher_segments(lower, *given).segments
    assert segments.valid.any()
    assert (segments.classes[segments.valid] == best).all()
