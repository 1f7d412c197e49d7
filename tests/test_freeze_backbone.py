"""`model.freeze_backbone`: the backbone stays what it is, and nothing is kept to train it."""

from __future__ import annotations

import flax
import jax
import numpy as np
import optax
import pytest
import tiny
from test_train_step import Setup

from rc2l_jax.method.train_step import batch_gradients
from rc2l_jax.run.checkpoints import Checkpoints
from rc2l_jax.run.config import ConfigError, validate
from rc2l_jax.structs import AXIS


@pytest.fixture(scope="module")
def frozen() -> Setup:
    """Norm "batch", whose statistics must stay, too; weight decay that would show."""
    return Setup(model__freeze_backbone=True, model__norm="batch", weight_decay=0.1)


@pytest.fixture(scope="module")
def ran(frozen):
    """The state of step 0, and that after two steps."""
    return frozen.start(), frozen.run(2)[0]


def flat(tree) -> dict[str, np.ndarray]:
    return {key: np.asarray(x) for key, x in flax.traverse_util.flatten_dict(tree, sep="/").items()}


@pytest.mark.slow
def test_only_the_rest_changes(ran):
    before, after = (flat(state.params) for state in ran)
    changed = {key for key in before if not np.array_equal(before[key], after[key])}
    assert not any(key.startswith("backbone/") for key in changed)
    rest = {key for key in before if not key.startswith("backbone/")}
    # Some biases have no gradient (those of attention keys), and 0 does not decay.
    assert {key for key in rest if key.endswith("kernel")} < changed
    before, after = (flat(state.batch_stats) for state in ran)
    assert before and all(np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.slow
def test_optimiser_and_teacher_have_none_of_it(ran):
    _, state = ran
    learned = set(state.params) - {"backbone"}
    (adam,) = (s for s in state.opt_state if isinstance(s, optax.ScaleByAdamState))
    assert set(adam.mu) == set(adam.nu) == set(state.teacher_params) == learned
    teacher = state.teacher["params"]
    assert teacher["backbone"] is state.params["backbone"]
    assert teacher["class_head"] is state.teacher_params["class_head"]


@pytest.mark.slow
def test_the_other_gradients_are_those_without_freezing(frozen):
    def gradients(setup):
        def of(state, batch):
            return batch_gradients(state, batch, setup.model, setup.config)[0]

        device = jax.devices()[:1]
        mapped = jax.pmap(of, AXIS, in_axes=(None, 0), out_axes=None, devices=device)
        return flat(mapped(setup.start(), tiny.batch(1)))

    # With norm "batch", freezing changes the forward pass as well.
    mine = gradients(Setup(model__freeze_backbone=True))
    whole = gradients(Setup())
    assert set(whole) - set(mine) == {key for key in whole if key.startswith("backbone/")}
    for key, value in mine.items():
        scale = np.abs(whole[key]).max()
        np.testing.assert_allclose(value, whole[key], atol=1e-5 * max(scale, 1e-6), err_msg=key)


@pytest.mark.slow
def test_a_checkpoint_holds_it_once_and_both_networks_are_read_whole(ran, tmp_path):
    _, state = ran
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {"best": None})
        checkpoints.wait()
        _, networks, _ = checkpoints.restore_networks(state)
        teacher = checkpoints.restore_teacher()
    backbone = {f"backbone/{key}": x for key, x in flat(state.params["backbone"]).items()}
    for found in (flat(networks[name]["params"]) for name in ("student", "teacher")):
        assert set(found) == set(flat(state.params))
        assert all(np.array_equal(found[key], x) for key, x in backbone.items())
    head = np.asarray(state.teacher_params["class_head"]["kernel"])
    assert np.array_equal(networks["teacher"]["params"]["class_head"]["kernel"], head)
    assert not np.array_equal(head, state.params["class_head"]["kernel"])
    assert np.array_equal(teacher["class_head/kernel"], head)
    assert all(np.array_equal(teacher[key], x) for key, x in backbone.items())
    assert set(teacher) == set(flat(state.params)) | set(flat(state.batch_stats))


def test_random_weights_are_not_frozen_and_resnets_settings_are_refused():
    data = {"data__name": "folder", "data__labeled_split": "a", "data__unlabeled_split": "b"}
    with pytest.raises(ConfigError, match="freeze_backbone = True without init_from"):
        validate(tiny.config(model__freeze_backbone=True, **data), 1)
    config = tiny.config(
        model__backbone="efficientnet_lite0", model__stem="deeplab", init_from="x", **data
    )
    with pytest.raises(ConfigError) as error:
        validate(config, 1)
    for name, value in (("backbone_width", "4"), ("stem", "'deeplab'"), ("norm", "'group'")):
        assert f"model.{name} = {value} is of ResNets" in str(error.value)
    config.model.update(backbone_width=64, stem="basic", norm="frozen", freeze_backbone=True)
    config.model.backbone_head = True
    validate(config, 1)
    config.model.backbone = "resnet50"
    with pytest.raises(ConfigError, match=r"model\.backbone_head = True is of EfficientNets"):
        validate(config, 1)
