# Tests rc2l_jax/models/: every layer against transformers, shapes, norms, dropout, precision.
import zlib
from collections.abc import Callable
from functools import partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from ml_collections import ConfigDict
from transformers import (
    DetrConfig,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    ResNetConfig,
)

from configs import base
from rc2l_jax.models import build_model, normalization, resnet
from rc2l_jax.models.maskformer import semantic_inference
from rc2l_jax.models.pixel_decoder import upsample_nearest
from rc2l_jax.models.position import sine_position
from rc2l_jax.models.transformer import Dropout, TransformerDecoder, image_seeds, random_bits
from rc2l_jax.structs import Predictions
from rc2l_jax.weights import names
from rc2l_jax.weights.load import InitReport, fit

TINY = {
    "tiniest": resnet.Architecture(bottleneck=False, depths=(1, 1, 1, 1)),
    "tiny_basic": resnet.Architecture(bottleneck=False, depths=(1, 2, 1, 2)),
    "tiny_bottleneck": resnet.Architecture(bottleneck=True, depths=(1, 1, 1, 3)),
}


@pytest.fixture(autouse=True)
def tiny_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, architecture in TINY.items():
        monkeypatch.setitem(resnet.BACKBONES, name, architecture)


def tiny_config(**model: object) -> ConfigDict:
    config = base.get_config()
    config.data.num_classes = 5
    config.model.update(
        backbone="tiny_basic",
        backbone_width=8,
        num_queries=7,
        pixel_dim=32,
        mask_dim=24,
        hidden_dim=40,
        num_heads=4,
        ffn_dim=48,
        num_decoder_layers=3,
    )
    config.model.update(model)
    return config


def images(height: int, width: int, batch: int = 2) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (batch, height, width, 3))


def count(tree: object) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes(tree: object) -> dict[str, tuple[int, ...]]:
    return {key: x.shape for key, x in flax.traverse_util.flatten_dict(tree, sep="/").items()}


def init_shapes(config: ConfigDict, height: int = 64, width: int = 64) -> dict:
    model = build_model(config)

    def init(key: jax.Array) -> dict:
        return model.init(key, jnp.zeros((1, height, width, 3)), train=False)

    return jax.eval_shape(init, jax.random.key(0))


def random_variables(config: ConfigDict) -> dict:
    """Variables about as large as initial ones, but drawn with NumPy, which compiles nothing."""
    generator = np.random.default_rng(0)

    def draw(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        if path[-1] in ("scale", "var"):
            return np.ones(shape, np.float32)
        spread = np.prod(shape[:-1]) ** -0.5 if path[-1] == "kernel" else 0.1
        return generator.normal(0, spread, shape).astype(np.float32)

    flat = flax.traverse_util.flatten_dict(init_shapes(config))
    drawn = {path: draw(path, leaf.shape) for path, leaf in flat.items()}
    return flax.traverse_util.unflatten_dict(drawn)


# Compared with transformers.


def converted(peer: MaskFormerForInstanceSegmentation, config: ConfigDict) -> dict:
    """The peer's weights as our variables."""
    arrays = {
        names.current_name(key): tensor.detach().numpy()
        for key, tensor in peer.state_dict().items()
        if tensor.ndim
    }
    report = InitReport("", "the peer", "")
    return fit(random_variables(config), arrays, names.TRANSFORMERS, config, report)


def peer_model(config: ConfigDict, device: str = "cpu") -> MaskFormerForInstanceSegmentation:
    architecture = resnet.BACKBONES[config.model.backbone]
    width = config.model.backbone_width
    backbone = ResNetConfig(
        depths=list(architecture.depths),
        embedding_size=width,
        hidden_sizes=[width * 2**i * (4 if architecture.bottleneck else 1) for i in range(4)],
        layer_type="bottleneck" if architecture.bottleneck else "basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    decoder = DetrConfig(
        d_model=config.model.hidden_dim,
        num_queries=config.model.num_queries,
        decoder_layers=config.model.num_decoder_layers,
        decoder_ffn_dim=config.model.ffn_dim,
        decoder_attention_heads=config.model.num_heads,
        encoder_attention_heads=config.model.num_heads,
    )
    peer_config = MaskFormerConfig(
        backbone_config=backbone,
        decoder_config=decoder,
        fpn_feature_size=config.model.pixel_dim,
        mask_feature_size=config.model.mask_dim,
        num_labels=config.data.num_classes,
    )
    with torch.device(device):
        return MaskFormerForInstanceSegmentation(peer_config).eval()


def randomize(peer: MaskFormerForInstanceSegmentation) -> None:
    """Draws every array so that it matters: no bias is 0, no variance 1."""
    generator = torch.Generator().manual_seed(0)
    for key, tensor in peer.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if key.endswith("running_var") or (tensor.ndim == 1 and key.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim == 1:
            tensor.normal_(0, 0.1, generator=generator)
        elif "queries_embedder" in key:
            tensor.normal_(0, 1, generator=generator)
        else:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)


def peer_layers(
    peer: MaskFormerForInstanceSegmentation, pixels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Every layer's class logits and mask logits, and the pixel features.

    The layers are read by hooks. The peer's own auxiliary outputs skip the final LayerNorm (or feed
    it back into the next layer), which the original MaskFormer does not.
    """
    decoder = peer.model.transformer_module.decoder
    outputs: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        for layer in decoder.layers
    ]
    result = peer(pixels)
    for hook in hooks:
        hook.remove()
    queries = decoder.layernorm(torch.stack(outputs))
    pixel_features = result.pixel_decoder_last_hidden_state
    masks = torch.einsum("lbnc,bchw->lbnhw", peer.mask_embedder(queries), pixel_features)
    classes = peer.class_predictor(queries)
    # The last layer that the hooks saw is the one from which the peer predicts.
    assert torch.allclose(classes[-1], result.class_queries_logits, atol=1e-5)
    assert torch.allclose(masks[-1], result.masks_queries_logits, atol=1e-5)
    return classes, masks, pixel_features


@torch.no_grad()
def peer_predictions(peer: MaskFormerForInstanceSegmentation, x: jax.Array) -> Predictions:
    """Every layer's predictions for images [B, H, W, 3]."""
    pixels = torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))
    classes, masks, pixel_features = peer_layers(peer, pixels)
    last = peer.model.pixel_level_module.encoder(pixels).feature_maps[-1]
    return Predictions(
        class_logits=classes.numpy(),
        mask_logits=masks.numpy(),
        pixel_features=pixel_features.permute(0, 2, 3, 1).numpy(),
        backbone_features=last.permute(0, 2, 3, 1).numpy(),
    )


@pytest.mark.parametrize(
    ("backbone", "hidden_dim", "size"),
    [
        ("tiny_basic", 40, (70, 102)),
        ("tiny_basic", 64, (33, 97)),  # res5 has 64 channels: no input projection
        ("tiny_bottleneck", 40, (70, 102)),
        ("tiny_bottleneck", 40, (131, 31)),
    ],
)
def test_every_layer_agrees_with_transformers(
    backbone: str, hidden_dim: int, size: tuple[int, int]
) -> None:
    config = tiny_config(backbone=backbone, hidden_dim=hidden_dim)
    peer = peer_model(config)
    randomize(peer)
    variables = converted(peer, config)
    expected_shapes = init_shapes(config)
    assert shapes(variables) == shapes(expected_shapes)

    x = images(*size)
    model = build_model(config)
    ours = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)
    theirs = peer_predictions(peer, x)

    layers = config.model.num_decoder_layers
    grid = tuple(-(-side // 4) for side in size)
    assert ours.class_logits.shape == (layers, 2, 7, 6)
    assert ours.mask_logits.shape == (layers, 2, 7, *grid)
    assert ours.pixel_features.shape == (2, *grid, 24)
    for name in ("class_logits", "mask_logits", "pixel_features", "backbone_features"):
        want = getattr(theirs, name)
        assert np.std(want) > 0.1, "the comparison would be vacuous"
        np.testing.assert_allclose(getattr(ours, name), want, atol=1e-4, rtol=0, err_msg=name)
    # The layers differ, so that comparing each of them means something.
    assert np.abs(np.diff(theirs.class_logits, axis=0)).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "size"), [("resnet50", (70, 102)), ("resnet101", (64, 96))])
def test_default_sizes_agree_with_transformers(backbone: str, size: tuple[int, int]) -> None:
    """The paper's network and the same with ResNet-50, including the semantic output."""
    config = base.get_config()
    config.model.backbone = backbone
    peer = peer_model(config)
    randomize(peer)
    variables, x = converted(peer, config), images(*size, batch=1)
    model = build_model(config)
    ours = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)
    theirs = peer_predictions(peer, x)
    for name in ("class_logits", "mask_logits"):
        got, want = np.asarray(getattr(ours, name)), getattr(theirs, name)
        assert np.abs(got - want).max() < 1e-4 * max(1.0, np.abs(want).max()), name
    got = semantic_inference(ours.class_logits[-1], ours.mask_logits[-1], size)
    masks = torch.from_numpy(theirs.mask_logits[-1])
    masks = torch.nn.functional.interpolate(masks, size, mode="bilinear", align_corners=False)
    classes = torch.from_numpy(theirs.class_logits[-1]).softmax(-1)[..., :-1]
    want = torch.einsum("bnk,bnhw->bkhw", classes, masks.sigmoid())
    np.testing.assert_allclose(got, want, atol=1e-4 * float(want.max()))


def test_eval_mode_batch_norm_agrees_with_frozen_norm() -> None:
    config = tiny_config(backbone="tiny_bottleneck")
    peer = peer_model(config)
    randomize(peer)
    x = images(64, 64, batch=1)

    def features(norm: str) -> tuple[jax.Array, ...]:
        model = resnet.ResNet(backbone="tiny_bottleneck", width=8, stem="basic", norm=norm)
        variables = converted(peer, tiny_config(backbone="tiny_bottleneck", norm=norm))
        backbone = {name: tree["backbone"] for name, tree in variables.items() if tree}
        return jax.jit(lambda v: model.apply(v, x, train=False))(backbone)

    for frozen, batch in zip(features("frozen"), features("batch"), strict=True):
        np.testing.assert_allclose(batch, frozen, atol=1e-4)


def test_paper_model_has_the_peers_parameter_count() -> None:
    config = base.get_config()
    assert (config.model.backbone, config.model.num_queries) == ("resnet101", 50)
    ours = init_shapes(config)
    frozen = flax.traverse_util.flatten_dict(ours["batch_stats"])
    affine = sum(x.size for path, x in frozen.items() if path[-1] in ("scale", "bias"))
    peer = peer_model(config, device="meta")
    theirs = sum(parameter.numel() for parameter in peer.parameters())
    # The peer counts its batch norms' scale and bias, which are constants here.
    assert count(ours["params"]) + affine == theirs == 60_254_038
    assert count(ours["batch_stats"]) == 2 * affine


def test_upsampling_reads_the_pixels_torch_reads() -> None:
    for size, target in [((3, 4), (6, 8)), ((4, 5), (7, 9)), ((1, 1), (2, 1)), ((3, 5), (8, 11))]:
        x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
        want = torch.nn.functional.interpolate(
            torch.from_numpy(x.transpose(0, 3, 1, 2)), size=target, mode="nearest"
        )
        got = upsample_nearest(jnp.asarray(x), *target)
        np.testing.assert_array_equal(got, want.numpy().transpose(0, 2, 3, 1))


# Structure.


@pytest.mark.parametrize(
    ("backbone", "stem", "norm"),
    [
        ("resnet18", "basic", "group"),
        ("resnet34", "deeplab", "batch"),
        ("resnet50", "basic", "frozen"),
        ("resnet50", "deeplab", "group"),
        ("resnet101", "deeplab", "frozen"),
        ("resnet152", "basic", "batch"),
    ],
)
def test_param_tree(backbone: str, stem: str, norm: str) -> None:
    tree = init_shapes(tiny_config(backbone=backbone, stem=stem, norm=norm))
    assert set(tree["params"]) == {
        "backbone",
        "pixel_decoder",
        "transformer",
        "query_embed",
        "class_head",
        "mask_head",
    }
    assert set(tree) == ({"params"} if norm == "group" else {"params", "batch_stats"})
    leaves = {"params": {"scale", "bias"}, "batch_stats": {"mean", "var"}}
    if norm == "frozen":
        leaves["batch_stats"] |= {"scale", "bias"}
    modules: dict[str, set[str]] = {}
    for collection in tree:
        flat = flax.traverse_util.flatten_dict(tree[collection])
        for (*path, leaf), array in flat.items():
            assert array.dtype == jnp.float32
            modules.setdefault("/".join(path), set()).add(leaf)
            if path and "norm" in path[-1]:
                assert leaf in leaves[collection]
            else:
                assert not any("norm" in part for part in path)
                assert leaf in ("kernel", "bias", "query_embed")
    convolutions = sum("backbone" in name and "conv" in name for name in modules)
    norms = sum("backbone" in name and "norm" in name for name in modules)
    shortcuts = 3 + (resnet.BACKBONES[backbone].bottleneck or stem == "deeplab")
    stem_depth = {"basic": 1, "deeplab": 3}[stem]
    per_block = 3 if resnet.BACKBONES[backbone].bottleneck else 2
    depth = sum(resnet.BACKBONES[backbone].depths)
    assert convolutions == norms == stem_depth + per_block * depth + shortcuts


@pytest.mark.parametrize("size", [(64, 64), (70, 102), (1, 5)])
@pytest.mark.parametrize("stem", resnet.STEMS)
def test_backbone_strides_round_up(stem: str, size: tuple[int, int]) -> None:
    model = resnet.ResNet(backbone="resnet50", width=8, stem=stem, norm="group")

    def features(key: jax.Array) -> tuple[jax.Array, ...]:
        return model.init_with_output(key, jnp.zeros((2, *size, 3)), train=False)[0]

    outputs = jax.eval_shape(features, jax.random.key(0))
    want = []
    for level, channels in zip(range(2, 6), (32, 64, 128, 256), strict=True):
        want.append((2, *(-(-side // 2**level) for side in size), channels))
    assert [output.shape for output in outputs] == want


def test_deeplab_dilates_res5_and_keeps_its_stride() -> None:
    seen: list[tuple[str, object, object]] = []

    def record(call: Callable, args: tuple, kwargs: dict, context: object) -> object:
        module = context.module
        if type(module).__name__ == "Conv" and module.kernel == 3:
            seen.append(("/".join(module.path), module.stride, module.dilation))
        return call(*args, **kwargs)

    model = resnet.ResNet(backbone="resnet50", width=8, stem="deeplab", norm="frozen")
    with flax.linen.intercept_methods(record):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images(32, 32))
    dilated = {path: dilation for path, _, dilation in seen if dilation != 1}
    assert dilated == {"res5_1/conv2": 2, "res5_2/conv2": 4}
    assert ("res5_0/conv2", 2, 1) in seen
    assert [path for path, stride, _ in seen if stride == 2] == [
        "stem_conv1",
        "res3_0/conv2",
        "res4_0/conv2",
        "res5_0/conv2",
    ]


@pytest.mark.parametrize(
    ("channels", "smallest", "groups"),
    [(256, 1, 32), (64, 2, 32), (48, 1, 24), (32, 1, 32), (32, 2, 16), (36, 1, 18), (5, 2, 1)],
)
def test_group_count(channels: int, smallest: int, groups: int) -> None:
    assert normalization.group_count(channels, smallest) == groups


def test_sine_position_tells_rows_and_columns_apart() -> None:
    code = np.asarray(sine_position(3, 5, 16)).reshape(3, 5, 16)
    assert (code[:, :1, :8] == code[..., :8]).all()
    assert (code[:1, :, 8:] == code[..., 8:]).all()
    assert len(np.unique(code.reshape(15, 16), axis=0)) == 15
    # In the last row the fastest wave has gone through one whole period.
    np.testing.assert_allclose(code[-1, 0, :2], [0.0, 1.0], atol=1e-5)


# Behaviour.


def test_bfloat16_keeps_float32_parameters_and_outputs() -> None:
    config = tiny_config(backbone="tiniest", norm="group", num_decoder_layers=1)
    x = images(64, 64)
    model = build_model(config)
    variables = random_variables(config)
    full = jax.jit(lambda v: model.apply(v, x, train=False))(variables)
    config.dtype = "bfloat16"
    half_model = build_model(config)
    half_shapes = jax.eval_shape(lambda k: half_model.init(k, x, train=False), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(half_shapes)} == {jnp.dtype("float32")}

    @jax.jit
    def recording(variables: dict) -> tuple[Predictions, dict]:
        return half_model.apply(
            variables, x, train=False, capture_intermediates=True, mutable=["intermediates"]
        )

    half, recorded = recording(variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("float32")}
    # Everything inside is bfloat16, except the decoder of the few queries and what is an output.
    inside = flax.traverse_util.flatten_dict(recorded["intermediates"], sep="/")
    wide = {
        path
        for path, values in inside.items()
        if any(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(values))
    }
    outside = {path for path in wide if not path.startswith(("transformer/", "mask_head/"))}
    assert outside == {"__call__", "class_head/__call__"}
    assert {path for path in inside if path.startswith("transformer/")} - wide == {
        "transformer/input_projection/__call__"
    }
    for name in ("class_logits", "mask_logits"):
        a, b = getattr(full, name), getattr(half, name)
        assert not np.array_equal(a, b)
        np.testing.assert_allclose(a, b, atol=0.1 * float(jnp.std(a)) + 0.05)


def test_training_reaches_every_kernel_and_drops_out() -> None:
    config = tiny_config(backbone="tiniest", norm="group", num_decoder_layers=1)
    model = build_model(config)
    x = images(64, 64)
    params = random_variables(config)["params"]

    @jax.jit
    def gradient(params: dict, seed: int) -> tuple[dict, Predictions]:
        def loss(params: dict) -> tuple[jax.Array, Predictions]:
            rngs = {"dropout": jax.random.key(seed)}
            out = model.apply({"params": params}, x, train=True, rngs=rngs)
            return jnp.mean(out.class_logits**2) + jnp.mean((out.mask_logits - 1) ** 2), out

        return jax.grad(loss, has_aux=True)(params)

    gradients, out = gradient(params, 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    # Every kernel learns but one: the first layer's self-attention has values of zero, as the
    # queries have no content yet.
    still = {
        path
        for path, leaf in flax.traverse_util.flatten_dict(gradients, sep="/").items()
        if not np.abs(leaf).max() > 1e-6 and path.endswith("kernel")
    }
    assert still == {"transformer/layer0/self_attention/value/kernel"}
    assert np.array_equal(out.class_logits, gradient(params, 0)[1].class_logits)
    assert not np.array_equal(out.class_logits, gradient(params, 1)[1].class_logits)


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_training_records_statistics_of_batch_norm_only(norm: str) -> None:
    config = tiny_config(backbone="tiniest", norm=norm, num_decoder_layers=1)
    model = build_model(config, axis_name=None)
    x = images(64, 64)
    variables = random_variables(config)
    stats = variables["batch_stats"]

    @jax.jit
    def forward(variables: dict) -> tuple[Predictions, dict]:
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])

    out, new = forward(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
    new_stats = new["batch_stats"]
    assert jax.tree.structure(new_stats) == jax.tree.structure(stats)
    unchanged = jax.tree.leaves(jax.tree.map(np.array_equal, new_stats, stats))
    if norm == "frozen":
        assert all(unchanged)
        return
    assert not any(unchanged)
    new_first, old_first = (tree["backbone"]["stem_norm1"] for tree in (new_stats, stats))
    seen = x_after_first_convolution(variables["params"], x)
    mean = 0.9 * old_first["mean"] + 0.1 * seen.mean((0, 1, 2))
    var = 0.9 * old_first["var"] + 0.1 * seen.var((0, 1, 2))
    np.testing.assert_allclose(new_first["mean"], mean, atol=1e-5)
    np.testing.assert_allclose(new_first["var"], var, atol=1e-4)


def x_after_first_convolution(params: dict, x: jax.Array) -> np.ndarray:
    kernel = params["backbone"]["stem_conv1"]["kernel"]
    out = torch.nn.functional.conv2d(
        torch.from_numpy(np.array(x).transpose(0, 3, 1, 2)),
        torch.from_numpy(np.array(kernel).transpose(3, 2, 0, 1)),
        stride=2,
        padding=3,
    )
    return out.numpy().transpose(0, 2, 3, 1)


def test_dropout_rate_and_scale() -> None:
    x, seeds = jnp.full((200, 500), 2.0), image_seeds(jax.random.key(0), jnp.arange(200))
    dropped = Dropout(0.1, train=True).apply({}, x, seeds)
    kept = np.asarray(dropped != 0)
    np.testing.assert_allclose(dropped[kept], 2.0 / 0.9, rtol=1e-6)
    assert abs(kept.mean() - 0.9) < 0.005  # five standard deviations
    assert kept.mean(0).std() < 0.03  # entries are dropped one by one, not in lines
    assert kept.mean(1).std() < 0.02
    for module in (Dropout(0.1, train=False), Dropout(0.0, train=True)):
        assert (module.apply({}, x, None) == x).all()


def test_dropout_draws_for_an_image_by_its_position_and_its_layer() -> None:
    def bits(key: int, positions: list[int], shape: tuple[int, ...], own: int = 0) -> np.ndarray:
        seeds = image_seeds(jax.random.key(key), jnp.array(positions))
        return np.asarray(random_bits(seeds ^ np.uint32(own), shape))

    whole = bits(0, [0, 1, 2, 3], (8, 40, 50))
    np.testing.assert_array_equal(bits(0, [2, 3], (8, 40, 50)), whole[2:])
    # Bits of another key, layer, image or place agree in about half of all places.
    ones = np.unpackbits(whole.view(np.uint8))
    assert abs(ones.mean() - 0.5) < 0.002
    others = [bits(1, [0, 1, 2, 3], (8, 40, 50)), bits(0, [0, 1, 2, 3], (8, 40, 50), own=1)]
    for other in (*others, np.roll(whole, 1, 0), np.roll(whole, 1, 3)):
        alike = np.unpackbits((whole ^ other).view(np.uint8))
        assert abs(alike.mean() - 0.5) < 0.002
    # Each of the bits by itself, and each of 256 values of the highest eight.
    for bit in range(32):
        assert abs((whole >> bit & 1).mean() - 0.5) < 0.01
    counts = np.bincount((whole >> 24).ravel(), minlength=256)
    chi_square = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert 150 < chi_square < 380  # 255 expected, with a deviation of 23


def test_every_dropout_has_bits_of_its_own() -> None:
    """The paths that dropouts hash differ, in one layer and between layers."""
    decoder = TransformerDecoder(hidden_dim=8, num_heads=2, ffn_dim=8, num_layers=2, dropout=0.5)
    features, embed = jnp.ones((1, 2, 2, 8)), jnp.ones((3, 8))
    variables = decoder.init(jax.random.key(0), features, embed, None, train=False)
    seen = []

    def note(call: object, arguments: tuple, named: dict, context: object) -> jax.Array:
        if isinstance(context.module, Dropout):
            seen.append(context.module.path)
        return call(*arguments, **named)

    with flax.linen.intercept_methods(note):
        seeds = image_seeds(jax.random.key(0), jnp.arange(1))
        decoder.apply(variables, features, embed, seeds, train=True)
    # In each layer: two attentions, the sums after them, inside and after the feed-forward network.
    assert len(seen) == len(set(seen)) == 2 * 6
    assert len({zlib.crc32("/".join(path).encode()) for path in seen}) == 2 * 6


def test_groups_are_predicted_as_alone() -> None:
    config = tiny_config(backbone="tiniest", num_decoder_layers=2)
    model, x = build_model(config), images(32, 64, batch=3)
    variables = model.init(jax.random.key(0), x, train=False)
    every = model.apply(variables, x, train=False)
    first, rest = model.apply(
        variables, x, ((1, True), (2, False)), train=False, method="predict_groups"
    )
    expected_first = jax.tree.map(lambda y: y[:, :1], (every.class_logits, every.mask_logits))
    expected_rest = jax.tree.map(lambda y: y[-1:, 1:], (every.class_logits, every.mask_logits))
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, (first.class_logits, first.mask_logits), expected_first)
    jax.tree.map(close, (rest.class_logits, rest.mask_logits), expected_rest)
    close(first.pixel_features, every.pixel_features[:1])
    close(rest.pixel_features, every.pixel_features[1:])


def test_the_last_layer_alone_is_the_last_of_all() -> None:
    config = base.get_config()
    config.model.update(
        backbone="resnet18",
        backbone_width=4,
        pixel_dim=8,
        mask_dim=8,
        hidden_dim=16,
        num_heads=2,
        ffn_dim=16,
        num_decoder_layers=2,
        num_queries=5,
    )
    model, x = build_model(config), images(32, 64)
    variables = model.init(jax.random.key(0), x, train=False)
    every = model.apply(variables, x, train=False)
    last = model.apply(variables, x, train=False, every_layer=False)
    assert last.mask_logits.shape[0] == last.class_logits.shape[0] == 1
    np.testing.assert_allclose(last.mask_logits[0], every.mask_logits[-1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(last.class_logits[0], every.class_logits[-1], rtol=1e-5, atol=1e-5)


def test_residual_branches_start_as_nothing_unless_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        normalization, "_he_fan_out", flax.linen.initializers.ones
    )  # quick to compile
    x = images(8, 8)
    for norm, start in [("group", 0.0), ("batch", 0.0), ("frozen", 1.0)]:
        layer = partial(
            normalization.conv_norm, kind=norm, train=False, dtype=jnp.float32, axis_name=None
        )
        block = resnet.ResidualBlock(
            features=4, bottleneck=True, stride=2, dilation=1, conv_norm=layer
        )
        scales = block.init(jax.random.key(0), x)["batch_stats" if norm == "frozen" else "params"]
        assert (scales["norm3"]["scale"] == start).all()
        assert (scales["norm2"]["scale"] == 1.0).all()
        assert (scales["shortcut_norm"]["scale"] == 1.0).all()


def initial_variables(config):
    images = jnp.zeros((1, 64, 64, 3))
    return build_model(config).init(jax.random.key(0), images, train=False)


def test_unknown_names_are_refused_with_the_choices() -> None:
    for key, value, choice in [
        ("model.backbone", "resnet19", "resnet101"),
        ("model.stem", "fancy", "deeplab"),
        ("model.norm", "layer", "frozen"),
        ("dtype", "float16", "bfloat16"),
    ]:
        config = tiny_config()
        config.update_from_flattened_dict({key: value})
        with pytest.raises(ValueError, match=rf"{key} = '{value}'.*{choice}"):
            jax.eval_shape(lambda config=config: initial_variables(config))


def test_widths_that_do_not_fit_are_refused() -> None:
    decoder = TransformerDecoder(hidden_dim=42, num_heads=4, ffn_dim=8, num_layers=1, dropout=0.0)
    with pytest.raises(ValueError, match=r"model\.hidden_dim = 42 .* model\.num_heads = 4"):
        features, embed = jnp.zeros((1, 2, 2, 8)), jnp.zeros((3, 42))
        decoder.init(jax.random.key(0), features, embed, None, train=False)
