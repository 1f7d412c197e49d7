"""Refuses weights of which a config.json says that they are of another network than ours.

Array shapes do not show everything, such as how many heads an attention has, or where a ResNet's
strides are.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from rc2l_jax.models import resnet
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.stored_config import stored_config
from rc2l_jax.weights import dinov2, swin
from rc2l_jax.weights.errors import WeightsError


def check_run(config: ConfigDict) -> None:
    """Refuses a run, named by `config.init_from`, whose attention has other heads than ours.

    Raises:
      WeightsError: its config.json says so. An older run's may not say it.
    """
    path = run_path(config.init_from)
    model = stored_config(path).get("model")
    heads = model.get("num_heads") if isinstance(model, dict) else None
    _check_heads(heads, config, path)


def _check_heads(heads: Any, config: ConfigDict, path: Any) -> None:
    """Refuses a number of heads that is not ours; None is not known."""
    if heads not in (None, config.model.num_heads):
        raise WeightsError(
            f"{path}: its config.json says {heads} attention heads and model.num_heads = "
            f"{config.model.num_heads}: set model.num_heads = {heads}"
        )


def check_description(description: dict[str, Any], config: ConfigDict, path: Any) -> None:
    """Refuses a network that config.json says is another one, even if all array shapes fit.

    Args:
      description: the content of config.json; {} if there is none.
      config: see `configs/base.py`; reads `model`.
      path: the weights, for messages.

    Raises:
      WeightsError: it is another one.
    """
    kind = description.get("model_type", "maskformer")
    if kind in dinov2.KINDS:
        dinov2.check_description(description, config, path)
        return
    if kind not in ("maskformer", "resnet", *swin.MODEL_TYPES):
        raise WeightsError(
            f"{path}: its config.json says {kind!r}; use a MaskFormer, a ResNet, a Swin or a DINOv2"
        )
    backbone, decoder = (
        value if isinstance(value := description.get(key), dict) else {}
        for key in ("backbone_config", "decoder_config")
    )
    backbone = backbone if kind == "maskformer" else description
    _check_backbone(backbone, config.model.backbone, path)
    if kind == "maskformer":
        _check_heads(decoder.get("decoder_attention_heads"), config, path)


def class_names(description: dict[str, Any]) -> list[str]:
    """The names that config.json gives classes 0, 1, 2, ...; [] if it gives none."""
    named = description.get("id2label")
    named = named if isinstance(named, dict) else {}
    names = [named.get(str(index)) for index in range(len(named))]
    # transformers writes LABEL_0, LABEL_1, ... if nobody has named them.
    unnamed = names == [f"LABEL_{index}" for index in range(len(names))]
    return [] if unnamed or None in names else [str(name) for name in names]


def _check_backbone(description: dict[str, Any], ours: str, path: Any) -> None:
    """Refuses a backbone that is of another kind than `ours`, or has other settings."""
    kind = description.get("model_type")  # None if config.json does not say it
    if kind is not None and kind not in (
        ("resnet",) if ours in resnet.BACKBONES else swin.MODEL_TYPES
    ):
        raise WeightsError(
            f"{path}: its config.json says a backbone {kind!r} and model.backbone = {ours!r}: set "
            "model.backbone to that of the file"
        )
    if kind in swin.MODEL_TYPES:
        swin.check_settings(description, f"{path}: its config.json says")
    if description.get("downsample_in_bottleneck") or description.get("downsample_in_first_stage"):
        raise WeightsError(
            f"{path}: its config.json says a ResNet with strides elsewhere than in v1.5 "
            "(downsample_in_bottleneck, downsample_in_first_stage)"
        )
