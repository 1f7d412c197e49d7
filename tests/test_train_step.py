"""rc2l_jax/method/train_step.py: what must hold for whole steps.

Runs repeat bit by bit, and continue so from a copied state. The number of devices changes nothing.
Steps with nothing to learn from, or with NaN, do no harm. The teacher gets no gradient.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
import trained as trained_run

from rc2l_jax.method import train_step
from rc2l_jax.method.state import create_train_state
from rc2l_jax.method.train_step import total_loss
from rc2l_jax.structs import AXIS
from rc2l_jax.training.averages import summarize
from rc2l_jax.training.devices import parallel_train_step, replicate

ROOT = Path(__file__).parents[1]
WHOLE = {
    "model__dropout": 0.1,
    "pseudo__class_alignment": 1.0,
    "pseudo__prototype_check": True,
    "unsup_start_step": 1,
    "unsup_ramp_steps": 2,
    "unsup_weight": 4.0,
}


class Setup:
    """A compiled step and copies of the state it starts from (the step takes its state away)."""

    def __init__(self, **overrides):
        self.config = tiny.config(**overrides)
        self.model, self.optimizer, state = create_train_state(self.config)
        self.initial = jax.tree.map(np.array, state)
        self.step = parallel_train_step(self.model, self.optimizer, self.config)

    def start(self, num_devices: int = 1):
        state = jax.tree.map(jnp.array, self.initial)
        return replicate(state, num_devices)

    def run(self, steps: int, num_devices: int = 1, batch_fn=tiny.batch, state=None):
        state = self.start(num_devices) if state is None else state
        losses = []
        for i in range(int(state.step), int(state.step) + steps):
            state, metrics = self.step(state, batch_fn(num_devices, seed=i))
            losses.append(summarize(jax.tree.map(np.asarray, metrics)))
        return jax.tree.map(np.asarray, state), losses


@pytest.fixture(scope="module")
def setup():
    """The whole method with all that is random turned on, a burn-in of one step, and a ramp."""
    with pytest.MonkeyPatch.context() as patch:
        result, traces = Setup(**WHOLE), []

        def traced(*arguments, **named):
            traces.extend(0 for x in (*arguments, *named.values()) if x is result.config)
            return total_loss(*arguments, **named)

        patch.setattr(train_step, "total_loss", traced)
        yield result
        assert len(traces) == 1  # all tests that use this fixture compiled the step once


@pytest.fixture(scope="module")
def plain() -> Setup:
    """A step with batch norm.

    The class head's weights are enlarged, and pseudo segments come from class scores: an untrained
    network is near ties, and float noise would choose segments.
    """
    setup = Setup(
        model__norm="batch",
        model__num_decoder_layers=1,
        pseudo__source="semantic",
        pseudo__pixel_threshold=0.0,
    )
    for params in (setup.initial.params, setup.initial.teacher_params):
        params["class_head"]["kernel"] *= 20.0
    return setup


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.slow
def test_two_runs_are_bit_identical_and_every_term_is_there(setup):
    state, losses = setup.run(3)
    again, losses_again = setup.run(3)
    assert losses == losses_again
    assert same(state, again)
    terms = {"label_class", "label_focal", "label_dice", "label", "unlabel", "total"}
    terms |= {"unlabel_rcc", "unlabel_smc", "unlabel_rmc", "unlabel_rfc"}
    assert {f"loss/{term}" for term in terms} <= set(losses[-1])
    assert all(np.isfinite(v) for v in losses[-1].values())
    assert losses[-1]["pseudo/segments"] > 0


@pytest.mark.slow
def test_continuing_from_a_copied_state_is_bit_identical(setup):
    whole, losses = setup.run(4)
    half, _ = setup.run(2)
    rest, rest_losses = setup.run(2, state=replicate(jax.tree.map(jnp.array, half), 1))
    assert losses[2:] == rest_losses
    assert same(whole, rest)


class Trained(Setup):
    """The whole method, going on from a trained network, with eight drawn images of each kind."""

    def __init__(self, run: Path):
        self.config, self.model, self.optimizer, self.initial = trained_run.restore(run, images=8)
        self.step = parallel_train_step(self.model, self.optimizer, self.config)

    def batch(self, num_devices: int, seed: int):
        whole = trained_run.batch(self.config, seed)
        return jax.tree.map(lambda x: x.reshape(num_devices, -1, *x.shape[1:]), whole)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return Trained(trained_run.unpack(tmp_path_factory.mktemp("former")))


# `faults/test_processes.py` has more devices, more steps and several processes.
@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 8])
def test_the_number_of_devices_changes_nothing(trained, devices):
    one, losses_one = trained.run(3, 1, trained.batch)
    many, losses_many = trained.run(3, devices, trained.batch)
    assert losses_one[0]["pseudo/segments"] > 1
    for alone, together in zip(losses_one, losses_many):
        assert alone.keys() == together.keys()
        for name, value in alone.items():
            np.testing.assert_allclose(together[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(together["loss/total"], alone["loss/total"], rtol=1e-5)
    moved = np.linalg.norm(flat(one.params) - flat(trained.initial.params))
    for tree in ("params", "teacher_params"):
        apart = np.linalg.norm(flat(getattr(many, tree)) - flat(getattr(one, tree)))
        assert apart < 1e-2 * moved


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.slow
def test_batch_norm_has_the_statistics_of_all_devices(plain):
    """And the gradients, compared before the optimiser divides them by their size."""

    def after_a_step(num_devices):
        state, _ = plain.run(1, num_devices)
        (adam,) = (s for s in state.opt_state if isinstance(s, optax.ScaleByAdamState))
        return adam.mu, state.batch_stats  # a tenth of the clipped gradient

    (one, stats_one), (eight, stats_eight) = after_a_step(1), after_a_step(8)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), stats_one, stats_eight)
    largest = max(np.linalg.norm(x) for x in jax.tree.leaves(one))
    assert largest > 0
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(eight)):
        error = np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-4 * largest)
        assert error < 2e-3, (jax.tree_util.keystr(path), error)


@pytest.mark.slow
def test_the_teacher_has_no_gradient(plain):
    def loss(teacher, state, batch):
        state = state.replace(teacher_params=teacher)
        return total_loss(state.params, state, batch, 0, plain.model, plain.config)[0]

    gradient = jax.pmap(jax.grad(loss), axis_name=AXIS, in_axes=(None, None, 0), out_axes=0)
    state = plain.start()
    gradients = gradient(state.teacher_params, state, tiny.batch(1))
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(gradients))


@pytest.mark.slow
def test_eight_devices_run_many_steps_with_the_host_matcher(plain):
    _, losses = plain.run(10, num_devices=8)
    assert [x["match/nonfinite"] for x in losses] == [0.0] * 10


def empty_batch(num_devices: int, seed: int = 0):
    batch = tiny.batch(num_devices, seed=seed)
    return batch.replace(
        label=np.full_like(batch.label, 255),
        unlabeled_valid=np.zeros_like(batch.unlabeled_valid),  # leaves no pixel for a segment
    )


@pytest.mark.slow
def test_nothing_to_learn_from_is_finite_and_zero(setup):
    state, (losses,) = setup.run(1, batch_fn=empty_batch)
    # No mask was compared. What is left of Eq. 1 pushes every query to no-object, in each layer.
    assert not {"loss/label_focal", "loss/label_dice"} & set(losses)
    assert 0 < losses["loss/label_class"] < losses["loss/label"] < np.inf
    assert losses["loss/unlabel"] == 0.0
    assert losses["pseudo/segments"] == 0.0
    assert losses["nonfinite_steps"] == 0.0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_a_step_that_is_not_finite_changes_nothing(setup):
    before, _ = setup.run(1)
    poisoned = jax.tree.map(jnp.array, before)
    poisoned = poisoned.replace(
        params={**poisoned.params, "query_embed": poisoned.params["query_embed"].at[0].set(jnp.nan)}
    )
    after, (metrics,) = setup.run(1, state=replicate(poisoned, 1))
    assert metrics["nonfinite_steps"] == 1.0 and metrics["match/nonfinite"] > 0
    assert after.step == before.step + 1
    assert same(after.teacher_params, before.teacher_params)
    assert same(after.opt_state, before.opt_state)
    # The learning rate's schedule has not moved on either.
    healthy = jax.tree.map(jnp.array, after.replace(params=before.params))
    _, (late,) = setup.run(1, state=replicate(healthy, 1))
    _, (second,) = setup.run(1, state=replicate(jax.tree.map(jnp.array, before), 1))
    assert late["learning_rate"] == second["learning_rate"]


@pytest.mark.slow
def test_supervised_only_sees_no_unlabeled_image_and_consistency_only_its_own_term():
    supervised = Setup(unsup_weight=0.0)

    def no_images(d, seed=0):
        return tiny.batch(d, unlabeled=0, seed=seed)

    state, (losses,) = supervised.run(1, batch_fn=no_images)
    assert losses["loss/unlabel"] == 0.0 and not any(k.startswith("pseudo") for k in losses)
    assert losses["loss/total"] == losses["loss/label"]
    # After the first step the teacher is the student: the EMA's warm-up starts at 0.
    assert same(state.params, state.teacher_params)


@pytest.mark.slow
def test_burn_in_and_ramp(setup):
    _, losses = setup.run(4)
    assert [x["unsup_weight"] for x in losses] == [0.0, 2.0, 4.0, 4.0]
    for x in losses:
        expected = x["loss/label"] + x["unsup_weight"] * x["loss/unlabel"]
        np.testing.assert_allclose(x["loss/total"], expected, rtol=1e-5)


@pytest.mark.slow
def test_class_shares_of_both_kinds_of_images_are_kept(setup):
    """The first step counts in full, as nothing was seen before: shares are those of its batch."""
    state, _ = setup.run(1)
    shares, batch = state.class_shares, tiny.batch(1)
    visible = np.where(batch.valid[0], batch.label[0], 255)
    present = [sum((image == k).any() for image in visible) for k in range(tiny.NUM_CLASSES)]
    np.testing.assert_allclose(shares[0], np.array(present) / sum(present), rtol=1e-5)
    np.testing.assert_allclose(shares.sum(1), 1.0, rtol=1e-5)
    assert np.ptp(shares[1]) > 1e-4  # an untrained teacher prefers some class


@pytest.mark.slow
def test_the_labelled_segments_are_counted_among_the_prototypes(setup):
    """The first step counts in full; nothing is recognised before there are prototypes."""
    state, losses = setup.run(1)
    batch = tiny.batch(1)
    visible = np.where(batch.valid[0], batch.label[0], 255)
    present = [sum((image == k).any() for image in visible) for k in range(tiny.NUM_CLASSES)]
    *features, count, recognised = state.class_prototypes.T
    np.testing.assert_allclose(count, present, rtol=1e-5)
    assert (np.linalg.norm(features, axis=0) > 0).all() and recognised.sum() == 0
    assert losses[0]["pseudo/refused_segments"] == 0, "no class is judged so far"


def test_the_step_imports_no_tensorflow_and_opens_no_connection():
    code = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("a connection was opened")
socket.socket.connect = refuse
import rc2l_jax.method.train_step, configs.base
assert not [m for m in sys.modules if m.split(".")[0] in ("tensorflow", "tensorflow_datasets")]
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_student_sees_the_labelled_images_and_the_strong_views(monkeypatch):
    class Seen(Exception):
        """Stops the step where the student's images are known."""

    def student(model: object, params: object, state: object, images: list, *_: object):
        raise Seen(jnp.concatenate(images))

    config = tiny.config(data__color=False)
    batch = jax.tree.map(lambda x: jnp.asarray(x[0]), tiny.batch(1))
    shown = jnp.full(batch.unlabeled_image.shape, 7.0)
    monkeypatch.setattr(train_step, "step_keys", lambda *_: SimpleNamespace(color=None))
    monkeypatch.setattr(train_step, "weak_view", lambda *_: shown + 1)
    monkeypatch.setattr(train_step, "teacher_segments", lambda *_: SimpleNamespace(segments=None))
    monkeypatch.setattr(train_step, "strong_view", lambda *_: (shown, None))
    monkeypatch.setattr(train_step, "student_forward", student)
    state = SimpleNamespace(params={}, key=jax.random.key(0), step=jnp.int32(3))
    with pytest.raises(Seen) as seen:
        total_loss({}, state, batch, jnp.int32(0), None, config)
    np.testing.assert_array_equal(seen.value.args[0], [*batch.image.astype(float), *shown])
