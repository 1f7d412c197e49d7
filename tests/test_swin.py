"""rc2l_jax/models/swin.py and rc2l_jax/weights/swin.py, against transformers' MaskFormerSwin."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file
from test_models import images, init_shapes, peer_layers, random_variables, randomize
from test_models import tiny_config as plain_config
from test_weights import check_wrappers
from transformers import (
    DetrConfig,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    MaskFormerSwinConfig,
    SwinConfig,
    SwinForImageClassification,
)

from configs import base
from rc2l_jax.method.optimizer import group_of, parameter_rules
from rc2l_jax.models import build_model, swin
from rc2l_jax.models.pixels import PIXEL_MEAN, PIXEL_STD
from rc2l_jax.prediction.network import open_network
from rc2l_jax.prediction.predict import predict_images
from rc2l_jax.run.config import ConfigError, validate
from rc2l_jax.weights import WeightsError, load_pretrained, names, stablehlo
from rc2l_jax.weights.from_transformers import describe_network
from rc2l_jax.weights.swin import backbone_of
from rc2l_jax.weights.to_transformers import export_transformers

# An odd window and an even one; stages of one block and of two, whose second one is shifted.
TINY = {
    "tiny_swin": swin.Architecture(8, (2, 2, 1, 2), (1, 2, 2, 4), window=3),
    "even_swin": swin.Architecture(8, (1, 2, 2, 2), (2, 2, 4, 4), window=10),
    "tiniest_swin": swin.Architecture(8, (1, 1, 1, 2), (1, 1, 2, 2), window=2),
}
# (backbone, size, whether to compare gradients). 32 and windows divide none of these sizes. In the
# last one every stage's map is smaller than a window.
NETWORKS = [
    ("tiny_swin", (70, 102), True),
    ("tiny_swin", (131, 31), False),
    ("even_swin", (70, 102), True),
    ("even_swin", (35, 33), False),
]
CLASS_NAMES = ("sky", "road", "car", "tree", "pole")
STAGES = ["stage1", "stage2", "stage3", "stage4"]
ENCODER = "model.pixel_level_module.encoder."


@pytest.fixture(scope="module", autouse=True)
def tiny_backbones():
    with pytest.MonkeyPatch.context() as patch:
        for name, architecture in TINY.items():
            patch.setitem(swin.BACKBONES, name, architecture)
        patch.setattr(jax, "local_device_count", lambda: 1)
        yield


def tiny_config(init_from: object = "", backbone: str = "tiny_swin", **model: object) -> ConfigDict:
    # Groups of two channels: without its mean a group of one would hide what is added to it.
    settings = {"backbone_width": 64, "pixel_dim": 64, "num_decoder_layers": 2}
    config = plain_config(backbone=backbone, **settings | model)
    config.init_from = str(init_from)
    return config


def peer_swin(backbone: str) -> dict[str, object]:
    architecture = swin.BACKBONES[backbone]
    return {
        "embed_dim": architecture.embed_dim,
        "depths": list(architecture.depths),
        "num_heads": list(architecture.heads),
        "window_size": architecture.window,
        "drop_path_rate": 0.0,
        "out_features": STAGES,
    }


def peer_model(config: ConfigDict, kind: type = MaskFormerSwinConfig, device: str = "cpu"):
    model = config.model
    decoder = DetrConfig(
        d_model=model.hidden_dim,
        num_queries=model.num_queries,
        decoder_layers=model.num_decoder_layers,
        decoder_ffn_dim=model.ffn_dim,
        decoder_attention_heads=model.num_heads,
        encoder_attention_heads=model.num_heads,
    )
    whole = MaskFormerConfig(
        backbone_config=kind(**peer_swin(model.backbone)),
        decoder_config=decoder,
        fpn_feature_size=model.pixel_dim,
        mask_feature_size=model.mask_dim,
        num_labels=config.data.num_classes,
    )
    with torch.device(device):
        return MaskFormerForInstanceSegmentation(whole).eval()


def flat(variables: dict) -> dict[str, np.ndarray]:
    return flax.traverse_util.flatten_dict(variables["params"], sep="/")


def assert_same(got: dict, want: dict) -> None:
    got, want = flat(got), flat(want)
    assert got.keys() == want.keys()
    for path in want:
        np.testing.assert_array_equal(got[path], want[path], err_msg=path)


def written(backbone: str, folder: Path) -> SimpleNamespace:
    """A random peer, its folder, and our variables loaded from it."""
    config = tiny_config(folder, backbone)
    model = peer_model(config)
    randomize(model)
    model.save_pretrained(folder)
    variables, report = load_pretrained(random_variables(config), config)
    return SimpleNamespace(
        model=model, folder=folder, config=config, variables=variables, report=report
    )


@pytest.fixture(scope="module")
def peer(tmp_path_factory) -> SimpleNamespace:
    return written("tiny_swin", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def even_peer(tmp_path_factory) -> SimpleNamespace:
    return written("even_swin", tmp_path_factory.mktemp("even"))


def to_torch(x: jax.Array) -> torch.Tensor:
    return torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))


# The network.


@pytest.mark.parametrize(("backbone", "size", "gradients"), NETWORKS)
def test_every_map_and_layer_agrees_with_transformers(backbone, size, gradients, request):
    given = request.getfixturevalue("peer" if backbone == "tiny_swin" else "even_peer")
    model, x = build_model(given.config), images(*size)
    rng = np.random.default_rng(0)
    grid = tuple(-(-side // 4) for side in size)
    weights = (
        rng.normal(size=(2, 2, 7, 6)).astype(np.float32),
        rng.normal(size=(2, 2, 7, *grid)).astype(np.float32) / np.prod(grid) ** 0.5,
    )

    def loss(variables, x):
        out, state = model.apply(
            variables,
            x,
            train=False,
            capture_intermediates=lambda module, _: isinstance(module, swin.Swin),
        )
        (features,) = state["intermediates"]["backbone"]["__call__"]
        logits = out.class_logits, out.mask_logits
        return sum((a * b).sum() for a, b in zip(weights, logits)), (features, logits)

    run = jax.jit(jax.grad(loss, has_aux=True) if gradients else loss)
    result, (features, logits) = run(given.variables, x)

    with torch.no_grad():
        expected = given.model.model.pixel_level_module.encoder(to_torch(x)).feature_maps
    assert len(features) == len(expected) == 4
    for got, want in zip(features, expected):
        assert np.std(want.numpy()) > 0.1, "the comparison would be vacuous"
        np.testing.assert_allclose(got, want.numpy().transpose(0, 2, 3, 1), atol=1e-4)
    classes, masks, _ = peer_layers(given.model, to_torch(x))
    for got, want in zip(logits, (classes, masks), strict=True):
        want = want.detach().numpy()
        assert np.std(want) > 0.1, "the comparison would be vacuous"
        np.testing.assert_allclose(got, want, atol=1e-4)
    if gradients:
        given.model.zero_grad()
        sum((torch.from_numpy(a) * b).sum() for a, b in zip(weights, (classes, masks))).backward()
        check_gradients(flat(result), given.model)


def check_gradients(grads: dict[str, np.ndarray], model: torch.nn.Module) -> None:
    """Compares the gradient of every parameter with the peer's."""
    by_name = {names.current_name(name): p for name, p in model.named_parameters()}
    wanted = {
        path: names.to_ours(path, by_name.pop(names.TRANSFORMERS.name_of(path)).grad.numpy())
        for path in grads
    }
    assert set(by_name) == {f"{ENCODER}model.layernorm.{leaf}" for leaf in ("weight", "bias")}
    largest = max(np.linalg.norm(want) for want in wanted.values())
    compared = 0
    for path, got in grads.items():
        size = np.linalg.norm(wanted[path])
        if size < 1e-6 * largest:
            # 0 up to rounding: softmax ignores what is added to all keys, and queries start as 0.
            assert path.endswith("/key/bias") or "layer0/self_attention" in path, path
            assert np.linalg.norm(got) < 1e-5 * largest
            continue
        assert np.linalg.norm(got - wanted[path]) < 1e-3 * size, (path, size)
        compared += 1
    assert compared > 100


@pytest.mark.parametrize("backbone", ["swin_tiny", "swin_small", "swin_base", "swin_large"])
def test_published_sizes_have_the_peers_parameters(backbone):
    config = base.get_config()
    config.model.backbone = backbone
    shapes = flat(init_shapes(config))
    theirs = {
        names.current_name(name): tuple(p.shape)
        for name, p in peer_model(config, device="meta").named_parameters()
    }
    for path, leaf in shapes.items():
        assert leaf.dtype == jnp.float32
        want = theirs.pop(names.TRANSFORMERS.name_of(path))
        assert names.to_theirs(path, np.broadcast_to(0.0, leaf.shape)).shape == want
    assert set(theirs) == {f"{ENCODER}model.layernorm.{leaf}" for leaf in ("weight", "bias")}


def test_the_table_has_the_published_sizes():
    # The peers' defaults: MaskFormer's is its Swin-B, a Swin's is Swin-T.
    assert backbone_of(MaskFormerConfig().backbone_config.to_dict(), "") == "swin_base"
    assert backbone_of(SwinConfig().to_dict(), "") == backbone_of({}, "") == "swin_tiny"
    # Table 7 of Liu et al. (depths, widths); heads have 32 channels each.
    sizes = {
        "tiny": (96, 6, 7),
        "small": (96, 18, 7),
        "base": (128, 18, 12),
        "large": (192, 18, 12),
    }
    for name, (width, third, window) in sizes.items():
        architecture = swin.BACKBONES[f"swin_{name}"]
        heads = tuple(width * 2**stage // 32 for stage in range(4))
        assert architecture == ((width, (2, 2, third, 2), heads, window))


def backbone_parameters(name: str) -> dict:
    return {"params": random_variables(tiny_config(backbone=name))["params"]["backbone"]}


def test_remat_computes_blocks_again_and_changes_no_gradient():
    x, variables = images(40, 52, batch=1), backbone_parameters("tiniest_swin")

    def gradient(remat):
        model = swin.Swin("tiniest_swin", remat=remat)

        def loss(variables):
            features = model.apply(variables, x, train=True)
            return sum((f * np.arange(f.shape[-1])).mean() for f in features)

        function = jax.jit(jax.grad(loss))
        return function.lower(variables).as_text().count("dot_general"), function(variables)

    (fewer, grads), (more, again) = gradient(False), gradient(True)
    assert more > fewer
    assert max(np.abs(g).max() for g in jax.tree.leaves(grads)) > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grads, again)


def test_bfloat16_is_near_float32():
    x, variables = images(40, 52), backbone_parameters("tiniest_swin")

    def features(dtype):
        model = swin.Swin("tiniest_swin", jnp.dtype(dtype))
        return jax.jit(lambda p, x: model.apply(p, x, train=False))(variables, x)

    for low, full in zip(features("bfloat16"), features("float32"), strict=True):
        assert low.dtype == jnp.bfloat16 and full.dtype == jnp.float32
        error = np.linalg.norm(low.astype(np.float32) - full) / np.linalg.norm(full)
        assert 1e-4 < error < 0.03


def test_every_parameter_falls_under_one_rule_and_norms_and_position_biases_do_not_decay(peer):
    rules = parameter_rules(peer.config)
    biases = 0
    for path in flat(peer.variables):
        rule = rules[group_of(path, rules)]
        if not path.startswith("backbone/"):
            continue
        norm = path.rsplit("/", 1)[0] + "/scale" in flat(peer.variables)
        position = path.endswith("relative_position_bias")
        biases += position
        plain = norm or position
        assert rule.weight_decay == (0.0 if plain else peer.config.weight_decay), path
        assert rule.learning_rate_multiplier == peer.config.backbone_lr_multiplier
    assert biases == sum(TINY["tiny_swin"].depths)


def test_settings_of_resnets_are_refused():
    config = base.get_config()
    config.data.name = "shapes"
    config.model.backbone = "swin_tiny"
    config.model.norm = "group"
    with pytest.raises(ConfigError, match=r"model.norm = 'group' is of ResNets.*'swin_tiny'"):
        validate(config, num_devices=1)


# Weights in.


def test_a_folder_of_transformers_is_loaded_whole(peer):
    assert len(peer.report.loaded) == len(flat(peer.variables)) and not peer.report.reinitialized
    unused = {f"{ENCODER}model.layernorm.{leaf}" for leaf in ("weight", "bias")}
    assert set(peer.report.waived) == {"criterion.empty_weight"} | unused


def authors_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A Swin under its authors' names, with packed projections, from that of transformers."""
    renamed = {}
    for name, array in arrays.items():
        for old, new in (
            (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
            (r"^embeddings\.norm", "patch_embed.norm"),
            (r"^encoder\.", ""),
            (r"layernorm_before", "norm1"),
            (r"layernorm_after", "norm2"),
            (r"^layernorm", "norm"),
            (r"attention\.self\.", "attn."),
            (r"attention\.output\.dense", "attn.proj"),
            (r"intermediate\.dense", "mlp.fc1"),
            (r"output\.dense", "mlp.fc2"),
            (r"^classifier", "head"),
            (r"^hidden_states_norms\.", "norm"),
        ):
            name = re.sub(old, new, name)
        renamed[name] = array
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [renamed.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        renamed[name.replace("query", "qkv")] = np.concatenate(parts)
    assert "layers.1.blocks.1.attn.qkv.bias" in renamed
    return renamed


def own_arrays(peer, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """MaskFormer's own: its backbone by other names, the rest by those of a ResNet's MaskFormer."""
    heads = {path: value for path, value in flat(peer.variables).items() if "backbone" not in path}
    detectron2 = next(f for f in names.FAMILIES if f.title == "MaskFormer of detectron2")
    own = {detectron2.name_of(path): names.to_theirs(path, x) for path, x in heads.items()}
    for name in [name for name in own if ".in_proj.query." in name]:
        parts = [own.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        own[name.replace(".query.", "_")] = np.concatenate(parts)
    encoder = {
        name.removeprefix(ENCODER).removeprefix("model."): array
        for name, array in arrays.items()
        if name.startswith(ENCODER) and "model.layernorm" not in name
    }
    own |= {f"backbone.{name}": array for name, array in authors_arrays(encoder).items()}
    assert {"backbone.norm0.weight", "backbone.layers.0.downsample.norm.bias"} < set(own)
    return own


def test_every_format_of_a_whole_maskformer_gives_the_same_variables(peer, tmp_path):
    arrays = load_file(peer.folder / "model.safetensors")
    assert any(name.endswith("relative_position_index") for name in arrays)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save(tensors, tmp_path / "published.bin")
    torch.save(peer.model.state_dict(), tmp_path / "memory.bin")
    own = own_arrays(peer, arrays)
    (tmp_path / "own.pkl").write_bytes(pickle.dumps({"model": own, "__author__": "MaskFormer"}))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    for file in files:
        config = tiny_config(file)
        loaded, report = load_pretrained(random_variables(config), config)
        assert_same(loaded, peer.variables)
        assert not report.reinitialized, file


def test_wrappers_around_a_whole_network(peer, tmp_path):
    arrays = load_file(peer.folder / "model.safetensors")
    check_wrappers(arrays, "MaskFormer of transformers", tmp_path)
    check_wrappers(own_arrays(peer, arrays), "MaskFormer of detectron2", tmp_path)


def test_a_swin_alone_gives_the_backbone_but_for_the_norms_of_its_outputs(tmp_path):
    # Depths and a size for which the classifier's windows, too, keep their size in every stage.
    classifier = SwinForImageClassification(SwinConfig(**peer_swin("tiny_swin"), num_labels=11))
    randomize(classifier)
    final = classifier.swin.layernorm
    with torch.no_grad():
        final.weight.fill_(1.0), final.bias.fill_(0.0)
    classifier.eval().save_pretrained(tmp_path / "transformers")
    arrays = load_file(tmp_path / "transformers" / "model.safetensors")
    short = {name.removeprefix("swin."): array for name, array in arrays.items()}
    own = {name: torch.from_numpy(array) for name, array in authors_arrays(short).items()}
    own["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 9, 9)
    own["layers.0.blocks.1.attn.relative_position_index"] = torch.zeros(9, 9, dtype=torch.int64)
    torch.save({"model": own}, tmp_path / "authors.pth")

    loaded = []
    for file in ("transformers", "authors.pth"):
        config = tiny_config(tmp_path / file)
        fresh = random_variables(config)
        variables, report = load_pretrained(fresh, config)
        loaded.append(variables)
        before = flat(fresh)
        for path, got in flat(variables).items():
            kept = not path.startswith("backbone") or re.match(r"backbone/stage\d_norm/", path)
            assert bool(kept) == (path in report.reinitialized) == (path not in report.loaded)
            assert bool(kept) == np.array_equal(got, before[path]), path
        lines = "\n".join(report.lines())
        assert re.search(r"left random: backbone \(8 arrays\): not part of a Swin of", lines)
        assert re.search(r"not used: .*(layernorm|norm\.weight)", lines)
    assert_same(loaded[1], loaded[0])

    backbone = loaded[0]["params"]["backbone"]
    for stage in range(1, 5):
        width = backbone[f"stage{stage}_norm"]["scale"].shape
        backbone[f"stage{stage}_norm"] = {"scale": np.ones(width), "bias": np.zeros(width)}
    x = images(128, 160)
    got = jax.jit(lambda p, x: swin.Swin("tiny_swin").apply(p, x, train=False))(
        {"params": backbone}, x
    )
    with torch.no_grad():
        want = classifier.swin(to_torch(x)).last_hidden_state.numpy()
    np.testing.assert_allclose(got[-1].reshape(want.shape), want, atol=1e-4)


def test_another_variant_lists_both_sides_with_their_shapes(peer):
    config = tiny_config(peer.folder, "even_swin")
    with pytest.raises(WeightsError) as caught:
        load_pretrained(random_variables(config), config)
    text = str(caught.value)
    block = f"{ENCODER}model.encoder.layers.2.blocks.1.layernorm_before.weight"
    table = f"{ENCODER}model.encoder.layers.1.blocks.0.attention.self.relative_position_bias_table"
    for part in (
        f"backbone/stage3_1/attention_norm/scale (32,): the file has no {block}",
        f"stage2_0/attention/relative_position_bias (361, 2): {table} in the file gives (25, 2)",
        f"{ENCODER}model.encoder.layers.0.blocks.1.output.dense.bias (8,) in the file: the model",
    ):
        assert part in text


def altered(folder: Path, copy: Path, **changes: object) -> Path:
    """A copy of a folder whose config.json says another Swin."""
    shutil.copytree(folder, copy)
    content = json.loads((copy / "config.json").read_text())
    content["backbone_config"].update(changes)
    (copy / "config.json").write_text(json.dumps(content))
    return copy


REFUSED = {
    "hidden_act": ({"hidden_act": "relu"}, r"hidden_act = 'relu' \(only 'gelu' is here\)"),
    "epsilon": ({"layer_norm_eps": 1e-6}, r"layer_norm_eps = 1e-06 \(only 1e-05 is here\)"),
    "patches": ({"patch_size": [2, 2]}, r"patch_size = \[2, 2\] \(only 4 is here\)"),
    "several": (
        {"mlp_ratio": 2.0, "use_absolute_embeddings": True},
        r"mlp_ratio = 2.0 \(only 4.0 .*use_absolute_embeddings = True \(only False",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_settings_are_refused_by_name(peer, tmp_path, case):
    changes, message = REFUSED[case]
    folder = altered(peer.folder, tmp_path / "copy", **changes)
    with pytest.raises(WeightsError, match=f"(?s)config.json: a Swin transformer with {message}"):
        open_network(folder)
    config = tiny_config(folder)
    with pytest.raises(WeightsError, match=message):
        load_pretrained(random_variables(config), config)


def test_other_sizes_are_refused_with_those_of_the_nearest(peer, tmp_path):
    folder = altered(peer.folder, tmp_path / "window", window_size=5)
    message = (
        r"with embed_dim = 8, depths = \[2, 2, 1, 2\], num_heads = \[1, 2, 2, 4\], window_size = 5 "
        r"is none of .*swin_tiny.*; tiny_swin has window_size = 3$"
    )
    with pytest.raises(WeightsError, match=message):
        open_network(folder)
    published = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}
    with pytest.raises(WeightsError, match=r"; swin_base has window_size = 12$"):
        backbone_of(published | {"window_size": 7}, "config.json")


def test_a_swin_is_refused_where_the_config_says_a_resnet_and_the_other_way_round(peer, tmp_path):
    config = plain_config(backbone="resnet10")
    config.init_from = str(peer.folder)
    with pytest.raises(
        WeightsError, match=r"backbone 'maskformer-swin' and model.backbone = 'resn"
    ):
        load_pretrained(random_variables(config), config)
    resnet = tmp_path / "resnet"
    resnet.mkdir()
    save_file({"a": np.ones(3, np.float32)}, resnet / "model.safetensors")
    (resnet / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    config = tiny_config(resnet)
    with pytest.raises(WeightsError, match=r"backbone 'resnet' and model.backbone = 'tiny_swin'"):
        load_pretrained(random_variables(config), config)


def test_a_maskformer_that_says_no_backbone_has_the_peers_default():
    config = base.get_config()
    config.model.norm = "group"  # of a config for something else
    description = {"model_type": "maskformer", "id2label": {"0": "a"}}
    assert describe_network(description, config, "config.json") == ["a"]
    assert (config.model.backbone, config.model.norm) == ("swin_base", "frozen")


# Weights out, and both together.


def shares_of_peer(model: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    """Each class's share of the scores [K, H, W] of an image that is not resized."""
    pixels = ((image - PIXEL_MEAN) / PIXEL_STD).astype(np.float32)[None]
    with torch.no_grad():
        out = model(to_torch(pixels))
    masks = torch.nn.functional.interpolate(
        out.masks_queries_logits, image.shape[:2], mode="bilinear", align_corners=False
    )
    classes = out.class_queries_logits.softmax(-1)[..., :-1]
    scores = torch.einsum("bqk,bqhw->bkhw", classes, masks.sigmoid())[0]
    return (scores / scores.sum(0)).numpy()


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_folder_predicts_what_the_peer_predicts(peer, tmp_path, kind):
    folder = altered(peer.folder, tmp_path / "copy", model_type="swin")  # as it is published
    (folder / "preprocessor_config.json").write_text('{"do_resize": false}')
    if kind == "bin":
        arrays = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        torch.save(tensors, folder / "pytorch_model.bin")
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    (prediction,) = predict_images(open_network(folder), [image], probabilities=True)
    want = shares_of_peer(peer.model, image)
    assert want.std((1, 2)).max() > 5e-3, "the comparison would be vacuous"
    np.testing.assert_allclose(prediction.probabilities, want, atol=3e-4)  # they are float16


def test_out_and_in_again_is_bit_identical_and_opens_in_the_peer(peer, tmp_path):
    folder = export_transformers(peer.variables, peer.config, CLASS_NAMES, tmp_path / "out")
    config = tiny_config(folder)
    again, _ = load_pretrained(random_variables(config), config)
    assert_same(again, peer.variables)
    got, want = (load_file(f / "model.safetensors") for f in (folder, peer.folder))
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].dtype == want[name].dtype and got[name].shape == want[name].shape
        if name not in peer.report.waived:
            np.testing.assert_array_equal(got[name], want[name], err_msg=name)

    theirs, info = MaskFormerForInstanceSegmentation.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info.values()), info
    assert theirs.config.id2label == dict(enumerate(CLASS_NAMES))
    x = torch.randn(2, 3, 70, 102, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want, got = peer.model(x), theirs.eval()(x)
    torch.testing.assert_close(got.class_queries_logits, want.class_queries_logits)
    torch.testing.assert_close(got.masks_queries_logits, want.masks_queries_logits)

    assert open_network(folder).class_names == CLASS_NAMES


def test_the_stablehlo_program_is_the_models_inference_for_any_batch(peer, tmp_path):
    folder = tmp_path / "hlo"
    stablehlo.export_stablehlo(peer.variables, peer.config, CLASS_NAMES, folder, (40, 52))
    run, _ = stablehlo.load_exported(folder)
    x = np.random.default_rng(0).integers(0, 256, (3, 40, 52, 3), dtype=np.uint8)
    model = build_model(peer.config)
    _, want = jax.jit(lambda x: stablehlo.predict(model, peer.variables, x))(x)
    for batch in (3, 1):
        np.testing.assert_allclose(run(x[:batch])[1], want[:batch], atol=1e-5)
