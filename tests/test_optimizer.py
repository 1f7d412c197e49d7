"""rc2l_jax/method/optimizer.py, and `ema_update` of teacher.py.

Every parameter of MaskFormer has one rule, and steps are those of torch's AdamW.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax.traverse_util import flatten_dict, unflatten_dict

from configs import base
from rc2l_jax.method import optimizer
from rc2l_jax.method.teacher import ema_update
from rc2l_jax.models import build_model, resnet

# --- Parameter groups ---


@pytest.mark.parametrize(
    ("norm", "stem", "bottleneck"),
    [
        ("frozen", "basic", True),
        ("batch", "deeplab", True),
        ("group", "basic", False),
        ("group", "deeplab", True),
    ],
)
def test_every_parameter_falls_under_exactly_one_rule(norm, stem, bottleneck, monkeypatch):
    monkeypatch.setitem(
        resnet.BACKBONES, "tiny", resnet.Architecture(bottleneck=bottleneck, depths=(1, 1, 1, 1))
    )
    config = base.get_config()
    config.model.update(
        backbone="tiny",
        norm=norm,
        stem=stem,
        backbone_width=8,
        pixel_dim=32,
        mask_dim=32,
        hidden_dim=32,
        ffn_dim=32,
        num_decoder_layers=2,
    )
    model = build_model(config)
    params = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False), jax.random.PRNGKey(0)
    )["params"]
    rules = optimizer.parameter_rules(config)
    groups = flatten_dict(optimizer.parameter_groups(params, rules))
    assert len(groups) > 50
    # Norms are recognised by what they hold, not by name: only they have a scale.
    norms = {path[:-1] for path in groups if path[-1] == "scale"}
    for path, group in groups.items():
        rule = rules[group]
        decays = path[:-1] not in norms and path != ("query_embed",)
        assert rule.weight_decay == (config.weight_decay if decays else 0.0), path
        rate = config.backbone_lr_multiplier if path[0] == "backbone" else 1.0
        assert rule.learning_rate_multiplier == rate, path
    in_backbone = {path for path in norms if path[0] == "backbone"}
    assert bool(in_backbone) == (norm != "frozen")
    assert {path[0] for path in norms - in_backbone} == {"pixel_decoder", "transformer"}


@pytest.mark.parametrize(
    "path",
    ["neck/conv/kernel", "scale", "query_embedding", "class_header/kernel", "class_head/norm"],
)
def test_an_unknown_parameter_raises(path):
    rules = optimizer.parameter_rules(base.get_config())
    with pytest.raises(ValueError, match=f"'{path}' falls under 0"):
        optimizer.group_of(path, rules)
    with pytest.raises(ValueError, match="exactly one"):
        optimizer.parameter_groups(unflatten_dict({tuple(path.split("/")): 1.0}), rules)


def test_a_parameter_under_two_rules_raises():
    rules = optimizer.parameter_rules(base.get_config())
    rules["again"] = optimizer.Rule(r"backbone/.*", 1.0, 0.0)
    with pytest.raises(ValueError, match=r"falls under 2 .*'backbone', 'again'"):
        optimizer.group_of("backbone/stem/kernel", rules)


# --- Steps, against torch ---

# Parameter -> (is it in the backbone?, does it decay?).
GROUPS = {
    ("backbone", "stem_conv1", "kernel"): (True, True),
    ("backbone", "stem_norm1", "scale"): (True, False),
    ("backbone", "stem_norm1", "bias"): (True, False),
    ("pixel_decoder", "output5", "kernel"): (False, True),
    ("pixel_decoder", "output5_norm", "scale"): (False, False),
    ("transformer", "layer1", "ffn1", "bias"): (False, True),
    ("transformer", "layer1", "ffn_norm", "bias"): (False, False),
    ("class_head", "bias"): (False, True),
    ("mask_head", "layer1", "kernel"): (False, True),
    ("query_embed",): (False, False),
}


def optimizer_config():
    config = base.get_config()
    config.num_steps = 10
    config.learning_rate = 0.02
    config.weight_decay = 0.3
    config.grad_clip_norm = 1.5
    return config


def test_steps_equal_torch():
    config = optimizer_config()
    rng = np.random.default_rng(0)
    params = {path: rng.normal(size=(4, 3)).astype(np.float32) for path in GROUPS}
    weights = {k: torch.tensor(v, dtype=torch.float64) for k, v in params.items()}
    adamw = torch.optim.AdamW(
        [
            {
                "params": [weights[path]],
                "lr": config.learning_rate * (0.1 if slow else 1.0),
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for path, (slow, decays) in GROUPS.items()
        ]
    )
    poly = torch.optim.lr_scheduler.LambdaLR(adamw, lambda step: (1 - step / 10) ** 0.9)

    tree = unflatten_dict(params)
    optim = optimizer.create_optimizer(config)
    state = optim.init(tree)
    update = jax.jit(optim.update)
    # The gradients' global norms are about 11, 55 and 0.05: the first two are clipped.
    for scale in (1.0, 5.0, 0.005):
        grads = {path: scale * rng.normal(size=(4, 3)).astype(np.float32) for path in GROUPS}
        for path, weight in weights.items():
            weight.grad = torch.tensor(grads[path], dtype=torch.float64)
        torch.nn.utils.clip_grad_norm_(weights.values(), config.grad_clip_norm)
        adamw.step()
        poly.step()
        updates, state = update(unflatten_dict(grads), state, tree)
        tree = optax.apply_updates(tree, updates)
        for path, got in flatten_dict(tree).items():
            np.testing.assert_allclose(got, weights[path], rtol=1e-5, atol=1e-6, err_msg=path)
    moved = np.abs(np.asarray(tree["class_head"]["bias"]) - params["class_head", "bias"]).max()
    assert moved > 0.01


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_steps_and_state_are_those_of_optax(scale):
    """Clipped or not, with the norm given or taken; and an old checkpoint's state still fits."""
    config = optimizer_config()
    rng = np.random.default_rng(0)

    def draw():
        return unflatten_dict({path: rng.normal(size=(4, 3)).astype(np.float32) for path in GROUPS})

    params, grads = draw(), jax.tree.map(lambda x: scale * x, draw())
    optim = optimizer.create_optimizer(config)
    plain = optax.chain(optax.clip_by_global_norm(config.grad_clip_norm), *_after_clipping(config))
    state = plain.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(optim.init(params))
    expected, new_state = plain.update(grads, state, params)
    total = optimizer.global_norm(grads)
    assert (total > config.grad_clip_norm) == (scale == 1.0)
    np.testing.assert_allclose(total, optax.global_norm(grads), rtol=1e-6)
    for given in ({}, {"norm": total}):
        got = optim.update(grads, state, params, **given)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, (expected, new_state)
        )


def _after_clipping(config):
    """optax's own names for what follows the clip in `create_optimizer`."""
    rules = optimizer.parameter_rules(config)
    by_rule = {
        name: optax.chain(
            optax.add_decayed_weights(rule.weight_decay), optax.scale(rule.learning_rate_multiplier)
        )
        for name, rule in rules.items()
    }
    return (
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.multi_transform(by_rule, lambda tree: optimizer.parameter_groups(tree, rules)),
        optax.scale_by_learning_rate(optimizer.learning_rate_schedule(config)),
    )


def test_schedule():
    config = optimizer_config()
    rate = optimizer.learning_rate_schedule(config)
    expected = [0.02 * (1 - step / 10) ** 0.9 for step in range(11)]
    np.testing.assert_allclose([rate(step) for step in range(11)], expected, atol=1e-9)
    config.warmup_steps = 4
    rate = optimizer.learning_rate_schedule(config)
    expected = [x * min((step + 1) / 4, 1) for step, x in enumerate(expected)]
    np.testing.assert_allclose([rate(step) for step in range(11)], expected, atol=1e-9)


# --- The teacher ---


def test_teacher_is_the_mean_of_the_students_until_the_decay_takes_over():
    students = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    teacher = {"a": {"b": jnp.full(3, 100.0)}, "c": jnp.full(3, 100.0)}
    expected = None
    for step, student in enumerate(students):
        teacher = ema_update(teacher, {"a": {"b": student}, "c": -student}, 0.75, jnp.asarray(step))
        # The decay 1 - 1 / (step + 1) reaches 0.75 at step 3; until then this is the plain mean.
        mean = students[: step + 1].mean(0)
        expected = mean if step <= 3 else 0.75 * expected + 0.25 * student
        np.testing.assert_allclose(teacher["a"]["b"], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(teacher["c"], -expected, rtol=1e-5, atol=1e-6)


def test_ema_by_hand():
    """Late in a run Eq. 4 holds as it is: 0.99 x 2 + 0.01 x 12."""
    got = ema_update({"w": jnp.array([2.0])}, {"w": jnp.array([12.0])}, 0.99, jnp.asarray(10_000))
    np.testing.assert_allclose(got["w"], [2.1], rtol=1e-6)
