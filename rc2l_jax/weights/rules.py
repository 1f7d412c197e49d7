"""The rules by which other programs' names of a MaskFormer's arrays follow from ours.

All programs have the same blocks and layers in the same order, so each part of a path can be
renamed by itself. Sources: `transformers` (MaskFormer, ResNet), torchvision's and timm's ResNet,
detectron2's ResNet and MaskFormer's own code.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# (pattern of a whole module path of ours, function from the match to their module's name) each.
Rules = tuple[tuple[str, Callable[[re.Match[str]], str]], ...]
TRANSFORMERS_ENCODER = "model.pixel_level_module.encoder."
_FPN = "model.pixel_level_module.decoder."
TRANSFORMERS_DECODER = "model.transformer_module.decoder."


def _minus(text: str, number: int) -> int:
    return int(text) - number


TRANSFORMERS_RESNET: Rules = (
    (r"backbone/stem_conv1", lambda m: "embedder.embedder.convolution"),
    (r"backbone/stem_norm1", lambda m: "embedder.embedder.normalization"),
    (
        r"backbone/res(\d)_(\d+)/(conv|norm)(\d)",
        lambda m: (
            f"encoder.stages.{_minus(m[1], 2)}.layers.{m[2]}.layer.{_minus(m[4], 1)}."
            + {"conv": "convolution", "norm": "normalization"}[m[3]]
        ),
    ),
    (
        r"backbone/res(\d)_(\d+)/shortcut_(conv|norm)",
        lambda m: (
            f"encoder.stages.{_minus(m[1], 2)}.layers.{m[2]}.shortcut."
            + {"conv": "convolution", "norm": "normalization"}[m[3]]
        ),
    ),
)
TRANSFORMERS_HEADS: Rules = (
    (
        r"pixel_decoder/output5_(conv|norm)",
        lambda m: f"{_FPN}fpn.stem.{'01'[m[1] == 'norm']}",
    ),
    (
        r"pixel_decoder/(lateral|output)(\d)_(conv|norm)",
        lambda m: (
            f"{_FPN}fpn.layers.{4 - int(m[2])}.{'proj' if m[1] == 'lateral' else 'block'}."
            f"{'01'[m[3] == 'norm']}"
        ),
    ),
    (r"pixel_decoder/mask_features", lambda m: f"{_FPN}mask_projection"),
    (r"query_embed", lambda m: "model.transformer_module.queries_embedder"),
    (r"transformer/input_projection", lambda m: "model.transformer_module.input_projection"),
    (r"transformer/output_norm", lambda m: f"{TRANSFORMERS_DECODER}layernorm"),
    (
        r"transformer/layer(\d+)/(self|cross)_attention/(query|key|value|out)",
        lambda m: (
            f"{TRANSFORMERS_DECODER}layers.{m[1]}.{'self' if m[2] == 'self' else 'encoder'}_attn."
            + {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}[m[3]]
        ),
    ),
    (
        r"transformer/layer(\d+)/(self_attention|cross_attention|ffn)_norm",
        lambda m: (
            f"{TRANSFORMERS_DECODER}layers.{m[1]}."
            + {"self_attention": "self_attn", "cross_attention": "encoder_attn", "ffn": "final"}[
                m[2]
            ]
            + "_layer_norm"
        ),
    ),
    (r"transformer/layer(\d+)/ffn(\d)", lambda m: f"{TRANSFORMERS_DECODER}layers.{m[1]}.fc{m[2]}"),
    (r"class_head", lambda m: "class_predictor"),
    (r"mask_head/layer(\d)", lambda m: f"mask_embedder.{_minus(m[1], 1)}.0"),
)
TORCHVISION_RESNET: Rules = (
    (r"backbone/stem_(conv|norm)1", lambda m: {"conv": "conv1", "norm": "bn1"}[m[1]]),
    (
        r"backbone/res(\d)_(\d+)/(conv|norm)(\d)",
        lambda m: f"layer{_minus(m[1], 1)}.{m[2]}.{'conv' if m[3] == 'conv' else 'bn'}{m[4]}",
    ),
    (
        r"backbone/res(\d)_(\d+)/shortcut_(conv|norm)",
        lambda m: f"layer{_minus(m[1], 1)}.{m[2]}.downsample.{'01'[m[3] == 'norm']}",
    ),
)
DETECTRON2_RESNET: Rules = (
    (
        r"backbone/stem_(conv|norm)(\d)",
        lambda m: f"stem.conv{m[2]}" + (".norm" if m[1] == "norm" else ""),
    ),
    (
        r"backbone/res(\d)_(\d+)/(conv|norm)(\d)",
        lambda m: f"res{m[1]}.{m[2]}.conv{m[4]}" + (".norm" if m[3] == "norm" else ""),
    ),
    (
        r"backbone/res(\d)_(\d+)/shortcut_(conv|norm)",
        lambda m: f"res{m[1]}.{m[2]}.shortcut" + (".norm" if m[3] == "norm" else ""),
    ),
)
_HEAD = "sem_seg_head.predictor."
_LAYERS = f"{_HEAD}transformer.decoder."
DETECTRON2_HEADS: Rules = (
    (
        r"pixel_decoder/(lateral|output)(\d)_(conv|norm)",
        lambda m: (
            f"sem_seg_head.pixel_decoder.{'adapter' if m[1] == 'lateral' else 'layer'}_"
            f"{_minus(m[2], 1)}" + (".norm" if m[3] == "norm" else "")
        ),
    ),
    (r"pixel_decoder/mask_features", lambda m: "sem_seg_head.pixel_decoder.mask_features"),
    (r"query_embed", lambda m: f"{_HEAD}query_embed"),
    (r"transformer/input_projection", lambda m: f"{_HEAD}input_proj"),
    (r"transformer/output_norm", lambda m: f"{_LAYERS}norm"),
    (
        r"transformer/layer(\d+)/(self|cross)_attention/(query|key|value|out)",
        lambda m: (
            f"{_LAYERS}layers.{m[1]}.{'self_attn' if m[2] == 'self' else 'multihead_attn'}."
            + ("out_proj" if m[3] == "out" else f"in_proj.{m[3]}")  # see `_split_projections`
        ),
    ),
    (
        r"transformer/layer(\d+)/(self_attention|cross_attention|ffn)_norm",
        lambda m: (
            f"{_LAYERS}layers.{m[1]}.norm"
            + {"self_attention": "1", "cross_attention": "2", "ffn": "3"}[m[2]]
        ),
    ),
    (r"transformer/layer(\d+)/ffn(\d)", lambda m: f"{_LAYERS}layers.{m[1]}.linear{m[2]}"),
    (r"class_head", lambda m: f"{_HEAD}class_embed"),
    (r"mask_head/layer(\d)", lambda m: f"{_HEAD}mask_embed.layers.{_minus(m[1], 1)}"),
)
