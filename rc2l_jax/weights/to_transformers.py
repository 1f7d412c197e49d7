"""Exports a trained network as a folder that transformers opens without further options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import flax
import numpy as np
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from rc2l_jax.models.pixels import PIXEL_MEAN, PIXEL_STD
from rc2l_jax.models.resnet import BACKBONES
from rc2l_jax.weights import swin
from rc2l_jax.weights.errors import WeightsError
from rc2l_jax.weights.files import new_folder
from rc2l_jax.weights.names import TRANSFORMERS, to_theirs

_STAGES = ["stage1", "stage2", "stage3", "stage4"]
# Groups of the GroupNorm in transformers' pixel decoder; its config cannot change them.
_PEER_GROUPS = 32
_BILINEAR = 2  # PIL's number for it


def export_transformers(
    variables: Any, config: ConfigDict, class_names: tuple[str, ...], output: Path
) -> Path:
    """Writes config.json, model.safetensors and preprocessor_config.json.

    `MaskFormerForInstanceSegmentation.from_pretrained(output)` and
    `pipeline("image-segmentation", output)` open the folder.

    Args:
      variables: {"params", "batch_stats"} of the student or the teacher.
      config: the run's config.
      class_names: K names.
      output: a folder that does not exist yet, or is empty.

    Returns:
      The folder.

    Raises:
      WeightsError: transformers has no such model, or the folder is not empty or cannot be
        written.
    """
    _check_representable(config)
    with new_folder(output) as folder:
        save_file(peer_arrays(variables, config), folder / "model.safetensors", {"format": "pt"})
        _write(folder / "config.json", peer_config(config, class_names))
        _write(folder / "preprocessor_config.json", image_processor(config))
    return output


def _check_representable(config: ConfigDict) -> None:
    model = config.model
    if model.backbone not in BACKBONES and model.backbone not in swin.BACKBONES:
        raise WeightsError(
            f"model.backbone = {model.backbone!r}: transformers has no MaskFormer on it that could "
            "be written. Export a program instead: --format=stablehlo"
        )
    if model.norm == "group":
        raise WeightsError(
            "model.norm = 'group': the ResNet of transformers has batch normalisation only. Export "
            "a program instead: --format=stablehlo"
        )
    if model.stem != "basic":
        raise WeightsError(
            f"model.stem = {model.stem!r}: the ResNet of transformers has the basic stem only. "
            "Export a program instead: --format=stablehlo"
        )
    if model.pixel_dim % _PEER_GROUPS:
        raise WeightsError(
            f"model.pixel_dim = {model.pixel_dim}: transformers needs a multiple of {_PEER_GROUPS}"
        )


def peer_arrays(variables: Any, config: ConfigDict) -> dict[str, np.ndarray]:
    """Returns our variables as transformers' state dict: {its name: array in its order of axes}."""
    arrays = {}
    for key, value in flax.traverse_util.flatten_dict(variables).items():
        path = "/".join(key[1:])
        name = TRANSFORMERS.name_of(path)
        arrays[name] = np.ascontiguousarray(to_theirs(path, np.asarray(value, np.float32)))
        if path.endswith("/mean"):  # transformers counts batches there, and does not use it
            counter = name.removesuffix("running_mean") + "num_batches_tracked"
            arrays[counter] = np.zeros((), np.int64)
    if config.model.backbone in swin.BACKBONES:
        arrays |= swin.peer_extras(config.model.backbone)
    weights = np.ones(config.data.num_classes + 1, np.float32)
    weights[-1] = config.loss.no_object_weight
    return arrays | {"criterion.empty_weight": weights}


def peer_config(config: ConfigDict, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the content of transformers' config.json for our model."""
    model = config.model
    decoder = {
        "model_type": "detr",
        "d_model": model.hidden_dim,
        "num_queries": model.num_queries,
        "decoder_layers": model.num_decoder_layers,
        "decoder_ffn_dim": model.ffn_dim,
        "decoder_attention_heads": model.num_heads,
        "encoder_attention_heads": model.num_heads,
        "dropout": model.dropout,
    }
    return {
        "architectures": ["MaskFormerForInstanceSegmentation"],
        "model_type": "maskformer",
        "backbone_config": _peer_backbone(model),
        "decoder_config": decoder,
        "fpn_feature_size": model.pixel_dim,
        "mask_feature_size": model.mask_dim,
        "num_attention_heads": model.num_heads,
        "num_hidden_layers": model.num_decoder_layers,
        "no_object_weight": config.loss.no_object_weight,
        "cross_entropy_weight": config.loss.class_weight,
        "mask_weight": config.loss.focal_weight,
        "dice_weight": config.loss.dice_weight,
        "id2label": {str(index): name for index, name in enumerate(class_names)},
        "label2id": {name: index for index, name in enumerate(class_names)},
        "torch_dtype": "float32",
    }


def _peer_backbone(model: ConfigDict) -> dict[str, Any]:
    if model.backbone in swin.BACKBONES:
        return swin.peer_backbone(model.backbone)
    architecture = BACKBONES[model.backbone]
    expansion = 4 if architecture.bottleneck else 1
    return {
        "model_type": "resnet",
        "depths": list(architecture.depths),
        "embedding_size": model.backbone_width,
        "hidden_sizes": [model.backbone_width * 2**stage * expansion for stage in range(4)],
        "layer_type": "bottleneck" if architecture.bottleneck else "basic",
        "hidden_act": "relu",
        "out_features": _STAGES,
    }


def image_processor(config: ConfigDict) -> dict[str, Any]:
    """Returns the content of preprocessor_config.json: images are prepared as by `--mode=eval`."""
    short_edge = config.data.eval_short_edge
    return {
        "image_processor_type": "MaskFormerImageProcessor",
        "do_resize": bool(short_edge),
        "size": {"shortest_edge": short_edge or 1, "longest_edge": config.data.max_long_edge},
        "size_divisor": 0,
        "resample": _BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in PIXEL_MEAN],
        "image_std": [value / 255 for value in PIXEL_STD],
        "ignore_index": 255,
        "do_reduce_labels": False,
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
