"""Maps a transformers MaskFormer (ResNet backbone) state dict to our variables."""

import re
from collections.abc import Mapping
from typing import Any

import torch

_BACKBONE = "model.pixel_level_module.encoder."
_PIXEL = "model.pixel_level_module.decoder."
_DECODER = "model.transformer_module.decoder."

# (pattern of a transformers module, path of ours); a later rule sees what an earlier one left.
_RULES = (
    (_BACKBONE + r"embedder\.embedder\.convolution", "backbone/stem_conv1"),
    (_BACKBONE + r"embedder\.embedder\.normalization", "backbone/stem_norm1"),
    (_BACKBONE + r"encoder\.stages\.(\d+)\.layers\.(\d+)\.", r"backbone/res<\1+2>_\2/"),
    (r"shortcut\.convolution", "shortcut_conv"),
    (r"shortcut\.normalization", "shortcut_norm"),
    (r"/layer\.(\d+)\.convolution", r"/conv<\1+1>"),
    (r"/layer\.(\d+)\.normalization", r"/norm<\1+1>"),
    (_PIXEL + r"fpn\.stem\.0", "pixel_decoder/output5_conv"),
    (_PIXEL + r"fpn\.stem\.1", "pixel_decoder/output5_norm"),
    (_PIXEL + r"fpn\.layers\.(\d+)\.proj\.0", r"pixel_decoder/lateral<4-\1>_conv"),
    (_PIXEL + r"fpn\.layers\.(\d+)\.proj\.1", r"pixel_decoder/lateral<4-\1>_norm"),
    (_PIXEL + r"fpn\.layers\.(\d+)\.block\.0", r"pixel_decoder/output<4-\1>_conv"),
    (_PIXEL + r"fpn\.layers\.(\d+)\.block\.1", r"pixel_decoder/output<4-\1>_norm"),
    (_PIXEL + r"mask_projection", "pixel_decoder/mask_features"),
    (r"model\.transformer_module\.input_projection", "transformer/input_projection"),
    (_DECODER + r"layernorm", "transformer/output_norm"),
    (_DECODER + r"layers\.(\d+)\.", r"transformer/layer\1/"),
    (r"/self_attn_layer_norm", "/self_attention_norm"),
    (r"/encoder_attn_layer_norm", "/cross_attention_norm"),
    (r"/final_layer_norm", "/ffn_norm"),
    (r"/self_attn\.", "/self_attention/"),
    (r"/encoder_attn\.", "/cross_attention/"),
    (r"/k_proj", "/key"),
    (r"/q_proj", "/query"),
    (r"/v_proj", "/value"),
    (r"/o_proj", "/out"),
    (r"/mlp\.fc(\d)", r"/ffn\1"),
    (r"class_predictor", "class_head"),
    (r"mask_embedder\.(\d+)\.0", r"mask_head/layer<\1+1>"),
)


def our_path(module: str) -> str:
    """Our path of a transformers module, "/"-separated."""
    for pattern, path in _RULES:
        module = re.sub(pattern, path, module)

    def evaluate(match: re.Match[str]) -> str:
        left, sign, right = match.groups()
        return str(int(left) + int(right) if sign == "+" else int(left) - int(right))

    return re.sub(r"<(\d+)([+-])(\d+)>", evaluate, module)


def from_transformers(
    state_dict: Mapping[str, torch.Tensor], norm: str = "frozen"
) -> dict[str, Any]:
    """Converts a `MaskFormerForInstanceSegmentation` state dict for backbone norm `norm`.

    Returns:
      {"params": ..., "batch_stats": ...} of numpy arrays.
    """
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for key, tensor in state_dict.items():
        module, _, kind = key.rpartition(".")
        if kind == "num_batches_tracked" or key == "criterion.empty_weight":
            continue
        value = tensor.detach().numpy()
        if module == "model.transformer_module.queries_embedder":
            variables["params"]["query_embed"] = value
            continue
        *parents, name = our_path(module).split("/")
        leaf = {
            "weight": "scale" if "norm" in name else "kernel",
            "bias": "bias",
            "running_mean": "mean",
            "running_var": "var",
        }[kind]
        frozen = norm == "frozen" and parents[:1] == ["backbone"] and "norm" in name
        collection = "batch_stats" if frozen or leaf in ("mean", "var") else "params"
        node = variables[collection]
        for part in (*parents, name):
            node = node.setdefault(part, {})
        node[leaf] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    return variables
