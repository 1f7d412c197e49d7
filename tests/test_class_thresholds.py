"""rc2l_jax/method/class_thresholds.py: a threshold for each class, against values by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rc2l_jax.method import class_thresholds
from rc2l_jax.method.state import create_train_state
from rc2l_jax.method.teacher import teacher_segments

# Of the four pixels the first two are class 0's, the third is class 1's, the fourth is padding.
SCORES = np.array([[[[0.9, 1.2, 0.1, 0.9]], [[0.1, 0.1, 0.4, 0.1]], [[0.0, 0.2, 0.3, 0.0]]]])
VALID = np.array([[[True, True, True, False]]])


def test_scores_are_added_up_by_the_class_that_wins_the_pixel():
    total, count = class_thresholds.score_sums(jnp.asarray(SCORES), VALID)
    np.testing.assert_allclose(total, [1.9, 0.4, 0.0], rtol=1e-6)  # 1.2 counts as 1
    np.testing.assert_array_equal(count, [2, 1, 0])


def test_scores_move_towards_the_mean_and_stay_where_a_class_is_not_seen():
    seen = np.array([1.9, 0.4, 0.0]), np.array([2.0, 1.0, 0.0])
    got = class_thresholds.update_scores(jnp.array([1.0, 0.6, 0.7]), seen, 0.1)
    np.testing.assert_allclose(got, [0.9 + 0.1 * 0.95, 0.54 + 0.04, 0.7], rtol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_sum_that_is_not_finite_changes_nothing(wrong):
    seen = np.array([wrong, 0.4]), np.array([2.0, 1.0])
    got = class_thresholds.update_scores(jnp.array([0.8, 0.6]), seen, 0.5)
    np.testing.assert_allclose(got, [0.8, 0.5], rtol=1e-6)


@pytest.mark.parametrize("by_class", [False, True])
def test_a_threshold_is_for_all_classes_or_a_share_of_the_classs_own_score(by_class):
    got = class_thresholds.pixel_thresholds(jnp.array([1.0, 0.5]), 0.8, by_class)
    np.testing.assert_allclose(got, [0.8, 0.4 if by_class else 0.8], rtol=1e-6)


def test_the_teacher_names_the_pixels_above_the_threshold_of_their_class():
    config = tiny.config()
    config.pseudo.update(source="semantic", pixel_threshold=0.9, threshold_by_class=True)
    config.pseudo.update(min_area=1, merge_same_class=True)
    model, _, state = create_train_state(config)
    batch = jax.tree.map(lambda x: jnp.asarray(x[0]), tiny.batch(1))
    given = batch.unlabeled_image.astype(jnp.float32), batch.unlabeled_valid, model, config
    high = jnp.full(tiny.NUM_CLASSES, 100.0)  # an untrained teacher's scores add up to more than 1
    segments = teacher_segments(state.replace(class_scores=high), *given).segments
    assert not segments.valid.any()
    best = int(teacher_segments(state, *given).class_scores[1].argmax())
    lower = state.replace(class_scores=high.at[best].set(0.1))
    segments = teacher_segments(lower, *given).segments
    assert segments.valid.any()
    assert (segments.classes[segments.valid] == best).all()
