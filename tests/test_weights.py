"""rc2l_jax/weights/: weights in and out, in files as other programs write them."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import flax
import jax
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from test_models import TINY, images, peer_model, peer_predictions, random_variables, randomize
from test_models import tiny_config as plain_config
from transformers import (
    AutoImageProcessor,
    MaskFormerForInstanceSegmentation,
    ResNetConfig,
    ResNetForImageClassification,
    pipeline,
)

from rc2l_jax.method.state import initial_state
from rc2l_jax.models import build_model, resnet
from rc2l_jax.weights import (
    InitReport,
    WeightsError,
    files,
    load,
    load_pretrained,
    names,
    stablehlo,
)
from rc2l_jax.weights.load import fit, pretrained_state
from rc2l_jax.weights.to_transformers import export_transformers

CLASS_NAMES = ("sky", "road", "car", "tree", "pole")
DETECTRON2 = next(f for f in names.FAMILIES if f.title == "MaskFormer of detectron2")


@pytest.fixture(scope="module", autouse=True)
def tiny_backbones():
    with pytest.MonkeyPatch.context() as patch:
        for name, architecture in TINY.items():
            patch.setitem(resnet.BACKBONES, name, architecture)
        yield


def tiny_config(init_from: object = "", norm: str = "frozen", queries: str = "first", **model):
    config = plain_config(backbone="tiny_bottleneck", norm=norm, **model)
    config.init_from, config.init_queries = str(init_from), queries
    config.data.crop_size = 32
    return config


def flat(variables) -> dict[str, np.ndarray]:
    return flax.traverse_util.flatten_dict(variables, sep="/")


def assert_same(got, want) -> None:
    got, want = flat(got), flat(want)
    assert got.keys() == want.keys()
    for path in want:
        np.testing.assert_array_equal(got[path], want[path], err_msg=path)


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """A random peer, its folder, and our variables loaded from it."""
    config = tiny_config()
    model = peer_model(config)
    randomize(model)
    folder = tmp_path_factory.mktemp("peer")
    model.save_pretrained(folder)
    config.init_from = str(folder)
    variables, report = load_pretrained(random_variables(config), config)
    return SimpleNamespace(model=model, folder=folder, variables=variables, report=report)


def arrays_of(peer) -> dict[str, np.ndarray]:
    """Name on disk -> array, of the peer."""
    return load_file(peer.folder / "model.safetensors")


def detectron2_arrays(peer) -> dict[str, np.ndarray]:
    """Name in detectron2 -> array, of the same weights; projections are packed as in torch."""
    arrays = {}
    for path, value in flat(peer.variables).items():
        path = path.split("/", 1)[1]
        arrays[DETECTRON2.name_of(path)] = names.to_theirs(path, value)
    for kind in ("weight", "bias"):
        for name in [n for n in arrays if n.endswith(f".in_proj.query.{kind}")]:
            stem = name.removesuffix(f".query.{kind}")
            parts = [arrays.pop(f"{stem}.{part}.{kind}") for part in ("query", "key", "value")]
            arrays[f"{stem}_{kind}"] = np.concatenate(parts)
    return arrays


# Weights in.


def test_a_folder_of_transformers_gives_the_peers_predictions(peer):
    assert len(peer.report.loaded) == len(flat(peer.variables)) and not peer.report.reinitialized
    assert peer.report.waived == ["criterion.empty_weight"]
    config, x = tiny_config(), images(70, 102)
    model = build_model(config)
    ours = jax.jit(lambda v, x: model.apply(v, x, train=False))(peer.variables, x)
    theirs = peer_predictions(peer.model, x)
    for name in ("class_logits", "mask_logits"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-4)


def test_every_format_of_a_whole_maskformer_gives_the_same_variables(peer, tmp_path):
    tensors = {name: torch.from_numpy(x) for name, x in arrays_of(peer).items()}
    torch.save(tensors, tmp_path / "plain.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in tensors.items()}}, tmp_path / "ddp.pt")
    # In memory transformers 5 has other names than on disk.
    torch.save(peer.model.state_dict(), tmp_path / "memory.bin")
    for protocol in (2, 4, 5):
        arrays = detectron2_arrays(peer)
        if protocol == 2:  # published files are older than the module `pixel_decoder`
            arrays = {
                k.replace("sem_seg_head.pixel_decoder.", "sem_seg_head."): v
                for k, v in arrays.items()
            }
            assert "sem_seg_head.layer_4.norm.weight" in arrays
        content = {"model": arrays, "__author__": "MaskFormer"}
        (tmp_path / f"d2_{protocol}.pkl").write_bytes(pickle.dumps(content, protocol))
    peer.model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    files = sorted(tmp_path.iterdir())
    files.append(tmp_path / "shards" / "model.safetensors.index.json")
    assert len(files) == 8
    for file in files:
        config = tiny_config(file)
        loaded, report = load_pretrained(random_variables(config), config)
        assert_same(loaded, peer.variables)
        assert not report.reinitialized, file


def test_half_precision_is_widened(peer, tmp_path):
    tensors = {name: torch.from_numpy(x) for name, x in arrays_of(peer).items()}
    half = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in tensors.items()}
    torch.save(half, tmp_path / "half.pth")
    from safetensors.torch import save_file as save_torch

    save_torch(half, tmp_path / "half.safetensors")
    loaded = []
    for file in ("half.pth", "half.safetensors"):
        config = tiny_config(tmp_path / file)
        loaded.append(load_pretrained(random_variables(config), config)[0])
    assert_same(*loaded)
    got, want = flat(loaded[0]), flat(peer.variables)
    for path in want:
        assert got[path].dtype == np.float32
        np.testing.assert_allclose(got[path], want[path], rtol=2**-8)


BACKBONE_NAMES = {
    "ResNet of torchvision or timm": {
        "backbone/stem_conv1/kernel": "conv1.weight",
        "backbone/stem_norm1/scale": "bn1.weight",
        "backbone/stem_norm1/mean": "bn1.running_mean",
        "backbone/res2_0/conv1/kernel": "layer1.0.conv1.weight",
        "backbone/res5_2/norm3/bias": "layer4.2.bn3.bias",
        "backbone/res3_0/shortcut_conv/kernel": "layer2.0.downsample.0.weight",
        "backbone/res4_0/shortcut_norm/var": "layer3.0.downsample.1.running_var",
    },
    "ResNet of detectron2": {
        "backbone/stem_conv1/kernel": "stem.conv1.weight",
        "backbone/stem_conv3/kernel": "stem.conv3.weight",
        "backbone/stem_norm2/scale": "stem.conv2.norm.weight",
        "backbone/res2_0/conv1/kernel": "res2.0.conv1.weight",
        "backbone/res5_2/norm3/bias": "res5.2.conv3.norm.bias",
        "backbone/res3_0/shortcut_conv/kernel": "res3.0.shortcut.weight",
        "backbone/res4_0/shortcut_norm/var": "res4.0.shortcut.norm.running_var",
    },
    "ResNet of transformers": {
        "backbone/stem_conv1/kernel": "embedder.embedder.convolution.weight",
        "backbone/res5_2/norm3/bias": "encoder.stages.3.layers.2.layer.2.normalization.bias",
        "backbone/res3_0/shortcut_conv/kernel": (
            "encoder.stages.1.layers.0.shortcut.convolution.weight"
        ),
    },
    # As in mask_former_model.py, transformer.py and per_pixel_baseline.py of MaskFormer's code.
    "MaskFormer of detectron2": {
        "backbone/res5_2/norm3/bias": "backbone.res5.2.conv3.norm.bias",
        "pixel_decoder/lateral2_conv/kernel": "sem_seg_head.pixel_decoder.adapter_1.weight",
        "pixel_decoder/lateral4_norm/scale": "sem_seg_head.pixel_decoder.adapter_3.norm.weight",
        "pixel_decoder/output2_conv/kernel": "sem_seg_head.pixel_decoder.layer_1.weight",
        "pixel_decoder/output5_norm/bias": "sem_seg_head.pixel_decoder.layer_4.norm.bias",
        "pixel_decoder/mask_features/bias": "sem_seg_head.pixel_decoder.mask_features.bias",
        "query_embed": "sem_seg_head.predictor.query_embed.weight",
        "transformer/input_projection/kernel": "sem_seg_head.predictor.input_proj.weight",
        "transformer/layer3/self_attention/out/kernel": (
            "sem_seg_head.predictor.transformer.decoder.layers.3.self_attn.out_proj.weight"
        ),
        "transformer/layer0/cross_attention/out/bias": (
            "sem_seg_head.predictor.transformer.decoder.layers.0.multihead_attn.out_proj.bias"
        ),
        "transformer/layer5/cross_attention_norm/scale": (
            "sem_seg_head.predictor.transformer.decoder.layers.5.norm2.weight"
        ),
        "transformer/layer1/ffn1/kernel": (
            "sem_seg_head.predictor.transformer.decoder.layers.1.linear1.weight"
        ),
        "transformer/output_norm/bias": "sem_seg_head.predictor.transformer.decoder.norm.bias",
        "class_head/kernel": "sem_seg_head.predictor.class_embed.weight",
        "mask_head/layer3/kernel": "sem_seg_head.predictor.mask_embed.layers.2.weight",
    },
}


@pytest.mark.parametrize("title", BACKBONE_NAMES)
def test_names_are_those_of_the_other_programs(title):
    family = next(family for family in names.FAMILIES if family.title == title)
    for path, name in BACKBONE_NAMES[title].items():
        assert family.name_of(path) == name


def resnet_files(folder: Path) -> list[Path]:
    """One ResNet as transformers, torchvision and detectron2 write it, with their classifiers."""
    config = ResNetConfig(
        depths=[1, 1, 1, 3], embedding_size=8, hidden_sizes=[32, 64, 128, 256], num_labels=11
    )
    model = ResNetForImageClassification(config)
    randomize(model)
    model.save_pretrained(folder / "transformers")
    torchvision, detectron2 = {}, {}
    for name, value in model.state_dict().items():
        short = name.removeprefix("resnet.")
        for rules, target in ((TORCHVISION_FROM_HF, torchvision), (D2_FROM_HF, detectron2)):
            renamed = short
            for old, new in rules:
                renamed = re.sub(old, new, renamed)
            target[renamed] = value.numpy().copy()
    torch.save({k: torch.from_numpy(v) for k, v in torchvision.items()}, folder / "tv.pth")
    save_file(torchvision, folder / "timm.safetensors")
    content = {"model": detectron2, "__author__": "torchvision", "matching_heuristics": True}
    (folder / "R-50.pkl").write_bytes(pickle.dumps(content))
    return sorted(folder.iterdir())


_STAGE = r"encoder\.stages\.(\d)\.layers\.(\d)\."
TORCHVISION_FROM_HF = (
    (r"embedder\.embedder\.convolution", "conv1"),
    (r"embedder\.embedder\.normalization", "bn1"),
    (_STAGE, lambda m: f"layer{int(m[1]) + 1}.{m[2]}."),
    (r"layer\.(\d)\.convolution", lambda m: f"conv{int(m[1]) + 1}"),
    (r"layer\.(\d)\.normalization", lambda m: f"bn{int(m[1]) + 1}"),
    (r"shortcut\.convolution", "downsample.0"),
    (r"shortcut\.normalization", "downsample.1"),
    (r"classifier\.1", "fc"),
)
D2_FROM_HF = (
    (r"embedder\.embedder\.convolution", "stem.conv1"),
    (r"embedder\.embedder\.normalization", "stem.conv1.norm"),
    (_STAGE, lambda m: f"res{int(m[1]) + 2}.{m[2]}."),
    (r"layer\.(\d)\.convolution", lambda m: f"conv{int(m[1]) + 1}"),
    (r"layer\.(\d)\.normalization", lambda m: f"conv{int(m[1]) + 1}.norm"),
    (r"shortcut\.convolution", "shortcut"),
    (r"shortcut\.normalization", "shortcut.norm"),
    (r"classifier\.1", "stem.fc"),
)


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_every_format_of_a_backbone_alone(tmp_path, norm):
    loaded = []
    for file in resnet_files(tmp_path):
        config = tiny_config(file, norm)
        fresh = random_variables(config)
        variables, report = load_pretrained(fresh, config)
        loaded.append(variables)
        got, before = flat(variables), flat(fresh)
        for path in got:
            in_backbone = path.split("/")[1] == "backbone"
            assert in_backbone == (path.split("/", 1)[1] in report.loaded)
            assert in_backbone != np.array_equal(got[path], before[path]), path
        assert any("classifier" in n or "fc" in n for n in report.waived)
        assert "left random: class_head, mask_head" in "\n".join(report.lines())
    assert len(loaded) == 4
    for other in loaded[1:]:
        assert_same(other, loaded[0])


def test_other_classes_and_fewer_queries(peer):
    config = tiny_config(peer.folder, num_queries=4)
    config.data.num_classes = 9
    fresh = random_variables(config)
    loaded, report = load_pretrained(fresh, config)
    assert set(report.reinitialized) == {"class_head/kernel", "class_head/bias"}
    assert "9 classes instead of 5" in "\n".join(report.lines())
    np.testing.assert_array_equal(
        loaded["params"]["class_head"]["kernel"], fresh["params"]["class_head"]["kernel"]
    )
    np.testing.assert_array_equal(
        loaded["params"]["query_embed"], peer.variables["params"]["query_embed"][:4]
    )


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        (["sky", "road", "car", "tree", "pole"], ""),
        (["sky", "car", "road", "tree", "pole"], "reordered: class 1 was 'car' and is now 'road'"),
        (["sky", "road", "cat", "tree", "pole"], "renamed: class 2 was 'cat' and is now 'car'"),
        ([f"LABEL_{index}" for index in range(5)], ""),
        ([], ""),
    ],
)
def test_the_class_head_is_that_of_the_classes_that_config_json_names(
    peer, tmp_path, named, reason
):
    folder = shutil.copytree(peer.folder, tmp_path / "named")
    description = json.loads((folder / "config.json").read_text())
    description["id2label"] = {str(index): name for index, name in enumerate(named)}
    (folder / "config.json").write_text(json.dumps(description))
    config = tiny_config(folder)
    fresh = random_variables(config)
    loaded, report = load_pretrained(fresh, config, class_names=CLASS_NAMES)
    want = fresh if reason else peer.variables
    for name in ("kernel", "bias"):
        got = loaded["params"]["class_head"][name]
        np.testing.assert_array_equal(got, want["params"]["class_head"][name])
        assert reason in report.reinitialized.get(f"class_head/{name}", "")
    assert len(report.reinitialized) == (2 if reason else 0)


def test_more_queries_must_be_fresh(peer):
    config = tiny_config(peer.folder, num_queries=9)
    with pytest.raises(WeightsError, match=r"7 queries and model\.num_queries = 9.*'fresh'"):
        load_pretrained(random_variables(config), config)
    config = tiny_config(peer.folder, num_queries=9, queries="fresh")
    fresh = random_variables(config)
    loaded, report = load_pretrained(fresh, config)
    assert list(report.reinitialized) == ["query_embed"]
    np.testing.assert_array_equal(loaded["params"]["query_embed"], fresh["params"]["query_embed"])


def test_student_and_teacher_start_from_the_weights_in_buffers_of_their_own(peer):
    config = tiny_config(peer.folder)
    optimizer = SimpleNamespace(init=lambda params: ())
    state = jax.jit(lambda: initial_state(build_model(config), optimizer, config))()
    state, _ = pretrained_state(state, config)
    student = {"params": state.params, "batch_stats": state.batch_stats}
    teacher = {"params": state.teacher_params, "batch_stats": state.teacher_batch_stats}
    assert_same(student, peer.variables)
    assert_same(teacher, peer.variables)
    buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((student, teacher))]
    assert len(set(buffers)) == len(buffers)


# What other programs put around weights, and beside them.


BARE = {"conv1.weight": torch.ones(2, 3), "layer1.0.conv1.weight": torch.arange(4.0)}


def before(prefix: str, **more: torch.Tensor) -> dict:
    """Weights whose names have a prefix."""
    return {prefix + name: array for name, array in BARE.items()} | more


WRAPPED = {
    "plain": BARE,
    "DistributedDataParallel": {"state_dict": before("module."), "epoch": 3},
    "torch.compile": {"model": before("_orig_mod.")},
    "both": {"model": before("_orig_mod.module.")},
    "inside": before("backbone._orig_mod."),
    "MoCo": {
        "state_dict": before(
            "module.encoder_q.",
            **before("module.encoder_k."),
            **{"module.queue": torch.ones(2, 2), "module.queue_ptr": torch.zeros(1).long()},
        )
    },
    "MoCo v3": before("module.base_encoder.", **before("module.momentum_encoder.")),
    "DINO": {"student": before("module.backbone."), "teacher": before("backbone."), "epoch": 1},
    "Lightning": {"state_dict": before("model."), "callbacks": {}, "epoch": 2},
    "net": {"net": before("module."), "acc": 93.1},
    "nested": {"net": {"state_dict": before("net.backbone.")}},
    "values among them": BARE | {"epoch": 3, "name": "x", "lr": 0.1, "best": None},
    "NumPy's": {
        "state_dict": BARE | {"miou": np.float64(0.5)},
        "best": np.float64(0.5),
        "sizes": np.zeros(3),
        "classes": np.array(["road", "tree"]),
        "name": np.str_("x"),
        "done": np.bool_(True),
    },
    "options": {
        "model": BARE,
        "args": argparse.Namespace(lr=1.0, output=Path("out"), scales=[0.5]),
    },
}


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".ckpt"])
@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_and_values_beside_the_weights(tmp_path, name, suffix):
    path = tmp_path / f"weights{suffix}"
    torch.save(WRAPPED[name], path)
    family, found, _ = names.family_of(files.read_arrays(path), str(path))
    assert family.title == "ResNet of torchvision or timm"
    assert found.keys() == BARE.keys()
    for key, array in BARE.items():
        np.testing.assert_array_equal(found[key], array.numpy())


def put_before(prefix: str, arrays: dict) -> dict:
    return {prefix + name: array for name, array in arrays.items()}


# What is put around a whole network, and what is said of the rest of the file.
AROUND = {
    "plain": (lambda x: x, ""),
    "Lightning": (lambda x: {"state_dict": put_before("model.", x), "epoch": 2}, ""),
    "net": (lambda x: put_before("net.", x), ""),
    "network, compiled": (lambda x: {"model": put_before("network._orig_mod.", x)}, ""),
    "two prefixes": (lambda x: put_before("model.net.module.", x), ""),
    "a student alone": (lambda x: {"state_dict": put_before("student.model.", x)}, ""),
    "beside a loss": (
        lambda x: put_before("model.", x) | {"loss.weight": torch.ones(3)},
        "taken from model.*; 1 arrays of loss left out",
    ),
    "teacher and student": (
        lambda x: put_before("student.", others(x)) | put_before("teacher.", x),
        "taken from teacher.*; {} arrays of student left out",
    ),
    "an average in Lightning": (
        lambda x: put_before("net.", others(x)) | put_before("ema.module.", x),
        "taken from ema.*; {} arrays of net left out",
    ),
    "an average beside plain names": (
        lambda x: {"a.weight": torch.ones(2)} | put_before("model_ema.", x),
        "taken from model_ema.*; 1 arrays of a left out",
    ),
}


def others(arrays: dict) -> dict:
    """Other weights of the same names."""
    return {name: array + 1 for name, array in arrays.items()}


def check_wrappers(arrays: dict[str, np.ndarray], title: str, folder: Path) -> None:
    """Checks that a whole network is found, and is the same, in all that is put around it."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    want, path = None, folder / "weights.pth"
    for name, (around, said) in AROUND.items():
        torch.save(around(tensors), path)
        read = files.read_arrays(path)
        family, found, left_out = names.family_of(read, str(path))
        want = found if want is None else want
        assert family.title == title, name
        assert found.keys() == want.keys(), name
        assert all(np.array_equal(found[key], want[key]) for key in want), name
        assert left_out == said.format(len(read) // 2), name


def test_wrappers_around_a_whole_network(peer, tmp_path):
    check_wrappers(arrays_of(peer), "MaskFormer of transformers", tmp_path)
    check_wrappers(detectron2_arrays(peer), "MaskFormer of detectron2", tmp_path)


def test_the_teacher_of_a_file_is_loaded_and_the_report_says_so(peer, tmp_path):
    path = tmp_path / "weights.safetensors"
    arrays = {name: array for name, array in arrays_of(peer).items() if array.ndim}
    save_file(put_before("student.", others(arrays)) | put_before("teacher.", arrays), path)
    config = tiny_config(path)
    loaded, report = load_pretrained(random_variables(config), config)
    assert_same(loaded, peer.variables)
    assert report.lines()[1] == f"  taken from teacher.*; {len(arrays)} arrays of student left out"


def wrapped_badly(arrays: dict[str, np.ndarray], how: str) -> dict[str, np.ndarray]:
    """A file with one thing wrong in what is around a whole network."""
    wrapped = put_before("model.", arrays)
    if how == "two networks":
        return wrapped | put_before("net.", arrays)
    if how == "two averages":
        return put_before("teacher.", arrays) | put_before("ema.", arrays)
    if how == "Mask2Former":
        level = "model.model.transformer_module.level_embed.weight"
        return wrapped | {level: np.ones(3, np.float32)}
    if how == "a name twice":  # as transformers 5 has it in memory, and as it is on disk
        name = next(name for name in wrapped if ".self_attn.out_proj." in name)
        return wrapped | {name.replace("out_proj", "o_proj"): wrapped[name]}
    if how == "no projections":
        return wrapped | {"model.self_attn.in_proj_weight": np.ones((4, 4), np.float32)}
    name = next(name for name in wrapped if "mask_embedder" in name)
    return wrapped | {f"net.{name}": wrapped.pop(name)}  # an array outside of its network


@pytest.mark.parametrize(
    ("how", "message"),
    {
        "two networks": r"holds 2 networks \(model\.\*, net\.\*\), and it is not clear which",
        "two averages": r"holds 2 networks \(ema\.\*, teacher\.\*\), and it is not clear which",
        "Mask2Former": "this is Mask2Former, which the model cannot take",
        "a name twice": r"has two arrays that would both be model\.transformer_module\..*out_proj",
        "no projections": r"self_attn\.in_proj_weight \(4, 4\): not three projections in one",
    }.items(),
)
def test_mistakes_around_a_whole_network_are_one_line(peer, how, message):
    with pytest.raises(WeightsError, match=rf"^the file: .*{message}") as caught:
        names.family_of(wrapped_badly(arrays_of(peer), how), "the file")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_an_array_outside_of_its_network_is_missing(peer, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(wrapped_badly(arrays_of(peer), "outside"), path)
    config = tiny_config(path)
    with pytest.raises(WeightsError, match=r"1 arrays do not match:\n  mask_head/.* has no mask_"):
        load_pretrained(random_variables(config), config)


OTHERS = {name: array + 1 for name, array in BARE.items()}
# Networks in dictionaries beside each other, and what is said of those that are not taken.
BESIDE = {
    "UniMatch V2, DeiT": (
        {"model": OTHERS, "model_ema": BARE, "optimizer": {"state": {0: {}}}},
        "taken from model_ema; model left out",
    ),
    "timm": (
        {"epoch": 2, "state_dict": OTHERS, "state_dict_ema": before("module."), "args": {"lr": 1}},
        "taken from state_dict_ema; state_dict left out",
    ),
    "mmengine, whose state_dict is the average": (
        {"state_dict": BARE, "ema_state_dict": OTHERS},
        "taken from state_dict; ema_state_dict left out",
    ),
    "DINO": (
        {"student": OTHERS, "teacher": BARE, "dino_loss": {"center": torch.ones(2)}},
        "taken from teacher; student, dino_loss left out",
    ),
    "deeper": (
        {"model": {"net": OTHERS, "ema": {"state_dict": before("model.")}}, "loss": 0.5},
        "taken from model.ema.state_dict; net left out",
    ),
    "an average without names": (
        {"model": BARE, "ema": {"decay": 0.99, "shadow_params": [torch.ones(2)]}},
        "",
    ),
    "a network's name": ({"model": "resnet50", "state_dict": BARE}, ""),
    "a network's options": ({"model": {"type": "resnet"}, "state_dict": BARE, "net": {}}, ""),
    "prefixes inside": (
        {"model": OTHERS, "ema": before("teacher.", **before("student."))},
        "taken from ema; model left out; taken from teacher.*; 2 arrays of student left out",
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_of_networks_beside_each_other_the_average_is_taken(tmp_path, name):
    content, said = BESIDE[name]
    torch.save(content, tmp_path / "weights.pth")
    config = tiny_config(tmp_path / "weights.pth")
    with pytest.MonkeyPatch.context() as patch:  # to see what would be loaded
        patch.setattr(load, "fit", lambda variables, arrays, *_: arrays)
        found, report = load_pretrained({}, config)
    assert report.left_out == said
    assert found.keys() == BARE.keys()
    for key, array in BARE.items():
        np.testing.assert_array_equal(found[key], array.numpy())


def test_of_two_averages_beside_each_other_none_is_taken(tmp_path):
    torch.save({"teacher": BARE, "ema": OTHERS}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"weights\.pth: holds 2 networks \(teacher, ema\)"):
        files.read_arrays(tmp_path / "weights.pth")


def test_a_backbone_in_a_teacher_goes_before_that_of_the_student():
    arrays = {name: array.numpy() for name, array in BARE.items()}
    file = put_before("student.backbone.", others(arrays)) | put_before("teacher.backbone.", arrays)
    _, found, left_out = names.family_of(
        file | {"teacher.head.weight": np.ones(2), "center": np.ones(2)}, "the file"
    )
    assert found.keys() == {*arrays, "head.weight"}
    np.testing.assert_array_equal(found["conv1.weight"], arrays["conv1.weight"])
    assert left_out == "taken from teacher.backbone.*; 3 arrays of student, center left out"
    with pytest.raises(WeightsError, match=r"two arrays that would both be conv1\.weight"):
        names.family_of(put_before("resnet.", arrays) | arrays_but(arrays, "layer1"), "the file")


def arrays_but(arrays: dict, start: str) -> dict:
    return {name: array for name, array in arrays.items() if not name.startswith(start)}


def test_names_take_time_in_proportion_to_their_number(peer):
    """A cost that grew with the square would take minutes here."""
    many = {f"model.head.{i}.weight": np.ones(1, np.float32) for i in range(100_000)}
    many |= {f"model.resnet.{name}": array.numpy() for name, array in BARE.items()}
    many |= {"model." * 20_000 + "x": np.ones(1, np.float32)}
    start = time.process_time()
    family, arrays, _ = names.family_of(many, "the file")
    report = InitReport("", "the file", family.title)
    with pytest.raises(WeightsError, match="arrays do not match"):
        fit(random_variables(tiny_config()), arrays, family, tiny_config(), report)
    assert len(report.waived) == 100_000
    assert time.process_time() - start < 30


def test_two_arrays_of_one_name_are_refused(tmp_path):
    torch.save(BARE | before("module."), tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"weights.pth: module.conv1.weight and another array"):
        files.read_arrays(tmp_path / "weights.pth")


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"


@pytest.mark.parametrize(
    "name",
    ["a.safetensors", "a.pth", "a.pkl", "a.index.json", "model.safetensors", "config.json"],
)
def test_a_pointer_of_git_lfs_is_named(tmp_path, name):
    (tmp_path / name).write_text(POINTER)
    if name == "config.json":
        save_file({"a.weight": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    said = rf"^{tmp_path}/{name}: a pointer of git-lfs .*git lfs pull"
    with pytest.raises(WeightsError, match=said):
        path, _ = files.find(str(tmp_path if name == "config.json" else tmp_path / name))
        files.read_arrays(path)


# Bad input.


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("/tmp/rc2l_evil"),)


def spoil(peer, folder: Path, how: str) -> Path:
    """Writes weights with one thing wrong."""
    arrays = arrays_of(peer)
    safe = folder / "model.safetensors"
    first = "mask_embedder.0.0.weight"
    if how == "truncated":
        safe.write_bytes((peer.folder / "model.safetensors").read_bytes()[:5000])
    elif how == "corrupt_torch":
        safe = folder / "weights.pth"
        safe.write_bytes(b"PK\x03\x04 not a file of torch")
    elif how == "corrupt_pickle":
        safe = folder / "weights.pkl"
        safe.write_bytes(pickle.dumps({"model": arrays})[:-100])
    elif how == "torch_pickle":
        safe = folder / "weights.pkl"
        torch.save({"a": torch.ones(2)}, safe)
    elif how == "code":
        safe = folder / "weights.pkl"
        safe.write_bytes(pickle.dumps({"model": arrays, "extra": Evil()}))
    elif how == "object_pickle":
        safe = folder / "weights.pkl"
        safe.write_bytes(pickle.dumps({"model": {"a": np.array([None, 1], object)}}))
    elif how == "code_torch":
        safe = folder / "weights.pth"
        torch.save({"a": Evil()}, safe)
    elif how == "unknown_file":
        safe = folder / "weights.h5"
        safe.write_bytes(b"HDF")
    elif how == "nothing_known":
        save_file({"a.weight": np.ones(3, np.float32)}, safe)
    elif how == "swin_keys":
        save_file({"backbone.patch_embed.proj.weight": np.ones(3, np.float32)}, safe)
    elif how == "mask2former_keys":
        save_file({"model.transformer_module.level_embed.weight": np.ones(3, np.float32)}, safe)
    elif how in ("mask2former", "swin", "heads"):
        config = {"model_type": "mask2former"}
        if how == "heads":
            config = {"model_type": "maskformer", "decoder_config": {"decoder_attention_heads": 8}}
        if how == "swin":
            config = {"model_type": "maskformer", "backbone_config": {"model_type": "swin"}}
        (folder / "config.json").write_text(json.dumps(config))
        save_file(arrays, safe)
        return folder
    elif how == "empty_folder":
        return folder
    else:
        if how == "missing":
            del arrays[first]
        elif how == "left_over":
            arrays["model.something.weight"] = np.ones((2, 3), np.float32)
        elif how == "shape":
            arrays[first] = arrays[first][:, :-1].copy()
        elif how == "dtype":
            arrays[first] = arrays[first].astype(np.int32)
        elif how == "nan":
            arrays[first][0, 0] = np.nan
        save_file(arrays, safe)
    return safe


MISTAKES = {
    "truncated": "model.safetensors: not a readable safetensors file",
    "corrupt_torch": "weights.pth: not a readable torch file",
    "corrupt_pickle": "weights.pkl: not a readable pickle",
    "torch_pickle": r"weights.pkl: written by torch.save; name it weights\.pth",
    "code": r"weights.pkl: a pickle of more than NumPy arrays, not loaded: .*touch",
    "code_torch": r"weights.pth: not a readable torch file.* wants to use builtins\.getattr",
    "unknown_file": "weights.h5: unknown kind of file; .safetensors",
    "nothing_known": "none of MaskFormer of transformers.* a.weight",
    "swin_keys": "none of .*, Swin of its authors. Its first arrays: backbone.patch_embed",
    "mask2former_keys": "this is Mask2Former",
    "mask2former": "its config.json says 'mask2former'",
    "swin": "its config.json says a backbone 'swin' and model.backbone = 'tiny_bottleneck'",
    "heads": r"says 8 attention heads and model.num_heads = 4",
    "object_pickle": "array of type object, which is neither number nor text",
    "empty_folder": "neither model.safetensors nor pytorch_model.bin",
    "missing": r"1 arrays do not match:\n  mask_head/layer1/kernel \(40, 40\): the file has no",
    "left_over": r"model.something.weight \(2, 3\) in the file: the model has no place",
    "shape": r"mask_head/layer1/kernel \(40, 40\): .* gives \(39, 40\)",
    "dtype": "mask_embedder.0.0.weight is of type int32",
    "nan": "mask_embedder.0.0.weight is not finite",
}


@pytest.mark.parametrize("how", MISTAKES)
def test_mistakes_are_named_and_nothing_is_loaded(peer, tmp_path, how):
    path = spoil(peer, tmp_path, how)
    config = tiny_config(path)
    variables = random_variables(config)
    before = jax.tree.map(np.copy, variables)
    with pytest.raises(WeightsError, match=f"(?s){MISTAKES[how]}") as caught:
        load_pretrained(variables, config)
    assert str(path) in str(caught.value)
    assert_same(variables, before)
    assert not Path("/tmp/rc2l_evil").exists()


def test_another_architecture_lists_both_sides(peer):
    config = tiny_config(peer.folder, num_decoder_layers=4)
    with pytest.raises(WeightsError, match=r"transformer/layer3/ffn1/kernel .*the file has no"):
        load_pretrained(random_variables(config), config)
    config = tiny_config(peer.folder, num_decoder_layers=2)
    with pytest.raises(WeightsError, match=r"layers.2.fc1.weight \(48, 40\) in the file"):
        load_pretrained(random_variables(config), config)


def test_group_norm_has_no_place_for_batch_norms(peer):
    config = tiny_config(peer.folder, "group")
    with pytest.raises(WeightsError, match=r"model\.norm = 'group'"):
        load_pretrained(random_variables(config), config)


def test_without_network_the_error_says_what_to_put_where(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    config = tiny_config("facebook/maskformer-nowhere")
    with pytest.raises(WeightsError, match=r"config.json and model.safetensors .*in\s+a folder"):
        load_pretrained({}, config)
    with pytest.raises(WeightsError, match="no such file or folder"):
        load_pretrained({}, tiny_config("no/such/file.pth"))
    scratch = "; or train from scratch: --config.init_from="
    for backbone, frozen, end in (
        ("tiny_bottleneck", False, f"{scratch} --config.model.norm=group"),
        ("swin_tiny", False, scratch),  # model.norm is of ResNets
        ("tiny_bottleneck", True, "and set init_from to it"),
    ):
        config.model.update(backbone=backbone, freeze_backbone=frozen)
        with pytest.raises(WeightsError, match=f"{re.escape(end)}$"):
            load_pretrained({}, config)


# Weights out.


def test_out_and_in_again_is_bit_identical_and_opens_in_the_peer(peer, tmp_path):
    config = tiny_config()
    folder = export_transformers(peer.variables, config, CLASS_NAMES, tmp_path / "out")
    config.init_from = str(folder)
    again, _ = load_pretrained(random_variables(config), config)
    assert_same(again, peer.variables)

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


def test_the_exported_folder_segments_an_image_through_a_pipeline(peer, tmp_path):
    config = tiny_config()
    config.data.eval_short_edge = 64
    folder = export_transformers(peer.variables, config, CLASS_NAMES, tmp_path / "out")
    processor = AutoImageProcessor.from_pretrained(folder)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8))
    inputs = processor(image, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 64, 96)
    result = pipeline("image-segmentation", str(folder))(image, subtask="semantic")
    assert {part["label"] for part in result} <= set(CLASS_NAMES) and result
    assert result[0]["mask"].size == (120, 80)


def test_what_the_peer_has_not_is_refused_and_nothing_is_overwritten(peer, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(WeightsError, match="not an empty folder"):
        export_transformers(peer.variables, tiny_config(), CLASS_NAMES, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    kept = tmp_path / ".rc2l_jax.partial" / "weights"  # beside mine.txt, no left-over of an export
    kept.parent.mkdir()
    kept.write_text("keep")
    with pytest.raises(WeightsError, match="not an empty folder"):
        export_transformers(peer.variables, tiny_config(), CLASS_NAMES, tmp_path)
    assert kept.read_text() == "keep"
    with pytest.raises(WeightsError, match=r"mine\.txt/out: cannot be written \(Not a directory\)"):
        export_transformers(peer.variables, tiny_config(), CLASS_NAMES, tmp_path / "mine.txt/out")
    for key, value in (("norm", "group"), ("stem", "deeplab"), ("pixel_dim", 40)):
        config = tiny_config()
        config.model[key] = value
        with pytest.raises(WeightsError, match=f"model.{key} = "):
            export_transformers(peer.variables, config, CLASS_NAMES, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_stablehlo_program_is_the_models_inference_for_any_batch(peer, tmp_path):
    config = tiny_config()
    folder = tmp_path / "hlo"
    stablehlo.export_stablehlo(peer.variables, config, CLASS_NAMES, folder, (48, 64))
    run, description = stablehlo.load_exported(folder)
    assert description["class_names"] == list(CLASS_NAMES) and description["size"] == [48, 64]
    model = build_model(config)
    x = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    want_ids, want = jax.jit(lambda x: stablehlo.predict(model, peer.variables, x))(x)
    for batch in (3, 1):
        ids, shares = run(x[:batch])
        assert ids.dtype == np.uint8 and ids.shape == (batch, 48, 64)
        np.testing.assert_allclose(shares, want[:batch], atol=1e-5)
        assert (np.asarray(ids) == np.asarray(want_ids)[:batch]).mean() > 0.999
    np.testing.assert_allclose(shares.sum(1), 1.0, atol=1e-5)

    (folder / "weights.safetensors").write_bytes(b"short")
    with pytest.raises(WeightsError, match="damaged"):
        stablehlo.load_exported(folder)
    (folder / "inference.stablehlo").write_bytes(b"short")
    with pytest.raises(WeightsError, match="damaged"):
        stablehlo.load_exported(folder)
    (folder / "inference.stablehlo").unlink()
    with pytest.raises(WeightsError, match=r"has no inference\.stablehlo"):
        stablehlo.load_exported(folder)
