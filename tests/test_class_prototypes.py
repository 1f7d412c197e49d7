"""rc2l_jax/method/class_prototypes.py: which pseudo segments look like their class."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rc2l_jax.method import class_prototypes
from rc2l_jax.method.moving_average import update_average
from rc2l_jax.method.state import create_train_state
from rc2l_jax.method.teacher import teacher_segments
from rc2l_jax.models import build_model
from rc2l_jax.structs import Segments

# Three classes. The first two look like the first and second axis, and most of their labelled
# segments were recognised; of the third, half was.
SUMS = np.array([[4, 0, 0], [0, 1, 0], [1, 1, 9]], np.float32)
COUNT, RECOGNISED = np.array([4, 1, 10], np.float32), np.array([4, 1, 5], np.float32)
PROTOTYPES = jnp.asarray(np.column_stack([SUMS, COUNT, RECOGNISED]))


def halves(classes: list[int], valid: tuple[bool, bool] = (True, True)) -> Segments:
    """Of one image of 8 x 8 pixels the left and the right half, as segments of these classes."""
    masks = np.zeros((1, 2, 8, 8), bool)
    masks[0, 0, :, :4] = masks[0, 1, :, 4:] = True
    return Segments(
        classes=jnp.asarray([classes], jnp.int32),
        masks=jnp.asarray(masks),
        valid=jnp.asarray([valid]),
        score=jnp.ones((1, 2)),
        known=jnp.ones((1, 8, 8), bool),
    )


def features(left: list[float], right: list[float]) -> jax.Array:
    """A feature map of 2 x 2 cells, with one value for each half."""
    return jnp.asarray([[[left, right], [left, right]]], jnp.float32)


def test_a_segment_is_confirmed_by_the_prototype_nearest_to_it():
    seen = features([5.0, 1.0, 0.0], [5.0, 1.0, 0.0])  # nearer to class 0, at any length
    got = class_prototypes.confirmed(seen, halves([0, 1]), PROTOTYPES)
    np.testing.assert_array_equal(got, [[True, False]])
    seen = features([0.1, 0.0, 0.0], [0.0, 0.2, 0.1])
    got = class_prototypes.confirmed(seen, halves([0, 1]), PROTOTYPES)
    np.testing.assert_array_equal(got, [[True, True]])


def test_a_class_whose_labelled_segments_are_seldom_recognised_is_not_judged():
    seen = features([1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    got = class_prototypes.confirmed(seen, halves([2, 1]), PROTOTYPES)
    np.testing.assert_array_equal(got, [[True, False]])
    more = PROTOTYPES.at[2, -1].set(6.0)
    got = class_prototypes.confirmed(seen, halves([2, 1]), more)
    np.testing.assert_array_equal(got, [[False, False]])


def test_a_class_not_seen_for_long_keeps_its_look():
    """Sum and count fade together: after 2,000 steps they are 2e-9 of what they were."""
    seen = features([5.0, 1.0, 0.0], [1.0, 5.0, 0.0])
    faded = PROTOTYPES.at[0].multiply(2e-9)
    got = class_prototypes.confirmed(seen, halves([0, 1]), faded)
    np.testing.assert_array_equal(got, [[True, True]])


def test_without_a_labelled_segment_so_far_nothing_is_refused():
    seen = features([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    got = class_prototypes.confirmed(seen, halves([1, 2]), jnp.zeros((3, 5)))
    np.testing.assert_array_equal(got, [[True, True]])


def test_a_class_without_labels_is_never_the_nearest_one():
    prototypes = PROTOTYPES.at[0].set(0.0)
    seen = features([-1.0, 0.1, 0.0], [1.0, -0.1, 0.0])  # the cosine with nothing would be 0
    got = class_prototypes.confirmed(seen, halves([1, 1]), prototypes.at[2].set(0.0))
    np.testing.assert_array_equal(got, [[True, True]])


def test_sums_are_of_the_mean_features_of_each_labelled_segment():
    rng = np.random.default_rng(0)
    grid, masks = rng.normal(size=(2, 4, 4, 3)), rng.random((2, 3, 16, 16)) < 0.4
    classes, valid = np.array([[0, 1, 1], [2, 0, 1]]), np.array([[1, 1, 1], [1, 1, 0]], bool)
    masks[0, 2] = False  # a slot without a pixel
    segments = Segments(
        classes=jnp.asarray(classes),
        masks=jnp.asarray(masks),
        valid=jnp.asarray(valid),
        score=jnp.ones((2, 3)),
        known=jnp.ones((2, 16, 16), bool),
    )
    got = class_prototypes.prototype_sums(jnp.asarray(grid, jnp.float32), segments, PROTOTYPES)

    # The cells' shares, by the kernel of an antialiased linear resize: a triangle two cells wide.
    centres, pixels = 4 * np.arange(4) + 1.5, np.arange(16)
    kernel = np.maximum(0, 1 - np.abs(pixels - centres[:, None]) / 4)
    kernel /= kernel.sum(1, keepdims=True)
    expected = np.zeros((3, 5))
    for b, m in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        cells = kernel @ masks[b, m] @ kernel.T
        mean = (cells[..., None] * grid[b]).sum((0, 1)) / cells.sum()
        cosine = SUMS @ mean / np.linalg.norm(SUMS, axis=1)
        expected[classes[b, m]] += [*mean, 1, cosine.argmax() == classes[b, m]]
    assert 0 < expected[:, -1].sum() < 4, "some are recognised, some are not"
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_sums_move_by_the_rate_and_never_by_what_is_not_finite():
    seen = jnp.ones((3, 5))
    got = update_average(PROTOTYPES, seen, 0.25)
    np.testing.assert_allclose(got, 0.75 * PROTOTYPES + 0.25, rtol=1e-6)
    got = update_average(PROTOTYPES, seen.at[0, 0].set(jnp.nan), 0.25)
    np.testing.assert_array_equal(got, PROTOTYPES)


@pytest.mark.parametrize(
    ("backbone", "stride", "channels"),
    [
        ("resnet10", 32, 32),
        ("efficientnet_lite0", 32, 320),
        ("swin_tiny", 32, 768),
        ("dinov2_small", 16, 384),
    ],
)
def test_each_image_has_a_feature_map_whatever_the_backbone(backbone, stride, channels):
    config = tiny.config(model__backbone=backbone)
    model, images = build_model(config, axis_name=None), jnp.zeros((2, 64, 96, 3))
    seen, _ = jax.eval_shape(
        lambda key: model.init_with_output(key, images, train=False), jax.random.key(0)
    )
    assert seen.backbone_features.shape == (2, 64 // stride, 96 // stride, channels)


@pytest.mark.parametrize("check", [False, True])
def test_the_teacher_drops_what_does_not_look_like_its_class(check):
    config = tiny.config(pseudo__prototype_check=check, pseudo__min_area=1)
    model, _, state = create_train_state(config)
    batch = jax.tree.map(lambda x: jnp.asarray(x[0]), tiny.batch(1))
    given = batch.unlabeled_image.astype(jnp.float32), batch.unlabeled_valid, model, config
    before = teacher_segments(state, *given)
    assert not before.refused.any(), "no labelled segment was seen so far"
    # All segments look like the class that has the most of them.
    kept = int(np.bincount(before.segments.classes[before.segments.valid]).argmax())
    others = before.segments.valid & (before.segments.classes != kept)
    look = jnp.ones((tiny.NUM_CLASSES, state.class_prototypes.shape[1] - 2))
    counts = jnp.ones((tiny.NUM_CLASSES, 2))
    known = jnp.concatenate([(-look).at[kept].set(1.0), counts], 1)
    positive = class_prototypes._mean_features(
        model.apply(state.teacher, given[0] / 255, train=False).backbone_features, before.segments
    )[0].sum(-1)
    assert (positive >= 0).all(), "a backbone's features after its last ReLU"
    after = teacher_segments(state.replace(class_prototypes=known), *given)
    if not check:
        np.testing.assert_array_equal(after.segments.valid, before.segments.valid)
        return
    np.testing.assert_array_equal(after.refused, others.sum(1))
    np.testing.assert_array_equal(after.segments.valid, before.segments.valid & ~others)
    assert not (after.segments.masks & ~after.segments.valid[:, :, None, None]).any()
