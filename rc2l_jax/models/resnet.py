"""ResNet v1.5 backbones, with the normalisations and stems that MaskFormer's configs use.

Padding is explicit and symmetric, (k - 1) // 2 times the dilation, as in torch: "SAME" would pad
strided convolutions on one side only and pretrained weights would see shifted features. A stride
of 2 therefore turns a size n into ceil(n / 2), for any n.

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

from rc2l_jax.models.convolution import Conv
from rc2l_jax.models.extent import pixel_mask, zero_outside

Dtype = Any


class Architecture(NamedTuple):
    """The residual block of a ResNet and how many of them each stage (res2 to res5) has."""

    bottleneck: bool
    depths: tuple[int, int, int, int]


BACKBONES = {
    "resnet18": Architecture(bottleneck=False, depths=(2, 2, 2, 2)),
    "resnet34": Architecture(bottleneck=False, depths=(3, 4, 6, 3)),
    "resnet50": Architecture(bottleneck=True, depths=(3, 4, 6, 3)),
    "resnet101": Architecture(bottleneck=True, depths=(3, 4, 23, 3)),
    "resnet152": Architecture(bottleneck=True, depths=(3, 8, 36, 3)),
}
STEMS = ("basic", "deeplab")
NORMS = ("frozen", "batch", "group")

_EPSILON = 1e-5
_DEEPLAB_DILATIONS = (1, 2, 4)  # RES5_MULTI_GRID of MaskFormer's R101c; res5 keeps its stride
_he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def group_count(channels: int, min_group_size: int = 1) -> int:
    """Groups of a GroupNorm: 32 where that divides `channels`, else the largest divisor below it.

    Args:
      channels: of the normalised array.
      min_group_size: fewest channels a group may have (channels permitting). Groups of one channel
        forget each channel's mean, and with it an image's colours.

    Returns:
      A divisor of `channels`, at most 32.
    """
    most = max(1, min(32, channels // min_group_size))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


class FrozenNorm(nn.Module):
    """Batch normalisation whose four arrays are constants, as detectron2's FrozenBatchNorm2d.

    `scale`, `bias`, `mean` and `var` (float32 [channels]) live in "batch_stats", so neither the
    optimiser nor a training step ever changes them.

    Attributes:
      dtype: of the output; the arithmetic is float32.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises `x` [..., channels]."""
        shape = x.shape[-1:]
        scale = self.variable("batch_stats", "scale", jnp.ones, shape, jnp.float32).value
        bias = self.variable("batch_stats", "bias", jnp.zeros, shape, jnp.float32).value
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32).value
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32).value
        gain = scale * jax.lax.rsqrt(var + _EPSILON)
        return (x * gain + (bias - mean * gain)).astype(self.dtype)


def conv(
    features: int, kernel: int, *, stride: int = 1, dilation: int = 1, dtype: Dtype, name: str
) -> Conv:
    """A convolution without bias, with He (fan-out) weights."""
    return Conv(
        features,
        kernel,
        _he_fan_out,
        stride=stride,
        dilation=dilation,
        use_bias=False,
        dtype=dtype,
        name=name,
    )


def normalize(
    x: jax.Array,
    *,
    kind: str,
    train: bool,
    dtype: Dtype,
    axis_name: str | None,
    name: str,
    zero_scale: bool = False,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Normalises `x` [B, h, w, channels] with a new module called `name`.

    Args:
      x: activations.
      kind: one of `NORMS`.
      train: whether "batch" uses (and records) the statistics of this batch.
      dtype: of the output; statistics are float32.
      axis_name: pmap axis over which "batch" averages its statistics; None for this device alone.
      name: the module's name; contains "norm" by convention.
      zero_scale: start the scale at 0, so that a residual branch starts as nothing. Constants
        ("frozen") never leave their start, so they ignore it.
      mask: see `extent.cell_mask`; statistics are those of the images. None if they fill the batch.

    Returns:
      `dtype` array of `x`'s shape.

    Raises:
      ValueError: on an unknown `kind`.
    """
    scale_init = nn.initializers.zeros if zero_scale else nn.initializers.ones
    if kind == "frozen":
        return FrozenNorm(dtype=dtype, name=name)(x)
    if kind == "batch":
        batch_norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=_EPSILON,
            dtype=dtype,
            scale_init=scale_init,
            axis_name=axis_name,
            name=name,
        )
        return batch_norm(x, mask=pixel_mask(x, mask))
    if kind == "group":
        groups = group_count(x.shape[-1], min_group_size=2)
        group_norm = nn.GroupNorm(
            groups, epsilon=_EPSILON, dtype=dtype, scale_init=scale_init, name=name
        )
        return group_norm(x, mask=pixel_mask(x, mask))
    raise ValueError(f"model.norm = {kind!r} is unknown; use one of {', '.join(NORMS)}.")


class ResidualBlock(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 ("bottleneck", 4x wider at its end).

    Attributes:
      features: channels of the 3x3 convolutions.
      bottleneck: which of the two it is.
      stride: of the first 3x3 convolution and of the shortcut.
      dilation: of the 3x3 convolutions.
      norm: `normalize` with everything bound but the array, `name`, `zero_scale` and `mask`.
      dtype: of the activations.
    """

    features: int
    bottleneck: bool
    stride: int
    dilation: int
    norm: Callable[..., jax.Array]
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Applies the block.

        Args:
          x: [B, h, w, channels].
          mask: see `extent.cell_mask`; None if the images fill the batch.

        Returns:
          [B, ceil(h / stride), ceil(w / stride), features (x 4)].
        """
        out_features = self.features * (4 if self.bottleneck else 1)
        # (channels, kernel, stride, dilation) of each convolution of the branch.
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
        y = x
        for index, (features, kernel, stride, dilation) in enumerate(plan, start=1):
            last = index == len(plan)
            y = zero_outside(y, mask) if kernel > 1 else y
            y = conv(
                features,
                kernel,
                stride=stride,
                dilation=dilation,
                dtype=self.dtype,
                name=f"conv{index}",
            )(y)
            y = self.norm(y, name=f"norm{index}", zero_scale=last, mask=mask)
            y = y if last else nn.relu(y)
        if x.shape[-1] != out_features or self.stride != 1:
            x = conv(out_features, 1, stride=self.stride, dtype=self.dtype, name="shortcut_conv")(x)
            x = self.norm(x, name="shortcut_norm", mask=mask)
        # A ReLU by `where`: `maximum` has one operand, which XLA's CPU backend takes as leave to
        # compute every block's sum again from the first block of the stage on.
        x = x + y
        return jnp.where(x <= 0, 0, x)


class ResNet(nn.Module):
    """ResNet feature extractor.

    Attributes:
      backbone: a key of `BACKBONES`.
      width: channels of the first stage's 3x3 convolutions (64 in the paper).
      stem: "basic" (7x7) or "deeplab" (three 3x3, and dilations 1, 2, 4 in res5).
      norm: one of `NORMS`.
      dtype: of the activations; parameters are float32.
      axis_name: pmap axis over which norm "batch" averages its statistics.
    """

    backbone: str
    width: int
    stem: str
    norm: str
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Extracts features.

        Args:
          images: float [B, H, W, 3], normalised.
          train: see `normalize`.
          mask: see `extent.cell_mask`; None if the images fill the batch. What the features hold
            outside the images means nothing.

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
        norm = partial(
            normalize, kind=self.norm, train=train, dtype=self.dtype, axis_name=self.axis_name
        )
        x = self._stem(images.astype(self.dtype), norm, mask)
        outputs = []
        for stage, depth in enumerate(architecture.depths):
            dilated = self.stem == "deeplab" and stage == 3
            for index in range(depth):
                x = ResidualBlock(
                    features=self.width * 2**stage,
                    bottleneck=architecture.bottleneck,
                    stride=2 if stage > 0 and index == 0 else 1,
                    dilation=_DEEPLAB_DILATIONS[index] if dilated else 1,
                    norm=norm,
                    dtype=self.dtype,
                    name=f"res{stage + 2}_{index}",
                )(x, mask)
            outputs.append(x)
        return tuple(outputs)

    def _stem(
        self, x: jax.Array, norm: Callable[..., jax.Array], mask: jax.Array | None
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
            name = f"stem_conv{index}"
            x = zero_outside(x, mask)
            x = conv(features, kernel, stride=stride, dtype=self.dtype, name=name)(x)
            x = nn.relu(norm(x, name=f"stem_norm{index}", mask=mask))
        x = zero_outside(x, mask)  # after a ReLU zero is as good as the pool's own padding
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
