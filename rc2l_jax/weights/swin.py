"""Swin transformers in other programs' files: their arrays' names, and what config.json says.

Sources: `transformers` (MaskFormerSwin in a MaskFormer, Swin alone), Swin's own code, and that of
MaskFormer, which has the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rc2l_jax.models.swin import BACKBONES, EPSILON, MLP_RATIO, PATCH, Architecture
from rc2l_jax.models.windows import relative_position_index
from rc2l_jax.weights.errors import WeightsError
from rc2l_jax.weights.rules import TRANSFORMERS_ENCODER, Rules

# `model_type` of a Swin in transformers. MaskFormer's published files have the first one, its files
# of today the second.
MODEL_TYPES = ("swin", "maskformer-swin")
# transformers' defaults, which its older files leave out.
_DEFAULTS = {
    "embed_dim": 96,
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
}
# What a transformers' MaskFormer has whose config.json says no backbone.
DEFAULT_BACKBONE = {
    "model_type": "swin",
    "embed_dim": 128,
    "depths": [2, 2, 18, 2],
    "num_heads": [4, 8, 16, 32],
    "window_size": 12,
}
_FIXED = {
    "patch_size": PATCH,
    "num_channels": 3,
    "mlp_ratio": float(MLP_RATIO),  # transformers takes no integer
    "qkv_bias": True,
    "hidden_act": "gelu",
    "use_absolute_embeddings": False,
    "layer_norm_eps": EPSILON,
}

# The modules of a block.
_TRANSFORMERS_BLOCK = {
    "attention_norm": "layernorm_before",
    "attention": "attention.self",
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/out": "attention.output.dense",
    "mlp_norm": "layernorm_after",
    "mlp1": "intermediate.dense",
    "mlp2": "output.dense",
}
_AUTHORS_BLOCK = {
    "attention_norm": "norm1",
    "attention": "attn",
    "attention/query": "attn.qkv.query",  # see `names._split_projections`
    "attention/key": "attn.qkv.key",
    "attention/value": "attn.qkv.value",
    "attention/out": "attn.proj",
    "mlp_norm": "norm2",
    "mlp1": "mlp.fc1",
    "mlp2": "mlp.fc2",
}


def _rules(patch: str, norm: str, layers: str, block: Mapping[str, str], output_norm: str) -> Rules:
    """Rules for a program whose stages and blocks are counted from 0 under `layers`."""

    def layer(number: str) -> str:
        return f"{layers}.{int(number) - 1}"

    return (
        (r"backbone/patch_embed", lambda m: patch),
        (r"backbone/patch_norm", lambda m: norm),
        (
            r"backbone/stage(\d)_(\d+)/(.+)",
            lambda m: f"{layer(m[1])}.blocks.{m[2]}.{block[m[3]]}",
        ),
        (r"backbone/merge(\d)", lambda m: f"{layer(m[1])}.downsample.reduction"),
        (r"backbone/merge(\d)_norm", lambda m: f"{layer(m[1])}.downsample.norm"),
        (r"backbone/stage(\d)_norm", lambda m: f"{output_norm}{int(m[1]) - 1}"),
    )


def _transformers(model: str) -> Rules:
    return _rules(
        f"{model}embeddings.patch_embeddings.projection",
        f"{model}embeddings.norm",
        f"{model}encoder.layers",
        _TRANSFORMERS_BLOCK,
        "hidden_states_norms.",
    )


MASKFORMER_SWIN = _transformers("model.")
TRANSFORMERS_SWIN = _transformers("")
AUTHORS_SWIN = _rules("patch_embed.proj", "patch_embed.norm", "layers", _AUTHORS_BLOCK, "norm")
# The norms of the stages' outputs are MaskFormer's. A Swin that classifies has one norm, at its
# end, which MaskFormer does not take over either.
OUTPUT_NORMS = r"backbone/stage\d_norm/.*"


def check_settings(description: Mapping[str, Any], where: str) -> None:
    """Refuses a Swin that differs from ours in what the shapes of its arrays may not show.

    Args:
      description: what config.json says of the Swin.
      where: the file's path, for messages.

    Raises:
      WeightsError: names the settings, their values, and those that are here.
    """
    problems = [
        f"{key} = {description[key]!r} (only {only!r} is here)"
        for key, only in _FIXED.items()
        if description.get(key, only) not in (only, [only, only])
    ]
    if problems:
        raise WeightsError(f"{where}: a Swin transformer with {', '.join(problems)}")


def backbone_of(description: Mapping[str, Any], where: str) -> str:
    """Returns the name of the backbone that config.json describes.

    Args:
      description: what config.json says of the Swin.
      where: the file's path, for messages.

    Raises:
      WeightsError: it is none of ours; names its sizes and what the nearest of ours has instead.
    """
    check_settings(description, where)
    sizes = {key: description.get(key, default) for key, default in _DEFAULTS.items()}
    wanted = Architecture(*(tuple(x) if isinstance(x, list) else x for x in sizes.values()))
    for name, architecture in BACKBONES.items():
        if architecture == wanted:
            return name
    given = _sizes(wanted)
    nearest = max(BACKBONES, key=lambda name: len({*given} & {*_sizes(BACKBONES[name])}))
    ours = _sizes(BACKBONES[nearest])
    raise WeightsError(
        f"{where}: a Swin transformer with {', '.join(given)} is none of {', '.join(BACKBONES)}; "
        f"{nearest} has {', '.join(text for text in ours if text not in given)}"
    )


def _sizes(architecture: Architecture) -> list[str]:
    """An architecture's sizes in the words of config.json."""
    return [
        f"{key} = {list(value) if isinstance(value, tuple) else value}"
        for key, value in zip(_DEFAULTS, architecture)
    ]


def peer_backbone(name: str) -> dict[str, Any]:
    """Returns transformers' config of a backbone, as in MaskFormer's published files."""
    architecture = BACKBONES[name]
    return {
        "model_type": MODEL_TYPES[0],
        "embed_dim": architecture.embed_dim,
        "depths": list(architecture.depths),
        "num_heads": list(architecture.heads),
        "window_size": architecture.window,
        "drop_path_rate": 0.0,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    } | _FIXED


def peer_extras(name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of transformers' MaskFormer on a Swin that hold nothing of the network.

    They are the indices of relative positions, and a final LayerNorm, which it does not use.
    """
    embed_dim, depths, _, window = BACKBONES[name]
    model = f"{TRANSFORMERS_ENCODER}model."
    extras = {
        f"{model}layernorm.weight": np.ones(8 * embed_dim, np.float32),
        f"{model}layernorm.bias": np.zeros(8 * embed_dim, np.float32),
    }
    for stage, depth in enumerate(depths):
        for index in range(depth):
            attention = f"{model}encoder.layers.{stage}.blocks.{index}.attention.self."
            extras[f"{attention}relative_position_index"] = relative_position_index(window)
    return extras
