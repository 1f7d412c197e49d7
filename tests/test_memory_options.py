"""Options that save memory and must not change what is learnt, beyond what they say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_train_step import Setup

from rc2l_jax.models.resnet import ResNet
from rc2l_jax.structs import AXIS
from rc2l_jax.train_step import batch_gradients, total_loss
from rc2l_jax.views import step_keys

PARTS = 2


def on_one_device(function, *args):
    """`function` under the step's axis, with one device."""
    mapped = jax.pmap(
        function, axis_name=AXIS, in_axes=(None, 0), out_axes=None, devices=jax.devices()[:1]
    )
    return jax.tree.map(np.asarray, mapped(*args))


@pytest.mark.slow
def test_accumulated_gradients_are_the_mean_of_the_parts():
    setup = Setup(accumulate_steps=PARTS)
    state, batch = setup.start(), tiny.batch(1)
    part = jax.grad(total_loss, has_aux=True)

    def one_by_one(state, batch):
        found = []
        for i in range(PARTS):
            half = jax.tree.map(lambda x, i=i: x[4 * i : 4 * i + 4], batch)
            grads, (_, losses, metrics) = part(
                state.params, state, half, jnp.int32(i), setup.model, setup.config
            )
            found.append((grads, losses, metrics))
        return found

    def accumulated(state, batch):
        grads, (_, losses, metrics) = batch_gradients(state, batch, setup.model, setup.config)
        return grads, losses, metrics

    grads, losses, metrics = on_one_device(accumulated, state, batch)
    parts = on_one_device(one_by_one, state, batch)
    close = lambda a, *bs: np.testing.assert_allclose(  # noqa: E731
        a, np.mean(bs, 0), rtol=1e-3, atol=1e-4 * max(np.abs(a).max(), 1e-3)
    )
    jax.tree.map(close, grads, *(x[0] for x in parts))
    jax.tree.map(close, losses, *(x[1] for x in parts))
    jax.tree.map(lambda a, *bs: close(a, sum(bs)), metrics, *(x[2] for x in parts))
    assert parts[0][1]["total"] != parts[1][1]["total"]

    _, steps = setup.run(2)
    np.testing.assert_allclose(steps[0]["loss/total"], losses["total"], rtol=1e-4)
    assert np.isfinite([step["loss/total"] for step in steps]).all()


def test_an_images_colour_and_box_do_not_depend_on_the_parts():
    state, whole = Setup().start(), jax.tree.map(lambda x: x[0], tiny.batch(1))
    together = step_keys(state, whole, jnp.int32(0))
    halves = [
        step_keys(state, jax.tree.map(lambda x, i=i: x[4 * i : 4 * i + 4], whole), jnp.int32(i))
        for i in range(PARTS)
    ]
    for name in ("color", "unlabeled_color", "strong_color", "box"):
        parts = np.concatenate([getattr(half, name) for half in halves])
        np.testing.assert_array_equal(getattr(together, name), parts)
        assert len(np.unique(parts, axis=0)) == 8
    assert (halves[0].dropout != halves[1].dropout).any()


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_remat_computes_blocks_again_and_changes_no_gradient(norm):
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    plain, remat = (
        ResNet(backbone="resnet18", width=4, stem="basic", norm=norm, remat=flag)
        for flag in (False, True)
    )
    variables = plain.init(jax.random.key(1), x, train=False)
    shapes = jax.eval_shape(lambda: remat.init(jax.random.key(1), x, train=False))
    assert jax.tree.structure(variables) == jax.tree.structure(shapes)

    def gradient(model):
        def loss(params):
            features, updated = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return sum((f**2).sum() for f in features), updated

        function = jax.jit(jax.grad(loss, has_aux=True))
        lowered = function.lower(variables["params"])
        return lowered.as_text().count("stablehlo.convolution"), function(variables["params"])

    (fewer, (grads, stats)), (more, (grads_again, stats_again)) = map(gradient, (plain, remat))
    assert more > fewer
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # noqa: E731
    jax.tree.map(close, (grads, stats), (grads_again, stats_again))


@pytest.mark.slow
def test_adams_first_moment_in_bfloat16():
    setup = Setup(optimizer_dtype="bfloat16", unsup_weight=0.0)
    state, losses = setup.run(3)
    full, full_losses = Setup(unsup_weight=0.0).run(3)
    (low,), (high,) = (
        [s for s in x.opt_state if isinstance(s, optax.ScaleByAdamState)] for x in (state, full)
    )
    assert {x.dtype for x in jax.tree.leaves(low.mu)} == {jnp.dtype("bfloat16")}
    assert {x.dtype for x in jax.tree.leaves(low.nu)} == {np.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(high.mu)} == {np.dtype("float32")}
    np.testing.assert_allclose(losses[-1]["loss/total"], full_losses[-1]["loss/total"], rtol=1e-2)
    for before, a, b in zip(
        *(jax.tree.leaves(x) for x in (setup.initial.params, state.params, full.params))
    ):
        # bfloat16 has 8 bits: the way gone is the same within a percent or two of it.
        assert np.linalg.norm(a - b) <= 0.03 * np.linalg.norm(b - before) + 1e-6
