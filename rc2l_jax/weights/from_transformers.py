"""Turns a transformers folder's config files into our config: the inverse of `to_transformers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import base
from rc2l_jax.models.backbones import RESNET_KEYS
from rc2l_jax.models.pixels import PIXEL_MEAN, PIXEL_STD
from rc2l_jax.models.resnet import BACKBONES, Architecture
from rc2l_jax.weights import swin
from rc2l_jax.weights.errors import WeightsError

_MAX_CLASSES = 254  # ids have 8 bits, and 255 is void
# transformers' defaults, which it leaves out of its files.
_RESNET = {"depths": [3, 4, 6, 3], "layer_type": "bottleneck", "embedding_size": 64}
_DETR = {
    "d_model": 256,
    "num_queries": 100,
    "decoder_layers": 6,
    "decoder_ffn_dim": 2048,
    "decoder_attention_heads": 8,
}
_SIZE = {"shortest_edge": 800, "longest_edge": 1333}
_NUM_LABELS = 2
# And the only values with which its pixels are ours. With do_rescale = False its images would be
# within 0 and 1 already.
_PIXELS = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}


def describe_network(description: Mapping[str, Any], config: ConfigDict, where: str) -> list[str]:
    """Sets `config.model` and `config.data.num_classes` to the network that config.json describes.

    Args:
      description: the content of config.json.
      config: the config to change.
      where: the file's path, for messages.

    Returns:
      K class names.

    Raises:
      WeightsError: it describes a network that cannot be built here.
    """
    if description.get("model_type") != "maskformer":
        raise WeightsError(
            f"{where}: model_type is {description.get('model_type')!r}; prediction needs a whole "
            "MaskFormer ('maskformer')"
        )
    decoder = _DETR | (description.get("decoder_config") or {})
    names = _class_names(description.get("id2label") or _unnamed(description), where)
    config.model.update(
        **_backbone(description.get("backbone_config") or swin.DEFAULT_BACKBONE, where),
        num_queries=decoder["num_queries"],
        pixel_dim=description.get("fpn_feature_size", 256),
        mask_dim=description.get("mask_feature_size", 256),
        hidden_dim=decoder["d_model"],
        num_heads=decoder["decoder_attention_heads"],
        ffn_dim=decoder["decoder_ffn_dim"],
        num_decoder_layers=decoder["decoder_layers"],
    )
    config.data.num_classes = len(names)
    return names


def _backbone(description: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the keys of `config.model` that say the backbone."""
    kind = description.get("model_type", "resnet")
    if kind in swin.MODEL_TYPES:
        defaults = {key: base.get_config().model[key] for key in RESNET_KEYS}
        return defaults | {"backbone": swin.backbone_of(description, where)}
    if kind != "resnet":
        raise WeightsError(f"{where}: the backbone is {kind!r}; only ResNet and Swin are here")
    resnet = _RESNET | description
    return {
        "backbone": _resnet(resnet, where),
        "backbone_width": resnet["embedding_size"],
        "stem": "basic",
        "norm": "frozen",  # the same as "batch" at inference
    }


def _resnet(resnet: Mapping[str, Any], where: str) -> str:
    wanted = Architecture(resnet["layer_type"] == "bottleneck", tuple(resnet["depths"]))
    for name, architecture in BACKBONES.items():
        if architecture == wanted:
            return name
    raise WeightsError(
        f"{where}: a ResNet of {resnet['layer_type']} blocks and depths {resnet['depths']} is none "
        f"of {', '.join(BACKBONES)}"
    )


def _unnamed(description: Mapping[str, Any]) -> dict[str, str]:
    """Returns the names that transformers gives classes if config.json has none."""
    return {str(i): f"LABEL_{i}" for i in range(description.get("num_labels", _NUM_LABELS))}


def _class_names(id2label: Mapping[str, str], where: str) -> list[str]:
    names = {int(index): str(name) for index, name in id2label.items()}
    if sorted(names) != list(range(len(names))) or not names:
        raise WeightsError(f"{where}: id2label must name the classes 0, 1, 2, ...")
    if len(names) > _MAX_CLASSES:
        raise WeightsError(
            f"{where}: {len(names)} classes; at most {_MAX_CLASSES} fit into 8-bit masks"
        )
    return [names[index] for index in sorted(names)]


def describe_processing(
    processor: Mapping[str, Any], data: ConfigDict, where: str
) -> tuple[int, int] | None:
    """Sets the size to which images are resized, as preprocessor_config.json says.

    Args:
      processor: the content of preprocessor_config.json; {} for transformers' defaults.
      data: `config.data`; its `eval_short_edge` and `max_long_edge` are set.
      where: the file's path, for messages.

    Returns:
      Height and width, if every image is to be stretched to these; else None.

    Raises:
      WeightsError: it asks for a normalisation or a way to resize that is not available here.
    """
    for key, ours in (("image_mean", PIXEL_MEAN), ("image_std", PIXEL_STD)):
        given = processor.get(key, [value / 255 for value in ours])
        if not np.allclose(np.array(given) * 255, ours, atol=0.01):
            raise WeightsError(f"{where}: {key} = {given}; only ImageNet's is here")
    for key, value in _PIXELS.items():
        given = processor.get(key, value)
        if not np.isclose(given or 0, value, atol=0):
            raise WeightsError(f"{where}: {key} = {given}; only {value} is here")
    size = processor.get("size", _SIZE)
    if isinstance(size, int):  # written by older versions of transformers
        size = {"shortest_edge": size, "longest_edge": processor.get("max_size", 1333)}
    given, resizes = {key for key in size if size[key]}, processor.get("do_resize", True)
    if given == {"height", "width"}:
        data.eval_short_edge = 0
        return (size["height"], size["width"]) if resizes else None
    if not {"shortest_edge", "longest_edge"} <= given:
        raise WeightsError(
            f"{where}: size = {size} must give shortest_edge and longest_edge, or height and width"
        )
    data.eval_short_edge = size["shortest_edge"] if resizes else 0
    data.max_long_edge = size["longest_edge"]
    return None
