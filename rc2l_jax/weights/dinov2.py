"""DINOv2's weights: names in transformers' files and in Meta's, and what cannot be taken.

Sources: transformers' `Dinov2Model` and `Dinov2WithRegistersModel`, and the state dicts of
github.com/facebookresearch/dinov2. Both have the same arrays in the same order of axes. Meta's one
array for the query's, key's and value's projection is split by `names.family_of`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from rc2l_jax.models import dinov2
from rc2l_jax.weights.errors import WeightsError
from rc2l_jax.weights.rules import Rules

KINDS = ("dinov2", "dinov2_with_registers")  # values of "model_type" in config.json
TRANSFORMERS_MARKER = r"encoder\.layer\.0\.layer_scale1\.lambda1"
META_MARKER = r"blocks\.0\.ls1\.gamma"
TRANSFORMERS_WAIVED = r"embeddings\.mask_token|classifier\..*"
META_WAIVED = r"mask_token"
# What else must be as here, if config.json says it.
_FIXED = {"patch_size": dinov2.PATCH, "mlp_ratio": 4, "qkv_bias": True, "hidden_act": "gelu"}
_FIXED |= {"layer_norm_eps": 1e-6, "image_size": dinov2.GRID * dinov2.PATCH}
_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_GIANT = "this is DINOv2 giant (SwiGLU), which is not here; use its small, base or large"

# Rules of whole paths, because tokens, position codes and scales are arrays without a module.
TRANSFORMERS_DINOV2: Rules = (
    (r"backbone/class_token", lambda m: "embeddings.cls_token"),
    (r"backbone/(register_tokens|position_embeddings)", lambda m: f"embeddings.{m[1]}"),
    (
        r"backbone/patch_embedding/(kernel|bias)",
        lambda m: f"embeddings.patch_embeddings.projection.{_LEAF[m[1]]}",
    ),
    (r"backbone/norm/(scale|bias)", lambda m: f"layernorm.{_LEAF[m[1]]}"),
    (r"backbone/layer(\d+)/layer_scale(\d)", lambda m: f"{_layer(m)}.layer_scale{m[2]}.lambda1"),
    (
        r"backbone/layer(\d+)/norm(\d)/(scale|bias)",
        lambda m: f"{_layer(m)}.norm{m[2]}.{_LEAF[m[3]]}",
    ),
    (
        r"backbone/layer(\d+)/(query|key|value)/(kernel|bias)",
        lambda m: f"{_layer(m)}.attention.attention.{m[2]}.{_LEAF[m[3]]}",
    ),
    (
        r"backbone/layer(\d+)/out/(kernel|bias)",
        lambda m: f"{_layer(m)}.attention.output.dense.{_LEAF[m[2]]}",
    ),
    (
        r"backbone/layer(\d+)/ffn(\d)/(kernel|bias)",
        lambda m: f"{_layer(m)}.mlp.fc{m[2]}.{_LEAF[m[3]]}",
    ),
)
META_DINOV2: Rules = (
    (r"backbone/class_token", lambda m: "cls_token"),
    (r"backbone/register_tokens", lambda m: "register_tokens"),
    (r"backbone/position_embeddings", lambda m: "pos_embed"),
    (r"backbone/patch_embedding/(kernel|bias)", lambda m: f"patch_embed.proj.{_LEAF[m[1]]}"),
    (r"backbone/norm/(scale|bias)", lambda m: f"norm.{_LEAF[m[1]]}"),
    (r"backbone/layer(\d+)/layer_scale(\d)", lambda m: f"blocks.{m[1]}.ls{m[2]}.gamma"),
    (
        r"backbone/layer(\d+)/norm(\d)/(scale|bias)",
        lambda m: f"blocks.{m[1]}.norm{m[2]}.{_LEAF[m[3]]}",
    ),
    (
        r"backbone/layer(\d+)/(query|key|value)/(kernel|bias)",
        lambda m: f"blocks.{m[1]}.attn.qkv.{m[2]}.{_LEAF[m[3]]}",
    ),
    (
        r"backbone/layer(\d+)/out/(kernel|bias)",
        lambda m: f"blocks.{m[1]}.attn.proj.{_LEAF[m[2]]}",
    ),
    (
        r"backbone/layer(\d+)/ffn(\d)/(kernel|bias)",
        lambda m: f"blocks.{m[1]}.mlp.fc{m[2]}.{_LEAF[m[3]]}",
    ),
)


def _layer(match: re.Match[str]) -> str:
    return f"encoder.layer.{match[1]}"


def name_on_disk(name: str) -> str:
    """The name in transformers' files of an array that transformers 5 renames in memory."""
    if not re.match(r"(.*\.)?encoder\.layer\.\d+\.attention\.[qkvo]_proj\.", name):
        return name
    name = name.replace(".attention.o_proj.", ".attention.output.dense.")
    for ours in ("query", "key", "value"):
        name = name.replace(f".attention.{ours[0]}_proj.", f".attention.attention.{ours}.")
    return name


def refuse_giant(names: Iterable[str], source: str) -> None:
    """Refuses DINOv2 giant by the names of its arrays.

    Args:
      names: of a DINOv2's arrays, without a wrapper's prefix.
      source: the file, for messages.

    Raises:
      WeightsError: they are those of the giant.
    """
    if any(re.search(r"\.mlp\.(weights_in|gate_proj|w12)\.", name) for name in names):
        raise WeightsError(f"{source}: {_GIANT}")


def check_description(description: Mapping[str, Any], config: ConfigDict, source: Any) -> None:
    """Refuses a DINOv2 that config.json says is another one, even if all array shapes fit.

    Args:
      description: the content of config.json.
      config: the run's; reads `model.backbone`.
      source: the file, for messages.

    Raises:
      WeightsError: it is of another kind or size.
    """
    where, name = f"{source}: its config.json says", config.model.backbone
    if description.get("use_swiglu_ffn"):
        raise WeightsError(f"{source}: {_GIANT}")
    if name not in dinov2.BACKBONES:
        raise WeightsError(
            f"{where} {description['model_type']!r} and model.backbone = {name!r}: use one of "
            + ", ".join(dinov2.BACKBONES)
        )
    for key, value in _FIXED.items():
        if description.get(key, value) != value:
            raise WeightsError(
                f"{where} {key} = {description[key]!r}, and model.backbone = {name!r} has {value!r}"
            )
    architecture = dinov2.BACKBONES[name]
    heads = description.get("num_attention_heads", architecture.num_heads)
    # With another width the arrays do not fit either, and their shapes say more.
    same_width = description.get("hidden_size", architecture.width) == architecture.width
    if same_width and heads != architecture.num_heads:
        raise WeightsError(
            f"{where} {heads} attention heads, and model.backbone = {name!r} has "
            f"{architecture.num_heads}"
        )
