"""EfficientNet-Lite backbones: pretrained networks that a laptop can afford.

Sources: Tan and Le (arXiv 1905.11946); TensorFlow's `tpu/models/official/efficientnet/lite`, of
which these are the variants without squeeze-and-excitation and with ReLU6. Its normalisations are
constants here, as in detectron2's frozen batch normalisation.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rc2l_jax.models.depthwise import convolve_same, depthwise
from rc2l_jax.models.extent import zero_outside
from rc2l_jax.models.normalization import FrozenNorm
from rc2l_jax.models.pixels import PIXEL_MEAN, PIXEL_STD

Dtype = Any


class Scaling(NamedTuple):
    """How a variant differs from the smallest one."""

    width: float
    depth: float


BACKBONES = {
    "efficientnet_lite0": Scaling(1.0, 1.0),
    "efficientnet_lite1": Scaling(1.0, 1.1),
    "efficientnet_lite2": Scaling(1.1, 1.2),
}


class Stage(NamedTuple):
    """A row of the paper's Table 1: equal blocks, of which only the first one has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
_HEAD_CHANNELS = 1280  # of all variants
_OUTPUTS = (1, 2, 4, 6)  # the stages whose features are used, of strides 4, 8, 16 and 32
_STEM_CHANNELS = 32
_EPSILON = 1e-3
# Its images are (x - 127) / 128 of pixels in 0..255.
_PIXEL_SHIFT, _PIXEL_SCALE = 127.0, 128.0
_kernel_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def stages(scaling: Scaling) -> list[Stage]:
    """The stages of a variant; neither the stem nor the first and last stage become deeper."""
    scaled = []
    for index, stage in enumerate(_STAGES):
        deeper = 0 < index < len(_STAGES) - 1
        blocks = math.ceil(scaling.depth * stage.blocks) if deeper else stage.blocks
        scaled.append(
            stage._replace(blocks=blocks, channels=_round_channels(scaling.width * stage.channels))
        )
    return scaled


def _round_channels(channels: float, divisor: int = 8) -> int:
    """To the nearest multiple of 8, but not more than a tenth down."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6)."""
    # By `where` on a CPU for the reason that `activation.relu` gives.
    return jax.lax.platform_dependent(
        x,
        cpu=lambda x: jnp.where(x <= 0, 0, jnp.where(x >= 6, 6, x)),
        default=lambda x: jnp.clip(x, 0, 6),
    )


class Block(nn.Module):
    """An inverted residual block: 1x1 convolution to more channels, depthwise one, 1x1 back.

    Attributes:
      channels: of the output.
      kernel: side of the depthwise kernel.
      stride: of the depthwise convolution.
      expansion: how many times more channels it has than the input; with 1 there is no first
        convolution.
      dtype: of the activations.
    """

    channels: int
    kernel: int
    stride: int
    expansion: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Maps [B, h, w, .] to [B, ceil(h / stride), ceil(w / stride), channels]."""
        width, y = self.expansion * x.shape[-1], x
        if self.expansion != 1:
            y = relu6(self._conv_norm(y, (1, 1, x.shape[-1], width), "expand"))
        y = zero_outside(y, mask)
        y = relu6(self._conv_norm(y, (self.kernel, self.kernel, 1, width), "depthwise"))
        y = self._conv_norm(y, (1, 1, width, self.channels), "project")
        return x + y if self.stride == 1 and x.shape[-1] == self.channels else y

    def _conv_norm(self, x: jax.Array, shape: tuple[int, ...], name: str) -> jax.Array:
        return _conv_norm(self, x, shape, self.stride, self.dtype, name)


def _conv_norm(
    module: nn.Module, x: jax.Array, shape: tuple[int, ...], stride: int, dtype: Dtype, name: str
) -> jax.Array:
    """A convolution without bias and its normalisation, whose gain is folded into the kernel.

    Args:
      module: to which "{name}_conv" and "{name}_norm" belong.
      x: [B, h, w, channels].
      shape: of the kernel; [k, k, 1, channels] is depthwise. 1x1 has stride 1.
      stride: of the convolution.
      dtype: of the output.
      name: of the two.
    """
    kernel = _Kernel(shape, name=f"{name}_conv", parent=module)()
    gain, shift = FrozenNorm(shape[-1], _EPSILON, name=f"{name}_norm", parent=module)()
    kernel, x = (kernel * gain).astype(dtype), x.astype(dtype)
    if shape[0] == 1:
        y = x @ kernel[0, 0]
    elif shape[2] == 1:
        y = depthwise(x, kernel[:, :, 0], stride)
    else:
        y = convolve_same(x, kernel, stride)
    return y + shift.astype(dtype)


class _Kernel(nn.Module):
    """Holds a kernel, float32 of the given shape, under the name that `nn.Conv` would give it."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("kernel", _kernel_init, self.shape, jnp.float32)


class EfficientNet(nn.Module):
    """EfficientNet-Lite without its classifier.

    Attributes:
      backbone: a key of `BACKBONES`.
      head: whether the last feature map is what the classifier takes the mean of: the last block's
        after one more convolution, 1x1.
      dtype: of the activations; parameters are float32.
      remat: whether to keep only each block's output for the backward pass.
    """

    backbone: str
    head: bool = False
    dtype: Dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Extracts features.

        Args:
          images: float [B, H, W, 3] from `pixels.normalize`.
          train: ignored: there is no dropout, and the normalisations are constants.
          mask: bool [B, H / STRIDE, W / STRIDE] from `extent.cell_mask`, where the images are;
            None if they fill the batch. Features outside of the images mean nothing.

        Returns:
          The outputs of the last blocks with 24, 40, 112 and 320 channels (variants 0 and 1), or,
          with `head`, 1,280 in place of the last: `dtype` [B, ceil(H / s), ceil(W / s), channels]
          with s = 4, 8, 16, 32.
        """
        del train
        block = nn.remat(Block) if self.remat else Block
        # From the normalisation that all networks here take to this one's.
        scale = np.array(PIXEL_STD, np.float32) / _PIXEL_SCALE
        shift = (np.array(PIXEL_MEAN, np.float32) - _PIXEL_SHIFT) / _PIXEL_SCALE
        x = zero_outside(images * scale + shift, mask)
        x = relu6(_conv_norm(self, x, (3, 3, 3, _STEM_CHANNELS), 2, self.dtype, "stem"))
        outputs, number = [], 0
        for index, stage in enumerate(stages(BACKBONES[self.backbone])):
            for position in range(stage.blocks):
                x = block(
                    stage.channels,
                    stage.kernel,
                    stage.stride if position == 0 else 1,
                    stage.expansion,
                    self.dtype,
                    name=f"block{number}",
                )(x, mask)
                number += 1
            if index in _OUTPUTS:
                outputs.append(x)
        if self.head:
            shape = (1, 1, x.shape[-1], _HEAD_CHANNELS)
            outputs[-1] = relu6(_conv_norm(self, x, shape, 1, self.dtype, "head"))
        return tuple(outputs)
