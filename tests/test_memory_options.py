"""`accumulate_steps`, `remat` and `optimizer_dtype`: they save memory and change no result.

Only what each option says may change, such as rounding of a bfloat16 moment.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_train_step import Setup

from rc2l_jax.method.keys import step_keys
from rc2l_jax.method.optimizer import create_optimizer
from rc2l_jax.method.train_step import total_loss
from rc2l_jax.models.resnet import ResNet
from rc2l_jax.structs import AXIS

PARTS = 2


@pytest.mark.slow
def test_accumulated_gradients_are_the_mean_of_the_parts():
    setup = Setup(accumulate_steps=PARTS, model__num_decoder_layers=1)
    batch = tiny.batch(1)

    def of_part(state, batch, part):
        gradient = jax.grad(total_loss, has_aux=True)
        grads, (_, losses, metrics) = gradient(
            state.params, state, batch, part, setup.model, setup.config
        )
        return grads, losses, metrics

    one_part = jax.pmap(
        of_part,
        axis_name=AXIS,
        in_axes=(None, 0, None),
        out_axes=None,
        devices=jax.devices()[:1],
    )
    halves = [jax.tree.map(lambda x, i=i: x[:, i::PARTS], batch) for i in range(PARTS)]
    parts = [
        jax.tree.map(np.asarray, one_part(setup.start(), half, np.int32(i)))
        for i, half in enumerate(halves)
    ]
    state, (step, *_) = setup.run(1)

    def mean(*xs):
        return np.mean(xs, 0)

    losses = jax.tree.map(mean, *(part[1] for part in parts))
    for name, value in losses.items():
        np.testing.assert_allclose(step[f"loss/{name}"], value, rtol=1e-4, err_msg=name)
    assert abs(parts[0][1]["total"] - parts[1][1]["total"]) > 1e-3
    total, count = (sum(part[2]["loss/label_class"][i] for part in parts) for i in (0, 1))
    np.testing.assert_allclose(step["loss/label_class"], total / count, rtol=1e-4)

    grads = jax.tree.map(mean, *(part[0] for part in parts))
    norm = optax.global_norm(grads)
    np.testing.assert_allclose(step["grad_norm"], norm, rtol=1e-3)
    # After one step Adam's first moment is a tenth of the clipped gradient.
    clip = min(1.0, setup.config.grad_clip_norm / norm)
    (adam,) = (s for s in state.opt_state if isinstance(s, optax.ScaleByAdamState))
    for moment, gradient in zip(jax.tree.leaves(adam.mu), jax.tree.leaves(grads)):
        error = np.linalg.norm(moment - 0.1 * clip * gradient)
        assert error < 1e-3 * 0.1 * clip * max(np.linalg.norm(gradient), 1e-3 * norm)


@pytest.mark.parametrize("devices", [1, 2])
def test_what_is_drawn_for_an_image_depends_neither_on_parts_nor_on_devices(devices):
    state = Setup().start()

    def drawn(devices, parts):
        """The keys of each kind, in the order of the global batch."""

        def keys(batch):
            return [
                step_keys(state, jax.tree.map(lambda x, i=i: x[i::parts], batch), i, parts)
                for i in range(parts)
            ]

        found = jax.pmap(keys, axis_name=AXIS)(tiny.batch(devices))
        names = ("color", "unlabeled_color", "strong_color", "box")
        ordered = {
            name: np.stack([getattr(part, name) for part in found], 2).reshape(8, 2)
            for name in names
        }
        positions = [np.stack(np.split(part.positions, 2, axis=1)) for part in found]
        ordered["positions"] = np.stack(positions, 3).reshape(2, 8)
        return ordered

    whole, parts = drawn(1, 1), drawn(devices, PARTS)
    for name, keys in whole.items():
        np.testing.assert_array_equal(parts[name], keys, err_msg=name)
    np.testing.assert_array_equal(whole.pop("positions").ravel(), np.arange(16))
    assert len(np.unique(np.concatenate(list(whole.values())), axis=0)) == 4 * 8


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

    def close(a, b):
        return np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

    jax.tree.map(close, (grads, stats), (grads_again, stats_again))


def test_adams_first_moment_in_bfloat16():
    rng = np.random.default_rng(0)
    shapes = {"backbone": {"stem_conv1": {"kernel": (3, 3, 3, 8)}}, "query_embed": (5, 16)}

    def is_shape(x):
        return isinstance(x, tuple)

    def draw():
        return jax.tree.map(
            lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), shapes, is_leaf=is_shape
        )

    params, grads = draw(), [draw() for _ in range(5)]
    moved, moments = {}, {}
    for dtype in ("float32", "bfloat16"):
        adam = create_optimizer(tiny.config(optimizer_dtype=dtype, weight_decay=0.0))
        now, state = params, adam.init(params)
        for gradient in grads:
            updates, state = adam.update(gradient, state, now)
            now = optax.apply_updates(now, updates)
        (moments[dtype],) = (s for s in state if isinstance(s, optax.ScaleByAdamState))
        assert {x.dtype for x in jax.tree.leaves(moments[dtype].mu)} == {jnp.dtype(dtype)}
        assert {x.dtype for x in jax.tree.leaves(moments[dtype].nu)} == {jnp.dtype("float32")}
        moved[dtype] = jax.tree.map(lambda a, b: a - b, now, params)
    # bfloat16 has 8 bits of precision: parameters move by the same within a percent.
    for low, full in zip(*(jax.tree.leaves(moved[dtype]) for dtype in ("bfloat16", "float32"))):
        assert 0 < np.linalg.norm(low - full) < 0.01 * np.linalg.norm(full)
