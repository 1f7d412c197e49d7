"""ResNet v1.5 backbones, with the normalisations and stems that MaskFormer's configs use.

Padding is explicit and symmetric, (k - 1) // 2 times the dilation, as in torch. "SAME" would pad
strided convolutions more on one side, and pretrained weights would see shifted features. A stride
of 2 turns a side of n pixels into ceil(n / 2), for any n.

Sources: He et al. (arXiv 1512.03385), with the stride in the 3x3 convolution ("v1.5"); detectron2's
DeepLab project for the "deeplab" stem and its dilated res5.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rc2l_jax.models.activation import max_pool, relu, two_uses
from rc2l_jax.models.extent import zero_outside
from rc2l_jax.models.normalization import conv_norm

Dtype = Any


class Architecture(NamedTuple):
    """The residual block of a ResNet and how many of them each stage (res2 to res5) has."""

    bottleneck: bool
    depths: tuple[int, int, int, int]


BACKBONES = {
    "resnet10": Architecture(bottleneck=False, depths=(1, 1, 1, 1)),  # for tests and trials
    "resnet18": Architecture(bottleneck=False, depths=(2, 2, 2, 2)),
    "resnet34": Architecture(bottleneck=False, depths=(3, 4, 6, 3)),
    "resnet50": Architecture(bottleneck=True, depths=(3, 4, 6, 3)),
    "resnet101": Architecture(bottleneck=True, depths=(3, 4, 23, 3)),
    "resnet152": Architecture(bottleneck=True, depths=(3, 8, 36, 3)),
}
STEMS = ("basic", "deeplab")

# Dilations of res5's blocks with stem "deeplab": RES5_MULTI_GRID of MaskFormer's R101c. The stride
# of res5 stays 2.
_DEEPLAB_DILATIONS = (1, 2, 4)


class ResidualBlock(nn.Module):
    """A residual block: two 3x3 convolutions, or a bottleneck of a 1x1, a 3x3 and a 1x1 one.

    Attributes:
      features: channels of the 3x3 convolutions. The output of a bottleneck has 4 times as many.
      bottleneck: whether the block is a bottleneck.
      stride: of the first 3x3 convolution and of the shortcut.
      dilation: of the 3x3 convolutions.
      conv_norm: `normalization.conv_norm` with `kind`, `train`, `dtype` and `axis_name` bound.
    """

    features: int
    bottleneck: bool
    stride: int
    dilation: int
    conv_norm: Callable[..., jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Applies the block.

        Args:
          x: [B, h, w, channels].
          mask: bool [B, H / STRIDE, W / STRIDE] from `extent.cell_mask`, where the images are;
            None if they fill the batch.

        Returns:
          [B, ceil(h / stride), ceil(w / stride), features], with 4 x features from a bottleneck.
        """
        out_features = self.features * (4 if self.bottleneck else 1)
        # (channels, kernel, stride, dilation) of each convolution of the residual branch.
        if self.bottleneck:
            plan = (
                (self.features, 1, 1, 1),
                (self.features, 3, self.stride, self.dilation),
                (out_features, 1, 1, 1),
            )
        else:
            plan = (
                (self.features, 3, self.stride, self.dilation),
                (out_features, 3, 1, self.dilation),
            )
        has_shortcut = x.shape[-1] != out_features or self.stride != 1
        x, y = (x, x) if has_shortcut else two_uses(x)
        for index, (features, kernel, stride, dilation) in enumerate(plan, start=1):
            last = index == len(plan)
            y = self.conv_norm(
                y,
                features,
                kernel,
                stride=stride,
                dilation=dilation,
                conv_name=f"conv{index}",
                norm_name=f"norm{index}",
                zero_scale=last,
                mask=mask,
            )
            y = y if last else relu(y)
        if has_shortcut:
            x = self.conv_norm(
                x,
                out_features,
                1,
                stride=self.stride,
                conv_name="shortcut_conv",
                norm_name="shortcut_norm",
                mask=mask,
            )
        # As matrices, which lets XLA add inside of the last 1x1 convolution of a bottleneck without
        # copying x first.
        return relu(x.reshape(-1, out_features) + y.reshape(-1, out_features)).reshape(y.shape)


class ResNet(nn.Module):
    """ResNet feature extractor.

    Attributes:
      backbone: a key of `BACKBONES`.
      width: channels of the first stage's 3x3 convolutions (64 in the paper).
      stem: "basic" (7x7) or "deeplab" (three 3x3, and dilations 1, 2, 4 in res5).
      norm: one of `normalization.NORMS`.
      dtype: of the activations; parameters are float32.
      axis_name: pmap axis over which norm "batch" averages its statistics; None for this device
        alone.
      remat: whether to keep only each block's output for the backward pass, which then computes
        the rest again.
    """

    backbone: str
    width: int
    stem: str
    norm: str
    dtype: Dtype = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Extracts features.

        Args:
          images: float [B, H, W, 3], normalised.
          train: whether norm "batch" uses (and records) the statistics of this batch.
          mask: bool [B, H / STRIDE, W / STRIDE] from `extent.cell_mask`, where the images are;
            None if they fill the batch. Features outside of the images mean nothing.

        Returns:
          The outputs of res2, res3, res4, res5: `dtype` [B, ceil(H / s), ceil(W / s), channels]
          with s = 4, 8, 16, 32 (rounded up at each halving).

        Raises:
          ValueError: on an unknown backbone, stem or norm.
        """
        if self.backbone not in BACKBONES:
            raise ValueError(
                f"model.backbone = {self.backbone!r} is unknown; use one of {', '.join(BACKBONES)}."
            )
        architecture = BACKBONES[self.backbone]
        layer = partial(
            conv_norm, kind=self.norm, train=train, dtype=self.dtype, axis_name=self.axis_name
        )
        block = nn.remat(ResidualBlock) if self.remat else ResidualBlock
        x = self._stem(images.astype(self.dtype), layer, mask)
        outputs = []
        for stage, depth in enumerate(architecture.depths):
            dilated = self.stem == "deeplab" and stage == 3
            for index in range(depth):
                x = block(
                    features=self.width * 2**stage,
                    bottleneck=architecture.bottleneck,
                    stride=2 if stage > 0 and index == 0 else 1,
                    dilation=_DEEPLAB_DILATIONS[index] if dilated else 1,
                    conv_norm=layer,
                    name=f"res{stage + 2}_{index}",
                )(x, mask)
            outputs.append(x)
        return tuple(outputs)

    def _stem(
        self, x: jax.Array, conv_norm: Callable[..., jax.Array], mask: jax.Array | None
    ) -> jax.Array:
        """Maps [B, H, W, 3] to stride 4: `width` channels, or 2 x `width` with "deeplab"."""
        if self.stem == "basic":
            plan = ((self.width, 7, 2),)
        elif self.stem == "deeplab":
            plan = ((self.width, 3, 2), (self.width, 3, 1), (2 * self.width, 3, 1))
        else:
            raise ValueError(
                f"model.stem = {self.stem!r} is unknown; use one of {', '.join(STEMS)}."
            )
        for index, (features, kernel, stride) in enumerate(plan, start=1):
            names = {"conv_name": f"stem_conv{index}", "norm_name": f"stem_norm{index}"}
            x = relu(conv_norm(x, features, kernel, stride=stride, mask=mask, **names))
        x = zero_outside(x, mask)  # after a ReLU a zero never changes a maximum
        return max_pool(x)
