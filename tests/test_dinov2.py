"""rc2l_jax/models/dinov2.py, pyramid.py, resampling.py and their weights, against PyTorch."""

from __future__ import annotations

import json
import re
from functools import cache

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.nn import functional
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from configs import base
from data.splits import Subsets
from rc2l_jax.method import optimizer
from rc2l_jax.models import build_model, dinov2, resampling
from rc2l_jax.models.pyramid import SimplePyramid
from rc2l_jax.training import check
from rc2l_jax.weights import WeightsError, load_pretrained, names, stablehlo
from rc2l_jax.weights.to_transformers import export_transformers

TINY = {
    "tiny_dino": dinov2.Architecture(width=24, depth=2, num_heads=2, num_registers=0),
    "tiny_dino_registers": dinov2.Architecture(width=24, depth=2, num_heads=3, num_registers=4),
}
# Multiples of neither 14, 16 nor 32; smaller than a patch; a multiple of all; more than 37 tokens.
SIZES = [(70, 101), (33, 97), (5, 9), (224, 32), (23, 610)]


@pytest.fixture(scope="module", autouse=True)
def tiny_backbones():
    with pytest.MonkeyPatch.context() as patch:
        for name, architecture in TINY.items():
            patch.setitem(dinov2.BACKBONES, name, architecture)
        yield


def tiny_config(name: str = "tiny_dino", init_from: object = "", **model: object):
    config = base.get_config()
    config.data.num_classes = 5
    config.data.crop_size = 64
    config.init_from = str(init_from)
    config.model.update(
        backbone=name,
        num_queries=7,
        pixel_dim=16,
        mask_dim=12,
        hidden_dim=20,
        num_heads=2,
        ffn_dim=24,
        num_decoder_layers=1,
        dropout=0.0,
    )
    config.model.update(model)
    return config


def flat(variables: object) -> dict[str, np.ndarray]:
    return flax.traverse_util.flatten_dict(variables, sep="/")


@cache
def peer_of(name: str) -> Dinov2Model | Dinov2WithRegistersModel:
    """A random peer, none of whose arrays is without effect."""
    architecture = dinov2.BACKBONES[name]
    sizes = {
        "hidden_size": architecture.width,
        "num_hidden_layers": architecture.depth,
        "num_attention_heads": architecture.num_heads,
        "image_size": 518,
        "patch_size": 14,
    }
    if architecture.num_registers:
        config = Dinov2WithRegistersConfig(**sizes, num_register_tokens=architecture.num_registers)
        peer = Dinov2WithRegistersModel(config).eval()
    else:
        peer = Dinov2Model(Dinov2Config(**sizes)).eval()
    generator = torch.Generator().manual_seed(0)
    for key, tensor in peer.state_dict().items():
        if tensor.ndim == 1 and key.endswith(("weight", "lambda1")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim == 1:
            tensor.normal_(0, 0.3, generator=generator)
        elif "embeddings" in key and "projection" not in key:
            tensor.normal_(0, 1, generator=generator)
        else:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
    return peer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The peers as folders of transformers."""
    root = tmp_path_factory.mktemp("peers")
    for name in TINY:
        peer_of(name).save_pretrained(root / name)
    return root


@cache
def shapes_of(name: str) -> dict:
    model = build_model(tiny_config(name))
    return jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False), jax.random.key(0)
    )


def random_variables(name: str) -> dict:
    generator = np.random.default_rng(0)
    drawn = {
        path: generator.normal(0, 0.3, leaf.shape).astype(np.float32)
        for path, leaf in flat(shapes_of(name)).items()
    }
    return {"batch_stats": {}} | flax.traverse_util.unflatten_dict(drawn, sep="/")


@pytest.fixture(scope="module")
def loaded(folders):
    """{name: our variables with the peer's weights}, through a folder as on the hub."""
    variables = {}
    for name in TINY:
        config = tiny_config(name, folders / name)
        variables[name], report = load_pretrained(random_variables(name), config)
        assert report.family == "DINOv2 of transformers"
    return variables


def images(height: int, width: int, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, height, width, 3)).astype(np.float32)


def channels_first(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))


def shrunk_by_torch(x: np.ndarray) -> torch.Tensor:
    """Images filled up with zeros to multiples of 16 and resized to 7/8, [B, 3, ., .].

    In double precision, because torch rounds its coordinates to the images' type: in float32 that
    moves the pixels of a wide image so far that the peer's tokens change by 1.2e-4.
    """
    rest = [-side % 16 for side in x.shape[1:3]]
    x = functional.pad(channels_first(x).double(), (0, rest[1], 0, rest[0]))
    size = [side // 8 * 7 for side in x.shape[2:]]
    return functional.interpolate(x, size, mode="bilinear", antialias=True).float()


# The network.


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", SIZES)
def test_tokens_agree_with_transformers(loaded, name, size):
    x = images(*size)
    model = dinov2.DINOv2(name)
    params = {"params": loaded[name]["params"]["backbone"]}
    (ours,) = jax.jit(lambda v, x: model.apply(v, x, train=True))(params, x)
    with torch.no_grad():
        tokens = peer_of(name)(shrunk_by_torch(x)).last_hidden_state.numpy()
    want = tokens[:, 1 + TINY[name].num_registers :].reshape(ours.shape)
    assert ours.shape[1:3] == tuple(-(-side // 16) for side in size)
    assert np.std(want, axis=-1).min() > 0.1, "the comparison would be vacuous"
    np.testing.assert_allclose(ours, want, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2_small", "dinov2_small_registers"])
def test_a_published_size_agrees_with_transformers(tmp_path, name):
    peer, x = peer_of(name), images(70, 101, batch=1)
    peer.save_pretrained(tmp_path)
    variables, _ = load_pretrained(random_variables(name), tiny_config(name, tmp_path))
    params = {"params": variables["params"]["backbone"]}
    (ours,) = jax.jit(lambda v, x: dinov2.DINOv2(name).apply(v, x, train=True))(params, x)
    with torch.no_grad():
        tokens = peer(shrunk_by_torch(x)).last_hidden_state.numpy()
    want = tokens[:, -35:].reshape(1, 5, 7, 384)
    np.testing.assert_allclose(ours, want, atol=1e-4 * np.abs(want).max(), rtol=0)


@pytest.mark.parametrize("name", TINY)
def test_gradients_agree_with_transformers(loaded, name):
    x = images(70, 101)
    model = dinov2.DINOv2(name, remat=True)
    params = loaded[name]["params"]["backbone"]
    weights = np.random.default_rng(2).normal(size=(2, 5, 7, 24)).astype(np.float32)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: (model.apply({"params": p}, x, train=True)[0] * weights).sum())(
            params
        )

    ours = {f"backbone/{path}": x for path, x in flat(gradient(params)).items()}
    peer = peer_of(name)
    peer.zero_grad()
    tokens = peer(shrunk_by_torch(x)).last_hidden_state
    tokens = tokens[:, 1 + TINY[name].num_registers :].reshape(weights.shape)
    (tokens * torch.from_numpy(weights)).sum().backward()
    theirs = {
        names.current_name(key): parameter.grad
        for key, parameter in peer.named_parameters()
        if parameter.grad is not None
    }
    family = next(f for f in names.FAMILIES if f.title == "DINOv2 of transformers")
    assert len(theirs) == len(ours)
    for path, got in ours.items():
        want = family.to_ours(path, theirs[family.name_of(path)].numpy())
        error = np.abs(got - want).max() / np.abs(want).max()
        # A bias of the keys adds the same to all logits of a query: its gradient is rounding only.
        assert error < 1e-3 or path.endswith("key/bias"), (path, error)
        if path.endswith("key/bias"):
            assert np.abs(got).max() < 1e-3 and np.abs(want).max() < 1e-3


def test_the_published_sizes_have_the_published_number_of_parameters():
    """Those of transformers' models of these sizes, without their mask token."""
    for name in ("small", "base", "large"):
        for suffix in ("", "_registers"):
            width, depth, heads, registers = dinov2.BACKBONES[f"dinov2_{name}{suffix}"]
            sizes = {"hidden_size": width, "num_hidden_layers": depth, "image_size": 518}
            sizes |= {"num_attention_heads": heads, "patch_size": 14}
            kind = Dinov2WithRegistersConfig if registers else Dinov2Config
            peer = (Dinov2WithRegistersModel if registers else Dinov2Model)._from_config
            with torch.device("meta"):
                theirs = sum(p.numel() for p in peer(kind(**sizes)).parameters()) - width
            model = dinov2.DINOv2(f"dinov2_{name}{suffix}")
            tree = jax.eval_shape(
                lambda key, model=model: model.init(key, jnp.zeros((1, 32, 32, 3)), train=False),
                jax.random.key(0),
            )
            assert sum(leaf.size for leaf in jax.tree.leaves(tree)) == theirs, name


@pytest.mark.parametrize("antialias", [False, True])
def test_position_codes_are_resized_as_by_torch(antialias):
    codes = np.random.default_rng(0).normal(size=(37, 37, 3)).astype(np.float32)
    shapes = [(37, 37), (1, 1), (2, 50), (36, 14), (74, 3)]
    for shape in shapes:
        want = functional.interpolate(
            torch.from_numpy(codes).permute(2, 0, 1)[None],
            shape,
            mode="bicubic",
            align_corners=False,
            antialias=antialias,
        )[0].permute(1, 2, 0)
        got = resampling.resize_codes(jnp.asarray(codes), shape, shape, antialias)
        np.testing.assert_allclose(got, want.numpy(), atol=1e-5)
    # All of them in one batch, each in its own part.
    sizes = tuple(jnp.array(shapes).T)
    together = resampling.resize_codes(jnp.asarray(codes), sizes, (74, 50), antialias)
    assert np.isfinite(together).all()
    for shape, part in zip(shapes, together):
        alone = resampling.resize_codes(jnp.asarray(codes), shape, shape, antialias)
        np.testing.assert_allclose(part[: shape[0], : shape[1]], alone, atol=2e-6)


def test_images_are_resized_as_by_torch():
    x = images(48, 176)
    got = resampling.seven_eighths(jnp.asarray(x), None)
    want = shrunk_by_torch(x)
    assert want.shape == (2, 3, 42, 154)
    np.testing.assert_allclose(got, want.permute(0, 2, 3, 1).numpy(), atol=1e-6)


def pyramid_by_torch(params: dict, x: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """ViTDet's pyramid with torch's layers, for tokens [B, h, w, D]."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        scale, bias = (torch.from_numpy(params[f"{name}/{leaf}"]) for leaf in ("scale", "bias"))
        x = functional.layer_norm(x.permute(0, 2, 3, 1), scale.shape, scale, bias, eps=1e-6)
        return x.permute(0, 3, 1, 2)

    def deconv(x: torch.Tensor, name: str) -> torch.Tensor:
        kernel = params[f"{name}/kernel"].reshape(x.shape[1], 2, 2, -1).transpose(0, 3, 1, 2)
        bias = torch.from_numpy(params[f"{name}/bias"])
        return functional.conv_transpose2d(x, torch.tensor(kernel), bias, stride=2)

    def conv(x: torch.Tensor, name: str) -> torch.Tensor:
        kernel = torch.tensor(params[f"{name}_conv/kernel"].transpose(3, 2, 0, 1))
        return norm(functional.conv2d(x, kernel, padding=kernel.shape[-1] // 2), f"{name}_norm")

    x = channels_first(x)
    up = functional.gelu(norm(deconv(x, "up2_1"), "up2_norm"))
    maps = [deconv(up, "up2_2"), deconv(x, "up3_1"), x]
    maps.append(functional.max_pool2d(x, 2, ceil_mode=True))
    results = []
    for level, y in enumerate(maps, start=2):
        height, width = (-(-side // 2**level) for side in size)
        y = conv(conv(y[:, :, :height, :width], f"res{level}_1"), f"res{level}_2")
        results.append(y.permute(0, 2, 3, 1).numpy())
    return results


@pytest.mark.parametrize("size", [(70, 101), (5, 9), (64, 96)])
def test_the_pyramid_agrees_with_torch(size):
    x = images(*(-(-side // 16) for side in size)).repeat(4, -1)  # 12 channels
    model = SimplePyramid(features=8)
    shapes = jax.eval_shape(lambda key: model.init(key, x, size), jax.random.key(0))
    rng = np.random.default_rng(0)
    params = {k: rng.normal(0, 0.5, v.shape).astype(np.float32) for k, v in flat(shapes).items()}
    variables = flax.traverse_util.unflatten_dict(params, sep="/")
    got = jax.jit(lambda v, x: model.apply(v, x, size))(variables, x)
    want = pyramid_by_torch({k.removeprefix("params/"): v for k, v in params.items()}, x, size)
    for level, (ours, theirs) in enumerate(zip(got, want, strict=True), start=2):
        assert ours.shape == (2, *(-(-side // 2**level) for side in size), 8)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


# Inside of the model.


def test_every_parameter_learns_and_the_pyramid_with_the_heads_rate():
    config = tiny_config("tiny_dino_registers")
    config.update(backbone_lr_multiplier=0.025, weight_decay=0.01, remat=True)
    model, x = build_model(config), images(70, 101)
    params = random_variables("tiny_dino_registers")["params"]

    @jax.jit
    def gradient(params):
        def loss(params):
            out = model.apply({"params": params}, x, train=True)
            return jnp.mean(out.class_logits**2) + jnp.mean((out.mask_logits - 1) ** 2)

        return jax.value_and_grad(loss)(params)

    value, gradients = gradient(params)
    assert np.isfinite(value)
    still = {path for path, leaf in flat(gradients).items() if not np.abs(leaf).max() > 1e-7}
    # The queries have no content yet; keys' biases move no softmax; and 16 channels have groups of
    # one in the pixel decoder's norms, which lose what is the same at all pixels.
    without = r".*/key/bias|transformer/layer0/self_attention/.*|pyramid/res[34]_2_norm/bias"
    assert {path for path in still if not re.fullmatch(without, path)} == set()

    rules = optimizer.parameter_rules(config)
    for path in flat(params):
        rule = rules[optimizer.group_of(path, rules)]
        rate = 0.025 if path.startswith("backbone/") else 1.0
        assert rule.learning_rate_multiplier == rate, path
        last = path.split("/")[-1]
        decays = last in ("kernel", "bias") and "norm" not in path
        assert rule.weight_decay == (0.01 if decays else 0.0), path
    assert {path.split("/")[0] for path in flat(params)} == {
        "backbone", "pyramid", "pixel_decoder", "transformer", "query_embed", "class_head",
        "mask_head",
    }  # fmt: skip


def test_bfloat16_is_close_and_keeps_float32_parameters():
    name, x = "tiny_dino_registers", images(64, 96)
    config = tiny_config(name)
    variables = {"params": random_variables(name)["params"]}
    full = jax.jit(lambda v: build_model(config).apply(v, x, train=False))(variables)
    config.dtype = "bfloat16"
    half_model = build_model(config)
    half = jax.jit(lambda v: half_model.apply(v, x, train=False))(variables)
    tree = jax.eval_shape(lambda key: half_model.init(key, x, train=False), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}
    tokens = dinov2.DINOv2(name, jnp.bfloat16)
    params = {"params": variables["params"]["backbone"]}
    assert tokens.apply(params, x, train=False)[0].dtype == jnp.bfloat16
    for key in ("class_logits", "mask_logits"):
        a, b = getattr(full, key), getattr(half, key)
        assert not np.array_equal(a, b)
        np.testing.assert_allclose(a, b, atol=0.1 * float(jnp.std(a)) + 0.05)


def test_recomputed_blocks_have_the_same_parameters():
    trees = [
        jax.eval_shape(
            lambda key, remat=remat: dinov2.DINOv2("tiny_dino", remat=remat).init(
                key, jnp.zeros((1, 32, 32, 3)), train=False
            ),
            jax.random.key(0),
        )
        for remat in (False, True)
    ]
    assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"'dinov2_giant' is unknown; use one of dinov2_small"):
        dinov2.DINOv2("dinov2_giant").init(
            jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False
        )


# Weights.


def test_what_was_loaded_goes_back_bit_by_bit(loaded):
    for name in TINY:
        family = next(f for f in names.FAMILIES if f.title == "DINOv2 of transformers")
        state = {
            names.current_name(key): tensor.numpy()
            for key, tensor in peer_of(name).state_dict().items()
        }
        state.pop("embeddings.mask_token", None)
        backbone = flat(loaded[name]["params"]["backbone"])
        for path, value in backbone.items():
            key = family.name_of(f"backbone/{path}")
            back = names.to_theirs(f"backbone/{path}", value)
            np.testing.assert_array_equal(back, state.pop(key), err_msg=key)
        assert not state


def test_the_report_says_what_is_left_random(folders):
    config = tiny_config(init_from=folders / "tiny_dino")
    before = random_variables("tiny_dino")
    variables, report = load_pretrained(before, config)
    left = "class_head, mask_head, pixel_decoder, pyramid, query_embed, transformer"
    assert f"left random: {left}" in "\n".join(report.lines())
    assert report.waived == ["embeddings.mask_token"]
    for path, value in flat(variables).items():
        assert np.array_equal(value, flat(before)[path]) != path.startswith("params/backbone/")


def meta_arrays(name: str) -> dict[str, np.ndarray]:
    """The peer's arrays under the names of Meta's repository, spelled out on their own."""
    arrays = {}
    old = {names.current_name(k): v.numpy() for k, v in peer_of(name).state_dict().items()}
    for key, value in old.items():
        if key.startswith("embeddings."):
            key = key.removeprefix("embeddings.")
            key = key.replace("patch_embeddings.projection", "patch_embed.proj")
            arrays[key.replace("position_embeddings", "pos_embed")] = value
        elif ".attention.attention.query." in key:
            parts = [old[key.replace("query", part)] for part in ("query", "key", "value")]
            key = key.replace("encoder.layer", "blocks").replace("attention.attention.query", "X")
            arrays[key.replace("X", "attn.qkv")] = np.concatenate(parts)
        elif ".attention.attention." not in key:
            key = key.replace("encoder.layer.", "blocks.").replace("layernorm", "norm")
            key = key.replace("attention.output.dense", "attn.proj")
            key = key.replace("layer_scale", "ls").replace("lambda1", "gamma")
            arrays[key] = value
    return arrays


@pytest.mark.parametrize("name", TINY)
def test_other_files_give_the_same_variables(folders, loaded, tmp_path, name):
    on_disk = load_file(folders / name / "model.safetensors")
    meta = meta_arrays(name)
    assert {"cls_token", "pos_embed", "mask_token", "blocks.1.attn.qkv.bias", "norm.weight"} < set(
        meta
    )
    torch.save({k: torch.tensor(v) for k, v in meta.items()}, tmp_path / "meta.pth")
    # In memory transformers 5 has other names than on disk.
    torch.save(peer_of(name).state_dict(), tmp_path / "memory.bin")
    prefix = "dinov2_with_registers." if "registers" in name else "dinov2."
    classifier = {prefix + key: value for key, value in on_disk.items()}
    classifier["classifier.weight"] = np.ones((2, 48), np.float32)
    save_file(classifier, tmp_path / "classifier.safetensors")
    for file in ("meta.pth", "memory.bin", "classifier.safetensors"):
        config = tiny_config(name, tmp_path / file)
        variables, report = load_pretrained(random_variables(name), config)
        assert ("Meta" in report.family) == (file == "meta.pth")
        for path, value in flat(loaded[name]).items():
            np.testing.assert_array_equal(flat(variables)[path], value, err_msg=(file, path))


def described(folder, changes: dict) -> str:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))
    return str(folder)


MISTAKES = {
    "heads": ({"num_attention_heads": 4}, r"says 4 attention heads, and .*'tiny_dino' has 2"),
    "patch": ({"patch_size": 16}, r"says patch_size = 16, and model\.backbone = .* has 14"),
    "image": ({"image_size": 224}, r"says image_size = 224, and .* has 518"),
    "giant": ({"use_swiglu_ffn": True}, r"this is DINOv2 giant \(SwiGLU\), which is not here"),
    "vit": ({"model_type": "vit"}, r"says 'vit'; use a MaskFormer, a ResNet, a Swin or a DINOv2"),
}


@pytest.mark.parametrize("how", MISTAKES)
def test_a_description_that_does_not_fit_is_refused(tmp_path, how):
    changes, message = MISTAKES[how]
    peer_of("tiny_dino").save_pretrained(tmp_path)
    config = tiny_config(init_from=described(tmp_path, changes))
    with pytest.raises(WeightsError, match=f"^{tmp_path}.*{message}"):
        load_pretrained(random_variables("tiny_dino"), config)


def test_files_of_another_network_are_named(folders, tmp_path):
    def refused(message: str, init_from: object, **model: object) -> None:
        config = tiny_config(init_from=init_from, **model)
        with pytest.raises(WeightsError, match=f"(?s){message}"):
            load_pretrained(random_variables("tiny_dino"), config)

    arrays = load_file(folders / "tiny_dino" / "model.safetensors")
    giant = arrays | {"encoder.layer.0.mlp.weights_in.weight": np.ones((4, 24), np.float32)}
    save_file(giant, tmp_path / "giant.safetensors")
    refused("giant.safetensors: this is DINOv2 giant", tmp_path / "giant.safetensors")

    codes = arrays | {"embeddings.position_embeddings": np.ones((1, 257, 24), np.float32)}
    save_file(codes, tmp_path / "codes.safetensors")
    refused(
        r"position_embeddings \(1, 1370, 24\): .* in the file gives \(1, 257, 24\)",
        tmp_path / "codes.safetensors",
    )
    registers = folders / "tiny_dino_registers" / "model.safetensors"
    refused(r"embeddings.register_tokens \(1, 4, 24\) in the file: the model has no", registers)
    save_file({"layer1.0.conv1.weight": np.ones((8, 8, 1, 1), np.float32)}, tmp_path / "resnet.pth")
    (tmp_path / "resnet.pth").rename(tmp_path / "resnet.safetensors")
    refused(
        r"class_token \(1, 1, 24\): a ResNet of torchvision or timm has no such array.*"
        r"layer1.0.conv1.weight \(8, 8, 1, 1\) in the file",
        tmp_path / "resnet.safetensors",
    )
    refused(
        r"its config.json says 'dinov2' and model.backbone = 'resnet50': use one of dinov2_small",
        folders / "tiny_dino",
        backbone="resnet50",
    )


def test_weights_of_another_size_list_both_sides(tmp_path, monkeypatch):
    wider = dinov2.Architecture(width=28, depth=3, num_heads=2, num_registers=0)
    peer_of("tiny_dino").save_pretrained(tmp_path)
    monkeypatch.setitem(dinov2.BACKBONES, "tiny_wider", wider)
    config = tiny_config("tiny_wider", tmp_path)
    with pytest.raises(WeightsError) as caught:
        load_pretrained(random_variables("tiny_wider"), config)
    lines = str(caught.value).splitlines()
    assert any("backbone/class_token (1, 1, 28): embeddings.cls_token in" in x for x in lines)
    assert any("backbone/layer2/ffn1/bias (112,): the file has no" in x for x in lines)


def test_it_goes_out_as_a_program_and_not_to_transformers(loaded, tmp_path):
    name = "tiny_dino_registers"
    config = tiny_config(name)
    classes = ("a", "b", "c", "d", "e")
    with pytest.raises(
        WeightsError, match=r"'tiny_dino_registers': transformers has no MaskFormer"
    ):
        export_transformers(loaded[name], config, classes, tmp_path / "peer")
    assert not (tmp_path / "peer").exists()
    folder = stablehlo.export_stablehlo(loaded[name], config, classes, tmp_path / "out", (64, 96))
    run, description = stablehlo.load_exported(folder)
    assert description["class_names"] == list(classes)
    x = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    ids, shares = run(x)
    model = build_model(config)
    predict = jax.jit(lambda variables, x: stablehlo.predict(model, variables, x))
    want_ids, want_shares = predict(loaded[name], x)
    np.testing.assert_allclose(shares, want_shares, atol=1e-5)
    assert (np.asarray(ids) == want_ids).mean() > 0.99


def test_it_needs_no_group_norm_from_scratch():
    config, subsets = tiny_config(), Subsets((), (), (), ())
    assert not check.config_warnings(config, None, subsets)
    config.model.backbone = "resnet18"
    assert "nothing normalises" in check.config_warnings(config, None, subsets)[0]
