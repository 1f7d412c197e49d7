"""Loss, gradients and optimiser steps of a whole network, beside transformers and torch.

The peer's `MaskFormerLoss` is called on each decoder layer's predictions, which is the original
MaskFormer's deep supervision. The peer's own auxiliary loss departs from that: it feeds the heads
with layers that have not passed the final LayerNorm. Like ours, the peer's loss divides by the
number of masks in the batch.
"""

from __future__ import annotations

from types import SimpleNamespace

import flax
import jax
import numpy as np
import pytest
import torch
from test_models import TINY, converted, peer_layers, peer_model, randomize, tiny_config
from transformers.models.maskformer import modeling_maskformer as hf

from rc2l_jax.method.optimizer import create_optimizer
from rc2l_jax.method.state import initial_state
from rc2l_jax.method.train_step import total_loss
from rc2l_jax.models import build_model, resnet
from rc2l_jax.models.pixels import normalize
from rc2l_jax.structs import Batch
from rc2l_jax.training.devices import parallel_train_step, replicate
from rc2l_jax.weights import names
from rc2l_jax.weights.load import start_from

SIZE, CLASSES, STEPS = 64, 5, 3


def configured():
    config = tiny_config(backbone="tiny_bottleneck", dropout=0.0)
    config.update_from_flattened_dict(
        {
            "data.crop_size": SIZE,
            "data.color": False,
            "unsup_weight": 0.0,
            "unlabeled_batch_size": 0,
            "ignore_void": False,
            "max_segments": CLASSES,
            "num_steps": 10,
            "learning_rate": 1e-3,  # the paper's changes the loss too little in three steps
            "weight_decay": 0.05,
        }
    )
    return config


def drawn_batch() -> Batch:
    """An image of many classes, one of one class, and one that is all void."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    label = rng.integers(0, CLASSES, (3, 4, 4), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    label[0, :5] = 255
    label[1], label[2] = 3, 255
    none = np.zeros((1, 0, SIZE, SIZE, 3), np.uint8)
    return Batch(
        image=image[None],
        label=label[None],
        valid=np.ones_like(label, bool)[None],
        unlabeled_image=none,
        unlabeled_valid=none[..., 0].astype(bool),
        unlabeled_label=none[..., 0],
    )


class Peer:
    """The peer, trained as MaskFormer is: frozen batch norms, deep supervision."""

    def __init__(self, config, batch: Batch):
        self.config, self.model = config, peer_model(config)
        randomize(self.model)
        for module in self.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.requires_grad_(False)
        matcher = hf.MaskFormerHungarianMatcher(cost_class=1.0, cost_mask=20.0, cost_dice=1.0)
        self.criterion = hf.MaskFormerLoss(CLASSES, matcher, weight_dict={}, eos_coef=0.1)
        self.images = torch.from_numpy(np.array(normalize(batch.image[0]))).permute(0, 3, 1, 2)
        present = [[k for k in range(CLASSES) if (x == k).any()] for x in batch.label[0]]
        self.classes = [torch.tensor(ids, dtype=torch.int64) for ids in present]
        self.masks = [
            torch.tensor(np.array([x == k for k in ids]).reshape(-1, SIZE, SIZE), dtype=torch.float)
            for x, ids in zip(batch.label[0], present)
        ]

    def loss(self) -> torch.Tensor:
        all_classes, all_masks, _ = peer_layers(self.model, self.images)
        total = torch.zeros(())
        for classes, masks in zip(all_classes, all_masks):
            terms = self.criterion(masks, classes, self.masks, self.classes)
            total = total + terms["loss_cross_entropy"]
            total = total + 20 * terms["loss_mask"] + terms["loss_dice"]
        return total

    def named(self) -> dict[str, torch.nn.Parameter]:
        """Name on disk -> trained parameter."""
        return {
            names.current_name(name): parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW with one group for each parameter, by MaskFormer's rules."""
        groups = []
        for name, parameter in self.named().items():
            norm = "norm" in name or any(
                f".{part}.1." in name for part in ("stem", "proj", "block")
            )
            backbone = "pixel_level_module.encoder" in name
            plain = norm or "queries_embedder" in name
            rate = self.config.learning_rate * (0.1 if backbone else 1.0)
            decay = 0.0 if plain else self.config.weight_decay
            groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
        return torch.optim.AdamW(groups)


@pytest.fixture(scope="module")
def both():
    """The peer, and our model and state with the same weights."""
    with pytest.MonkeyPatch.context() as patch:
        for name, architecture in TINY.items():
            patch.setitem(resnet.BACKBONES, name, architecture)
        config, batch = configured(), drawn_batch()
        peer = Peer(config, batch)
        variables = converted(peer.model, config)
        model, optimizer = build_model(config), create_optimizer(config)

        def start():
            state = jax.jit(lambda: initial_state(model, optimizer, config))()
            return replicate(start_from(state, variables), 1)

        yield SimpleNamespace(
            config=config, batch=batch, peer=peer, model=model, optimizer=optimizer, start=start
        )


@pytest.mark.slow
def test_loss_and_every_gradient_are_the_peers(both):
    def loss(params, state, batch):
        return total_loss(params, state, batch, 0, both.model, both.config)[0]

    gradient = jax.pmap(
        lambda state, batch: jax.value_and_grad(loss)(state.params, state, batch),
        axis_name="batch",
        in_axes=(None, 0),
        out_axes=None,
    )
    ours, grads = gradient(both.start(), both.batch)
    both.peer.model.zero_grad()
    theirs = both.peer.loss()
    theirs.backward()
    np.testing.assert_allclose(float(ours), float(theirs.detach()), rtol=1e-5)

    expected = both.peer.named()
    grads = flax.traverse_util.flatten_dict(grads, sep="/")
    assert {names.TRANSFORMERS.name_of(path) for path in grads} == set(expected)
    largest = max(float(p.grad.norm()) for p in expected.values())
    compared = 0
    for path, got in grads.items():
        want = names.to_ours(path, expected[names.TRANSFORMERS.name_of(path)].grad.numpy())
        size = np.linalg.norm(want)
        if size < 1e-6 * largest:
            # A gradient of 0, up to rounding. Softmax ignores what is added to all keys; and in
            # the first self-attention the queries' content is 0, so its weights do not matter.
            assert path.endswith("/key/bias") or "layer0/self_attention" in path, path
            assert np.linalg.norm(got) < 1e-5 * largest
            continue
        assert np.linalg.norm(got - want) < 1e-3 * size, (path, size)
        compared += 1
    assert compared > 60


@pytest.mark.slow
def test_three_optimizer_steps_are_the_peers(both):
    both.config.grad_clip_norm = 1.0  # below the gradients' norm, so that clipping is compared too
    step = parallel_train_step(both.model, create_optimizer(both.config), both.config)
    state, ours = both.start(), []
    for _ in range(STEPS):
        state, metrics = step(state, both.batch)
        ours.append(float(metrics["loss/total"][0]))

    initial = {name: p.detach().clone() for name, p in both.peer.named().items()}
    optimizer, theirs = both.peer.optimizer(), []
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, both.config.num_steps, power=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = both.peer.loss()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(both.peer.named().values()), 1.0)
        assert norm > 1.0
        optimizer.step()
        schedule.step()
        theirs.append(float(loss.detach()))
    with torch.no_grad():
        for name, parameter in both.peer.named().items():
            parameter.copy_(initial[name])
    assert theirs[0] - theirs[-1] > 0.02 * theirs[0]  # the steps changed something
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
