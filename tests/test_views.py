"""rc2l_jax/method/views.py and teacher.py: views of unlabelled images, and `pseudo.uncovered`."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rc2l_jax.method.keys import step_keys
from rc2l_jax.method.losses.region import semantic_mask_consistency
from rc2l_jax.method.segments import label_map
from rc2l_jax.method.state import create_train_state
from rc2l_jax.method.teacher import teacher_segments
from rc2l_jax.method.views import strong_view, weak_view
from rc2l_jax.structs import AXIS, VOID, Segments


def views_of(state, batch, model, config, pseudo=None):
    """The weak view, the strong view and the latter's segments, as the training step makes them.

    With `pseudo`, the segments that the teacher predicts, the teacher is not run.
    """

    def views(batch, pseudo):
        keys = step_keys(state, batch)
        weak = weak_view(batch, keys, config)
        if pseudo is None:
            pseudo = teacher_segments(state, weak, batch.unlabeled_valid, model, config).segments
        strong, target = strong_view(batch, weak, pseudo, keys, config)
        return weak, strong, target.segments

    one_device = jax.tree.map(lambda x: x[None], (batch, pseudo))
    found = jax.pmap(views, axis_name=AXIS)(*one_device)
    weak, strong, segments = jax.tree.map(lambda x: np.asarray(x[0]), found)
    return SimpleNamespace(weak=weak, strong=strong, segments=segments)


@pytest.fixture(scope="module")
def segments_of():
    """A function: `pseudo.uncovered` -> segments of strong views, which leave pixels uncovered."""

    @functools.cache
    def run(uncovered: str):
        config = tiny.config(pseudo__mask_threshold=0.5, pseudo__uncovered=uncovered)
        model, _, state = create_train_state(config)
        batch = jax.tree.map(lambda x: jnp.asarray(x[0]), tiny.batch(1))
        return views_of(state, batch, model, config).segments

    return run


def test_uncovered_pixels_are_unknown_or_negative_and_padding_is_neither(segments_of):
    unknown, negative = segments_of("unknown"), segments_of("negative")
    covered = label_map(unknown) != VOID
    assert 0.1 < covered.mean() < 0.9
    np.testing.assert_array_equal(unknown.known, covered)
    padded = np.zeros_like(covered)
    padded[:, :, -1:] = True  # 4 of 32 columns, at stride 4
    np.testing.assert_array_equal(negative.known, ~padded)
    for name in ("classes", "masks", "valid", "score"):
        np.testing.assert_array_equal(getattr(unknown, name), getattr(negative, name))


@pytest.mark.parametrize("uncovered", ["unknown", "negative"])
def test_image_segments_and_padding_are_cut_alike(uncovered):
    config = tiny.config(data__color=False, pseudo__min_area=1, pseudo__uncovered=uncovered)
    batch = jax.tree.map(lambda x: np.array(x[0]), tiny.batch(1))
    for i, plane in enumerate(batch.unlabeled_valid):
        plane[4 * (i + 1) :] = False  # each image has another padding
    valid = batch.unlabeled_valid[:, ::4, ::4]
    labels = np.random.default_rng(0).integers(-1, 3, valid.shape)
    labels = np.where(valid & (labels >= 0), labels, VOID)
    count = len(valid)
    weak = Segments(
        classes=jnp.tile(jnp.arange(3), (count, 1)),
        masks=jnp.asarray(labels[:, None] == np.arange(3)[:, None, None]),
        valid=jnp.ones((count, 3), bool),
        score=jnp.ones((count, 3)),
        known=jnp.asarray(valid),
    )
    batch = jax.tree.map(jnp.asarray, batch)
    state = SimpleNamespace(key=jax.random.key(0), step=jnp.int32(3))
    got = views_of(state, batch, None, config, pseudo=weak)

    mine, strong = (np.asarray(x)[:, ::4, ::4] for x in (got.weak, got.strong))
    # [B, B, h, w]: which image a pixel comes from. Images are noise, so that no two are alike.
    source = (strong[:, None] == mine[None]).all(-1)
    assert (source.sum(1) == 1).all()
    assert 0.4 < np.mean([shown[i] for i, shown in enumerate(source)]) < 0.9
    label, valid = ((source * x[None]).sum(1) for x in (labels, valid))
    np.testing.assert_array_equal(label_map(got.segments), label)
    known = valid if uncovered == "negative" else label != VOID
    np.testing.assert_array_equal(got.segments.known, known)


@pytest.mark.parametrize("uncovered", ["unknown", "negative"])
def test_an_image_of_which_the_teacher_says_nothing_is_no_evidence(uncovered):
    config = tiny.config(pseudo__min_area=1_000_000, pseudo__uncovered=uncovered)
    model, _, state = create_train_state(config)
    batch = jax.tree.map(lambda x: jnp.asarray(x[0]), tiny.batch(1))
    got = views_of(state, batch, model, config).segments
    assert not got.valid.any() and not got.known.any()


def test_a_mask_that_spills_over_is_held_back_where_uncovered_pixels_are_negative(segments_of):
    def loss(mask_logits, segments):
        classes = jnp.zeros((len(mask_logits), 6, tiny.NUM_CLASSES + 1))
        weights = {"focal_weight": 1.0, "dice_weight": 1.0, "focal_alpha": 0.25, "focal_gamma": 2.0}
        return semantic_mask_consistency(
            classes, mask_logits, segments, union="semantic", **weights
        )[0]

    for uncovered, held_back in (("unknown", False), ("negative", True)):
        segments = segments_of(uncovered)
        logits = jnp.full((len(segments.classes), 6, *segments.known.shape[1:]), -1.0)
        rng = np.random.default_rng(0).normal(0, 0.1, logits.shape)  # no ties
        gradient = np.asarray(jax.grad(loss)(logits + rng, segments)).sum(1)
        there = segments.valid.any(1)[:, None, None] & segments_of("negative").known
        there &= ~segments_of("unknown").known
        assert there.any() and (gradient[there] > 0).mean() == held_back
