"""The backbones by name, and which of the model's settings each of them has.

A backbone maps normalised images [B, H, W, 3] to four feature maps, of strides 4, 8, 16 and 32:
`backbone(images, train=..., mask=...)`, as in `ResNet`. A plain transformer gives only one, of
stride 16, from which a pyramid makes the four; that is new and learns as the rest of the model
does, so it is not part of the backbone. Nothing else of the model asks what it is.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from rc2l_jax.models import dinov2, efficientnet, resnet, swin
from rc2l_jax.models.pyramid import SimplePyramid

# Every value of `model.backbone`. What stands behind a name is up to the backbone's own file.
BACKBONES: Mapping[str, Any] = ChainMap(
    resnet.BACKBONES, efficientnet.BACKBONES, swin.BACKBONES, dinov2.BACKBONES
)

# Keys of `config.model` that only a ResNet has, or only an EfficientNet; other backbones are what
# their names say.
RESNET_KEYS = ("backbone_width", "stem", "norm")
EFFICIENTNET_KEYS = ("backbone_head",)


def create_backbone(
    name: str,
    *,
    width: int,
    stem: str,
    norm: str,
    head: bool,
    dtype: Any,
    axis_name: str | None,
    remat: bool,
) -> nn.Module:
    """Builds a backbone.

    Args:
      name: a key of `BACKBONES`.
      width: channels of a ResNet's first stage.
      stem: first layers of a ResNet.
      norm: normalisation of a ResNet.
      head: whether an EfficientNet's last feature map is that of its classifier.
      dtype: of the activations; parameters are float32.
      axis_name: pmap axis over which norm "batch" averages its statistics; None for this device
        alone.
      remat: whether to keep only each block's output for the backward pass.

    Raises:
      ValueError: the name is unknown.
    """
    if name in resnet.BACKBONES:
        return resnet.ResNet(name, width, stem, norm, dtype, axis_name, remat, name="backbone")
    if name in efficientnet.BACKBONES:
        return efficientnet.EfficientNet(name, head, dtype, remat, name="backbone")
    if name in dinov2.BACKBONES:
        return dinov2.DINOv2(name, dtype, remat, name="backbone")
    if name in swin.BACKBONES:
        return swin.Swin(name, dtype, remat, name="backbone")
    raise ValueError(f"model.backbone = {name!r} is unknown; use one of {', '.join(BACKBONES)}.")


def create_pyramid(name: str, *, features: int, dtype: Any) -> SimplePyramid | None:
    """Builds what makes four feature maps of a backbone's one; None if it gives four itself.

    Args:
      name: a key of `BACKBONES`.
      features: channels of each map.
      dtype: of the activations; parameters are float32.
    """
    return SimplePyramid(features, dtype, name="pyramid") if name in dinov2.BACKBONES else None
