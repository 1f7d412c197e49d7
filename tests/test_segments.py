"""rc2l_jax/method/segments.py and pseudo_segments.py, and `cutmix_segments` of cutmix.py.

Compared with results by hand on drawn label maps and logits, with torch, and with painted maps.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from rc2l_jax.method import pseudo_segments
from rc2l_jax.method import segments as sg
from rc2l_jax.method.cutmix import cutmix_segments
from rc2l_jax.models.maskformer import semantic_scores
from rc2l_jax.structs import VOID, Segments

ground_truth = jax.jit(
    sg.ground_truth_segments, static_argnames=("num_classes", "max_segments", "ignore_void")
)


@functools.partial(jax.jit, static_argnames=("max_segments", "min_area", "merge"))
def cutmix(segments, box, partner, **settings):
    """`cutmix_segments` with the segments of each image's partner pasted."""
    pasted = jax.tree.map(lambda x: jnp.asarray(x)[partner], segments)
    return cutmix_segments(segments, pasted, box, **settings)


label_map = jax.jit(sg.label_map)
merge_same_class = jax.jit(sg.merge_same_class)
keep_largest = jax.jit(sg.keep_largest, static_argnums=(1, 2))
pseudo = jax.jit(
    pseudo_segments.pseudo_segments, static_argnames=("max_segments", "min_area", "merge")
)


# --- Nearest sampling ---


@pytest.mark.parametrize(
    "large", [(7, 9), (33, 50), (97, 64), (106, 159), (101, 370), (362, 225), (512, 768)]
)
def test_nearest_downsample_equals_torch(large):
    height, width = large
    x = np.arange(height * width, dtype=np.float32).reshape(1, 1, height, width)
    for h, w in (((height + 3) // 4, (width + 3) // 4), (height // 4, width // 4), large, (1, 3)):
        expected = torch.nn.functional.interpolate(torch.tensor(x), size=(h, w), mode="nearest")
        np.testing.assert_array_equal(sg.nearest_downsample(x, (h, w)), expected.numpy())


def test_at_mask_grid_takes_every_fourth_pixel():
    label = np.random.default_rng(0).integers(0, 3, (2, 8, 12)).astype(np.uint8)
    label[0, 4, 8] = VOID
    full, _ = ground_truth(
        label, np.ones(label.shape, bool), num_classes=3, max_segments=3, ignore_void=True
    )
    small = sg.at_mask_grid(full, (2, 3))
    np.testing.assert_array_equal(label_map(small), label[:, ::4, ::4])
    np.testing.assert_array_equal(small.known, label[:, ::4, ::4] != VOID)
    np.testing.assert_array_equal(small.classes, full.classes)


# --- Ground truth ---

LABEL = np.array(
    [
        [  # class 2 has five pixels, 0 three, 5 two; two are void; the last column is padding
            [2, 2, 2, 0, 255],
            [2, 2, 0, 0, 255],
            [5, 5, 255, 255, 255],
        ],
        np.full((3, 5), 255),
    ],
    np.uint8,
)
NOT_PADDING = np.broadcast_to(np.arange(5) < 4, LABEL.shape)


@pytest.mark.parametrize("ignore_void", [True, False])
def test_ground_truth_of_a_drawn_label(ignore_void):
    got, dropped = ground_truth(
        LABEL, NOT_PADDING, num_classes=6, max_segments=4, ignore_void=ignore_void
    )
    np.testing.assert_array_equal(got.valid, [[1, 1, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(got.classes, [[2, 0, 5, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(got.score, got.valid)
    for slot, c in enumerate((2, 0, 5)):
        np.testing.assert_array_equal(got.masks[0, slot], LABEL[0] == c)
    assert not got.masks[0, 3].any()
    assert not got.masks[1].any()
    np.testing.assert_array_equal(
        got.known, NOT_PADDING & (LABEL != 255) | (NOT_PADDING & (not ignore_void))
    )
    np.testing.assert_array_equal(dropped, [0, 0])
    assert got.masks.dtype == bool
    assert got.classes.dtype == np.int32


def test_classes_on_padding_do_not_count():
    label = np.where(NOT_PADDING, LABEL, 4).astype(np.uint8)
    got, _ = ground_truth(label, NOT_PADDING, num_classes=6, max_segments=4, ignore_void=False)
    assert 4 not in np.asarray(got.classes)
    assert not got.known[..., 4].any()


@pytest.mark.parametrize(("slots", "kept", "lost"), [(1, [2], 2), (2, [2, 0], 1)])
def test_the_largest_classes_win_the_slots(slots, kept, lost):
    got, dropped = ground_truth(
        LABEL, NOT_PADDING, num_classes=6, max_segments=slots, ignore_void=True
    )
    np.testing.assert_array_equal(got.classes[0], kept)
    np.testing.assert_array_equal(dropped, [lost, 0])
    # Pixels of a class without a slot are known: they are in none of the segments.
    assert got.known[0, 2, 0]


def test_there_are_no_more_slots_than_classes():
    got, _ = ground_truth(LABEL, NOT_PADDING, num_classes=6, max_segments=9, ignore_void=True)
    assert got.masks.shape == (2, 6, 3, 5)
    np.testing.assert_array_equal(got.valid.sum(1), [3, 0])
    np.testing.assert_array_equal(label_map(got), np.where(NOT_PADDING, LABEL, 255))


# --- Pseudo segments. Class logits are log-probabilities, K = 3 and no-object. ---

OFF = -9.0


def log_probabilities(*rows):
    return np.log(np.array([rows], np.float32) + 1e-9)


def logit(p):
    return np.log(p / (1 - p))


def pseudo_of(classes, masks, valid=None, **changed):
    masks = np.array([masks], np.float32)
    valid = np.ones(masks[:, 0].shape, bool) if valid is None else np.array([valid], bool)
    settings = {
        "max_segments": 4,
        "score_threshold": 0.3,
        "mask_threshold": 0.5,
        "min_area": 1,
        "merge": False,
    }
    return pseudo(classes, masks, valid, **(settings | changed))


# One row of six pixels and four queries. Their scores: 0.9 for class 1, 0.6 for class 2, 0.5 for
# class 1 again; the last one is sure of no-object, and its mask claims everything.
CLASSES = log_probabilities(
    [0.05, 0.9, 0.05, 0.0], [0.1, 0.2, 0.6, 0.1], [0.4, 0.5, 0.05, 0.05], [0.1, 0.0, 0.0, 0.9]
)
MASKS = logit(
    np.array(
        [
            [[0.9, 0.9, 0.6, 0.2, 0.1, 0.01]],  # bids 0.81 0.81 0.54 0.18 0.09 0.009
            [[0.5, 0.8, 0.95, 0.9, 0.2, 0.01]],  # bids 0.30 0.48 0.57 0.54 0.12 0.006
            [[0.1, 0.1, 0.1, 0.99, 0.8, 0.45]],  # bids 0.05 0.05 0.05 0.495 0.40 0.225
            [[0.99, 0.99, 0.99, 0.99, 0.99, 0.99]],
        ]
    )
)


def test_queries_compete_by_score_times_mask():
    got, dropped = pseudo_of(CLASSES, MASKS)
    # Query 0 wins pixels 0-1, query 1 pixels 2-3 (0.57 > 0.54; 0.54 > 0.495), query 2 pixels 4-5,
    # but pixel 5 with a mask below one half. The largest segments come first, ties by query.
    np.testing.assert_array_equal(got.valid, [[1, 1, 1, 0]])
    np.testing.assert_array_equal(got.classes, [[1, 2, 1, 0]])
    np.testing.assert_allclose(got.score, [[0.9, 0.6, 0.5, 0]], atol=1e-6)
    expected = np.zeros((4, 1, 6), bool)
    expected[0, 0, :2] = expected[1, 0, 2:4] = expected[2, 0, 4] = True
    np.testing.assert_array_equal(got.masks[0], expected)
    np.testing.assert_array_equal(label_map(got)[0, 0], [1, 1, 2, 2, 1, 255])
    np.testing.assert_array_equal(dropped, [0])


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        # Without query 2 no mask reaches one half at pixel 4.
        ({"score_threshold": 0.55}, [1, 1, 2, 2, 255, 255]),
        # Only query 0 competes.
        ({"score_threshold": 0.7}, [1, 1, 1, 255, 255, 255]),
        ({"mask_threshold": 0.4}, [1, 1, 2, 2, 1, 1]),
        ({"mask_threshold": 0.92}, [255, 255, 2, 255, 255, 255]),
        ({"mask_threshold": 0.0}, [1, 1, 2, 2, 1, 1]),
        ({"min_area": 2}, [1, 1, 2, 2, 255, 255]),
        ({"min_area": 3}, [255] * 6),
        ({"max_segments": 1}, [1, 1, 255, 255, 255, 255]),
    ],
)
def test_thresholds(changed, expected):
    got, dropped = pseudo_of(CLASSES, MASKS, **changed)
    np.testing.assert_array_equal(label_map(got)[0, 0], expected)
    np.testing.assert_array_equal(dropped, [2 if "max_segments" in changed else 0])


@pytest.mark.parametrize(
    ("changed", "expected", "without_slot"),
    [
        # Query 2 has one pixel, which joins those that query 0 has of the same class.
        ({"min_area": 3}, [1, 1, 255, 255, 1, 255], 0),
        ({"max_segments": 1}, [1, 1, 255, 255, 1, 255], 1),
        ({"max_segments": 2}, [1, 1, 2, 2, 1, 255], 0),
    ],
)
def test_parts_of_a_class_are_one_segment_before_the_largest_are_chosen(
    changed, expected, without_slot
):
    got, dropped = pseudo_of(CLASSES, MASKS, merge=True, **changed)
    np.testing.assert_array_equal(label_map(got)[0, 0], expected)
    np.testing.assert_array_equal(dropped, [without_slot])
    np.testing.assert_allclose(got.score[0, 0], (2 * 0.9 + 0.5) / 3, atol=1e-6)  # by area


def test_padding_is_in_no_segment():
    got, _ = pseudo_of(CLASSES, MASKS, valid=[[0, 1, 1, 0, 1, 1]])
    np.testing.assert_array_equal(label_map(got)[0, 0], [255, 1, 2, 255, 1, 255])


def test_no_query_competes():
    sure_of_nothing = log_probabilities(*[[0.1, 0.1, 0.1, 0.7]] * 4)
    got, dropped = pseudo_of(sure_of_nothing, np.full((4, 1, 6), 20.0))
    assert got.known.all(), "all of it may be compared, and there is nothing"
    rest = got.replace(known=np.zeros(1, bool)), dropped
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(rest))


def test_queries_that_do_not_compete_take_nothing():
    """That holds even if every competing mask underflows to 0, or the query's own mask is NaN."""
    masks = np.full((4, 1, 6), -200.0)
    masks[3] = np.nan
    got, _ = pseudo_of(CLASSES[:, ::-1], masks[::-1], mask_threshold=0.0)
    assert (label_map(got)[0, 0] != 255).all()


def test_no_gradient_passes_and_segments_never_overlap():
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(8, 12, 4)).astype(np.float32) * 2
    masks = rng.normal(size=(8, 12, 9, 10)).astype(np.float32) * 3
    valid = rng.random((8, 9, 10)) < 0.9
    settings = {
        "max_segments": 5,
        "score_threshold": 0.4,
        "mask_threshold": 0.3,
        "min_area": 3,
        "merge": False,
    }

    def scores(classes, masks):
        got, dropped = pseudo(classes, masks, valid, **settings)
        return got.score.sum() + got.masks.sum(), (got, dropped)

    grads, (got, dropped) = jax.grad(scores, argnums=(0, 1), has_aux=True)(classes, masks)
    assert all((g == 0).all() for g in grads)
    cover = np.asarray(got.masks).sum(1)
    assert cover.max() == 1
    np.testing.assert_array_equal(got.known, valid)
    assert not (cover[~valid]).any()
    area = np.asarray(got.masks).sum((2, 3))
    assert (area[got.valid] >= 3).all()
    assert (area[~got.valid] == 0).all()
    assert (np.diff(area) <= 0).all()
    assert dropped.max() > 0  # there were more segments than slots
    assert (got.score[got.valid] > 0.4).all()


# --- Choosing and joining ---


def drawn(rows, classes, valid=None, score=None):
    """Segments of one image of one row; `rows` gives each pixel's slot, -1 for none."""
    rows, classes = np.array(rows), np.array([classes], np.int32)
    slots = np.arange(classes.shape[1])
    valid = np.ones(classes.shape, bool) if valid is None else np.array([valid], bool)
    score = np.ones(classes.shape) if score is None else np.array([score])
    return Segments(
        classes=classes,
        masks=(rows == slots[:, None])[None, :, None],
        valid=valid,
        score=score.astype(np.float32),
        known=np.ones((1, 1, len(rows)), bool),
    )


def test_keep_largest():
    many = drawn(
        [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, -1],
        [4, 5, 6, 7],
        valid=[1, 1, 1, 0],
        score=[1, 2, 3, np.nan],
    )
    two, dropped = keep_largest(many, 2, 1)  # the invalid slot is the largest, and does not count
    np.testing.assert_array_equal(two.classes, [[6, 5]])
    np.testing.assert_array_equal(two.score, [[3, 2]])
    np.testing.assert_array_equal(two.masks.sum((2, 3)), [[3, 2]])
    np.testing.assert_array_equal(two.known, many.known)
    np.testing.assert_array_equal(dropped, [1])
    six, dropped = keep_largest(many, 6, 2)
    np.testing.assert_array_equal(six.valid, [[1, 1, 0, 0]])  # no more than there were
    np.testing.assert_array_equal(six.classes, [[6, 5, 0, 0]])
    np.testing.assert_array_equal(six.score, [[3, 2, 0, 0]])
    assert six.masks.shape == (1, 4, 1, 11)
    np.testing.assert_array_equal(dropped, [0])


def test_merge_same_class():
    parts = drawn(
        [0, 1, 1, 2, 3, 3, 3, 4, 4],
        [3, 1, 1, 3, 3],
        valid=[1, 1, 1, 1, 0],
        score=[0.5, 0.8, 0.2, 0.9, np.nan],
    )
    got = merge_same_class(parts)
    np.testing.assert_array_equal(got.valid, [[1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(got.classes, [[3, 1, 0, 0, 0]])
    np.testing.assert_array_equal(label_map(got)[0, 0], [3, 1, 1, 1, 3, 3, 3, 255, 255])
    np.testing.assert_array_equal(got.masks.sum((2, 3)), [[4, 3, 0, 0, 0]])
    by_area = [(0.5 + 3 * 0.9) / 4, (2 * 0.8 + 0.2) / 3, 0, 0, 0]
    np.testing.assert_allclose(got.score[0], by_area, rtol=1e-6)
    again = merge_same_class(got)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(got)):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_label_map_ignores_invalid_slots():
    got = label_map(drawn([0, 0, 1, -1, 2], [6, 0, 9], valid=[1, 1, 0]))
    np.testing.assert_array_equal(got[0, 0], [6, 6, 0, 255, 255])
    assert got.dtype == np.uint8


# --- CutMix, against painting label maps in NumPy ---


def segments_of(labels, num_slots):
    """Segments of label maps [B, h, w], class c in slot c; slots of absent classes hold garbage."""
    masks = np.stack([labels == c for c in range(num_slots)], 1)
    valid = masks.any((2, 3))
    return Segments(
        classes=np.where(valid, np.arange(num_slots), 77).astype(np.int32),
        masks=masks | ~valid[:, :, None, None],
        valid=valid,
        score=np.where(valid, 0.9, np.nan).astype(np.float32),
        known=labels != VOID,
    )


def random_cut(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 3, VOID], p=[0.4, 0.3, 0.14, 0.06, 0.1], size=(4, 6, 7))
    labels[1][labels[1] == 2] = VOID  # an image that lacks a class
    box = np.zeros((4, 6, 7), bool)
    for b, (top, left) in enumerate(rng.integers(0, 4, (4, 2))):
        box[b, top : top + 3, left : left + 4] = True
    partner = (np.arange(4) + rng.integers(1, 4)) % 4
    return labels, box, partner.astype(np.int32), np.where(box, labels[partner], labels)


@pytest.mark.parametrize("merge", [True, False])
def test_cutmix_equals_painting(merge):
    for seed in range(5):
        labels, box, partner, painted = random_cut(seed)
        got, dropped = cutmix(
            segments_of(labels, 5), box, partner, max_segments=10, min_area=1, merge=merge
        )
        np.testing.assert_array_equal(label_map(got), painted)
        np.testing.assert_array_equal(got.known, painted != VOID)
        np.testing.assert_array_equal(dropped, 0)
        assert np.asarray(got.masks).sum(1).max() == 1
        assert np.isfinite(got.score).all()
        for b in range(4):
            count = len(set(painted[b].ravel()) - {VOID})
            if not merge:  # segments inside and outside of the box count separately
                count = sum(
                    len(set(painted[b][part].ravel()) - {VOID}) for part in (box[b], ~box[b])
                )
            assert got.valid[b].sum() == count
        np.testing.assert_allclose(got.score[got.valid], 0.9, rtol=1e-6)


def test_cutmix_drops_what_is_small_and_what_finds_no_slot():
    for seed in range(5):
        labels, box, partner, painted = random_cut(seed)
        got, dropped = cutmix(
            segments_of(labels, 5), box, partner, max_segments=2, min_area=4, merge=True
        )
        for b in range(4):
            classes, area = np.unique(painted[b][painted[b] != VOID], return_counts=True)
            large = {int(c): int(n) for c, n in zip(classes, area) if n >= 4}
            kept = np.asarray(got.classes)[b][np.asarray(got.valid)[b]]
            areas = [large[int(c)] for c in kept]
            assert areas == sorted(large.values(), reverse=True)[:2]
            assert dropped[b] == max(len(large) - 2, 0)
            expected = np.where(np.isin(painted[b], kept), painted[b], VOID)
            np.testing.assert_array_equal(label_map(got)[b], expected)


def test_cutmix_without_a_box_changes_nothing():
    labels, box, partner, _ = random_cut(0)
    run = functools.partial(cutmix, max_segments=10, min_area=1, merge=True)
    got, _ = run(segments_of(labels, 5), np.zeros_like(box), partner)
    np.testing.assert_array_equal(label_map(got), labels)
    got, _ = run(segments_of(labels, 5), np.ones_like(box), partner)
    np.testing.assert_array_equal(label_map(got), labels[partner])


def test_semantic_segments_add_up_queries_of_a_class():
    """Two queries, 0.5 and 0.4 sure of class 0, together win pixel 0; class 1 has pixel 2."""
    on, off = 30.0, -30.0
    classes = jnp.log(jnp.array([[[0.5, 0.1, 0.4], [0.4, 0.2, 0.4], [0.05, 0.9, 0.05]]]))
    masks = jnp.array([[[[on, on, off, off]], [[on, off, off, off]], [[off, off, on, on]]]])
    valid = jnp.array([[[True, True, True, False]]])
    scores = semantic_scores(classes, masks)
    segments, dropped = pseudo_segments.semantic_segments(
        scores, valid, max_segments=2, thresholds=jnp.full(2, 0.7), min_area=1
    )
    np.testing.assert_array_equal(sg.label_map(segments), [[[0, 255, 1, 255]]])
    np.testing.assert_array_equal(segments.known, valid)
    np.testing.assert_allclose(np.sort(segments.score[0]), [0.9, 0.9], atol=1e-6)
    assert segments.valid.all() and dropped[0] == 0
    one, dropped = pseudo_segments.semantic_segments(
        scores, valid, max_segments=1, thresholds=jnp.full(2, 0.4), min_area=1
    )
    np.testing.assert_array_equal(sg.label_map(one), [[[0, 0, 255, 255]]])
    assert dropped[0] == 1
    own, _ = pseudo_segments.semantic_segments(
        scores, valid, max_segments=2, thresholds=jnp.array([0.8, 0.95]), min_area=1
    )
    np.testing.assert_array_equal(sg.label_map(own), [[[0, 255, 255, 255]]])
