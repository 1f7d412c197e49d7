"""rc2l_jax/method/matching.py: costs as Hugging Face's, assignments as scipy's, no hang in pmap."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from transformers.models.maskformer import modeling_maskformer as hf

from rc2l_jax.method import matching
from rc2l_jax.structs import Segments

NUM_CLASSES = 6
WEIGHTS = {
    "class_weight": 1.0,
    "focal_weight": 20.0,
    "dice_weight": 1.0,
    "focal_alpha": 0.25,
    "focal_gamma": 2.0,
}

# Compiled, as that takes a fraction of the time of running operation by operation.
matching_cost = jax.jit(matching.matching_cost, static_argnames="focal_gamma")
assign = jax.jit(matching.assign, static_argnames="matcher")


def random_inputs(seed, counts, *, num_queries=9, slots=7, size=(8, 12)):
    rng = np.random.default_rng(seed)
    batch = len(counts)
    class_logits = rng.normal(size=(batch, num_queries, NUM_CLASSES + 1)).astype(np.float32) * 2
    mask_logits = rng.normal(size=(batch, num_queries, *size)).astype(np.float32) * 4
    segments = Segments(
        classes=rng.integers(0, NUM_CLASSES, (batch, slots)).astype(np.int32),
        masks=rng.random((batch, slots, *size)) < 0.3,
        valid=np.arange(slots) < np.asarray(counts)[:, None],
        score=np.ones((batch, slots), np.float32),
        known=np.ones((batch, *size), bool),
    )
    return class_logits, mask_logits, segments


def total_cost(cost, assignment):
    slots = np.flatnonzero(assignment.matched)
    return np.asarray(cost, np.float64)[np.asarray(assignment.query)[slots], slots].sum()


def scipy_cost(cost, valid):
    cost = np.asarray(cost, np.float64)[:, valid]
    return cost[linear_sum_assignment(cost)].sum()


def test_costs_and_assignments_equal_hugging_face(monkeypatch):
    counts = [0, 1, 7, 3]
    class_logits, mask_logits, segments = random_inputs(0, counts)
    peer_costs = []

    def record(cost):
        peer_costs.append(cost.numpy())
        return linear_sum_assignment(cost)

    monkeypatch.setattr(hf, "linear_sum_assignment", record)
    matcher = hf.MaskFormerHungarianMatcher(cost_class=1.0, cost_mask=20.0, cost_dice=1.0)
    peer = matcher(
        torch.tensor(mask_logits),
        torch.tensor(class_logits),
        [torch.tensor(m[:n], dtype=torch.float32) for m, n in zip(segments.masks, counts)],
        [torch.tensor(c[:n], dtype=torch.int64) for c, n in zip(segments.classes, counts)],
    )

    cost = matching_cost(class_logits, mask_logits, segments, **WEIGHTS)
    assert cost.dtype == jnp.float32
    for matcher in ("host", "device"):
        assignment, ok = assign(cost, segments.valid, matcher=matcher)
        assert ok.all()
        np.testing.assert_array_equal(assignment.matched, segments.valid)
        for i, n in enumerate(counts):
            np.testing.assert_allclose(cost[i, :, :n], peer_costs[i], rtol=1e-5, atol=1e-6)
            rows, cols = peer[i]
            np.testing.assert_array_equal(assignment.query[i, cols.numpy()], rows.numpy())


def test_cost_of_a_perfect_prediction_is_minus_one():
    _, _, segments = random_inputs(1, [2, 2], slots=2)
    class_logits = 50 * jax.nn.one_hot(segments.classes, NUM_CLASSES + 1)
    mask_logits = jnp.where(segments.masks, 50.0, -50.0)
    cost = matching_cost(class_logits, mask_logits, segments, **WEIGHTS)
    np.testing.assert_allclose(jnp.diagonal(cost[0]), -1.0, atol=1e-5)
    # With the other segment's mask, each pixel that differs costs 50 x alpha or 50 x (1 - alpha).
    assert cost[0, 0, 1] > 1.0


def test_void_pixels_do_not_enter_the_cost():
    class_logits, mask_logits, segments = random_inputs(2, [3, 2])
    known = np.random.default_rng(2).random(segments.known.shape) < 0.6
    clean = matching_cost(class_logits, mask_logits, segments.replace(known=known), **WEIGHTS)
    poisoned = matching_cost(
        class_logits,
        np.where(known[:, None], mask_logits, np.nan),
        segments.replace(known=known, masks=segments.masks ^ ~known[:, None]),
        **WEIGHTS,
    )
    np.testing.assert_array_equal(clean, poisoned)
    # If only the left half is known, the cost is the one of an image that ends there.
    half = segments.replace(known=np.broadcast_to(np.arange(12) < 6, segments.known.shape))
    cut = segments.replace(masks=segments.masks[..., :6], known=segments.known[..., :6])
    np.testing.assert_allclose(
        matching_cost(class_logits, mask_logits, half, **WEIGHTS),
        matching_cost(class_logits, mask_logits[..., :6], cut, **WEIGHTS),
        rtol=1e-5,
    )
    nothing = segments.replace(known=np.zeros_like(segments.known))
    assert jnp.isfinite(matching_cost(class_logits, mask_logits, nothing, **WEIGHTS)).all()


def test_garbage_in_invalid_slots_changes_nothing():
    class_logits, mask_logits, segments = random_inputs(3, [0, 4])
    valid = segments.valid
    poisoned = segments.replace(
        classes=np.where(valid, segments.classes, 10**6).astype(np.int32),
        masks=np.where(valid[..., None, None], segments.masks, np.nan).astype(np.float32),
        score=np.where(valid, segments.score, np.nan),
    )
    clean = matching_cost(class_logits, mask_logits, segments, **WEIGHTS)
    dirty = matching_cost(class_logits, mask_logits, poisoned, **WEIGHTS)
    np.testing.assert_array_equal(clean, dirty)
    assert (np.asarray(clean).transpose(0, 2, 1)[~valid] == 0).all()

    for matcher in ("host", "device"):
        expected, _ = assign(clean, valid, matcher=matcher)
        got, ok = assign(jnp.where(valid[:, None], clean, jnp.nan), valid, matcher=matcher)
        assert ok.all()
        np.testing.assert_array_equal(got.query, expected.query)
        np.testing.assert_array_equal(got.matched, expected.matched)


def test_no_gradient_passes_through_the_cost():
    class_logits, mask_logits, segments = random_inputs(4, [2, 0])

    def total(class_logits, mask_logits):
        return matching_cost(class_logits, mask_logits, segments, **WEIGHTS).sum()

    grads = jax.grad(total, argnums=(0, 1))(class_logits, mask_logits)
    assert all((g == 0).all() for g in grads)


@pytest.mark.parametrize("matcher", ["host", "device"])
@pytest.mark.parametrize("shape", [(8, 8), (20, 6), (6, 20), (1, 5)])
@pytest.mark.parametrize("ties", [False, True])
def test_assignments_are_optimal(matcher, shape, ties):
    rng = np.random.default_rng(5)
    num_queries, slots = shape
    cost = rng.normal(size=(12, num_queries, slots)).astype(np.float32) * 10
    if ties:
        cost = np.round(cost / 10)
    valid = rng.random((12, slots)) < rng.random((12, 1))
    valid[0], valid[1] = True, False
    assignment, ok = assign(cost, valid, matcher=matcher)
    assert ok.all()
    assert assignment.query.dtype == jnp.int32
    for i in range(12):
        one = jax.tree.map(lambda x, i=i: np.asarray(x[i]), assignment)
        queries = one.query[one.matched]
        assert len(set(queries)) == len(queries) == min(num_queries, valid[i].sum())
        assert not (one.matched & ~valid[i]).any()
        expected = scipy_cost(cost[i], valid[i])
        np.testing.assert_allclose(total_cost(cost[i], one), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("matcher", ["host", "device"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e35])
def test_a_bad_cost_leaves_its_image_alone_unmatched(matcher, bad):
    rng = np.random.default_rng(6)
    cost = rng.normal(size=(3, 10, 4)).astype(np.float32)
    valid = np.ones((3, 4), bool)
    expected, _ = assign(cost, valid, matcher=matcher)
    cost[1, 7, 2] = bad
    got, ok = assign(cost, valid, matcher=matcher)
    np.testing.assert_array_equal(ok, [True, False, True])
    assert not got.matched[1].any()
    for i in (0, 2):
        assert got.matched[i].all()
        np.testing.assert_array_equal(got.query[i], expected.query[i])


@pytest.mark.parametrize("matcher", ["host", "device"])
def test_leading_axes_vmap_and_empty_batches(matcher):
    rng = np.random.default_rng(7)
    cost = rng.normal(size=(2, 3, 9, 4)).astype(np.float32)
    valid = rng.random((2, 3, 4)) < 0.7

    def query(c, v):
        return assign(c, v, matcher=matcher)[0].query

    expected = np.stack([[query(c, v) for c, v in zip(*pair)] for pair in zip(cost, valid)])
    np.testing.assert_array_equal(query(cost, valid), expected)
    np.testing.assert_array_equal(jax.jit(jax.vmap(query))(cost, valid), expected)
    for shape in [(0, 9, 4), (2, 9, 0), (2, 0, 4)]:
        empty = jnp.zeros(shape)
        assignment, ok = assign(empty, jnp.ones((shape[0], shape[2]), bool), matcher=matcher)
        assert assignment.query.shape == (shape[0], shape[2])
        assert not assignment.matched.any()
        assert ok.shape == shape[:1]
        assert ok.all()


def test_costs_larger_than_one_callback_argument():
    """300 x 200 costs are split into several arguments, which must be joined in order."""
    cost = np.random.default_rng(8).normal(size=(3, 300, 200)).astype(np.float32)
    valid = np.ones((3, 200), bool)
    assert cost[0].size > matching._PIECE_SIZE
    assignment, _ = assign(cost, valid, matcher="host")
    for i in range(3):
        rows, cols = linear_sum_assignment(cost[i])
        np.testing.assert_array_equal(assignment.query[i, cols], rows)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="matcher = 'scipy'"):
        matching.assign(jnp.zeros((2, 3)), jnp.ones(3, bool), matcher="scipy")
    with pytest.raises(ValueError, match=r"needs valid \(2, 4\), not \(2, 3\)"):
        matching.assign(jnp.zeros((2, 3, 4)), jnp.ones((2, 3), bool), matcher="host")


EIGHT_DEVICES = """
import faulthandler
faulthandler.dump_traceback_later(240, exit=True)
import jax, jax.numpy as jnp, numpy as np
from rc2l_jax.method.matching import assign

assert jax.device_count() == 8

def step(weights, cost, valid):
    busy = weights @ weights @ weights
    first, ok = assign(cost + 1e-9 * busy.mean(), valid, matcher="host")
    second, _ = assign(cost[:6], valid[:6], matcher="host")
    return first.query, jax.lax.psum(busy.sum() + first.query.sum() + second.query.sum(), "batch")

rng = np.random.default_rng(0)
weights = jnp.asarray(rng.normal(size=(8, 256, 256)), jnp.float32)
cost = jnp.asarray(rng.normal(size=(8, 16, 50, 32)), jnp.float32)
valid = jnp.asarray(rng.random((8, 16, 32)) < 0.5)
run = jax.pmap(step, axis_name="batch")
for _ in range(50):  # not blocked on: steps pile up, as in training
    query, total = run(weights, cost, valid)
expected, _ = assign(cost, valid, matcher="host")
np.testing.assert_array_equal(np.where(valid, query, 0), np.where(valid, expected.query, 0))
print("finished")
"""


def test_callbacks_on_eight_devices_do_not_hang():
    """With an argument of 100 KiB or more the callback hangs; the program then dumps its stacks."""
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == "finished", done.stderr[-4000:]
