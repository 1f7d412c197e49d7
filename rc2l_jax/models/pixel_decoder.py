"""The feature pyramid that turns backbone features into per-pixel mask features.

Source: MaskFormer (arXiv 2107.06278), section 3.2 and its BasePixelDecoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rc2l_jax.models.convolution import Conv
from rc2l_jax.models.extent import pixel_mask, zero_outside
from rc2l_jax.models.normalization import group_count

Dtype = Any

# detectron2's c2_xavier_fill: uniform, variance 1 / fan_in.
_xavier_fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


def upsample_nearest(x: jax.Array, height: int, width: int) -> jax.Array:
    """Resizes as torch's "nearest" does: output pixel i reads input pixel floor(i * in / out).

    Args:
      x: [B, h, w, channels].
      height: rows of the output.
      width: columns of the output.

    Returns:
      [B, height, width, channels].
    """
    return _upsample_axis(_upsample_axis(x, 1, height), 2, width)


def _upsample_axis(x: jax.Array, axis: int, size: int) -> jax.Array:
    index = np.arange(size) * x.shape[axis] // size
    # Of a map of half the size (rounded up) the index is always 0, 0, 1, 1, ... Repeating needs no
    # gather, and no scatter in the gradient.
    if np.array_equal(index, np.arange(size) // 2):
        return jax.lax.slice_in_dim(jnp.repeat(x, 2, axis=axis), 0, size, axis=axis)
    return jnp.take(x, index, axis=axis)


class PixelDecoder(nn.Module):
    """Feature pyramid network with GroupNorm.

    Attributes:
      pixel_dim: channels of the pyramid's layers.
      mask_dim: channels C of the mask features.
      dtype: of the activations; parameters are float32.
    """

    pixel_dim: int
    mask_dim: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Sequence[jax.Array], mask: jax.Array | None = None) -> jax.Array:
        """Fuses the backbone's features, coarse to fine.

        Args:
          features: res2 to res5, each [B, ., ., channels] and half the height and width of the
            one before, rounded up.
          mask: bool [B, H / STRIDE, W / STRIDE] from `extent.cell_mask`, where the images are;
            None if they fill the batch.

        Returns:
          Mask features, `dtype` [B, h, w, C] at res2's size.
        """
        top_level = len(features) + 1
        x = nn.relu(self._conv_norm(features[-1], 3, f"output{top_level}", mask))
        for level in range(top_level - 1, 1, -1):
            lateral = self._conv_norm(features[level - 2], 1, f"lateral{level}", mask)
            x = lateral + upsample_nearest(x, lateral.shape[1], lateral.shape[2])
            x = nn.relu(self._conv_norm(x, 3, f"output{level}", mask))
        return Conv(self.mask_dim, 3, _xavier_fan_in, dtype=self.dtype, name="mask_features")(
            zero_outside(x, mask)
        )

    def _conv_norm(self, x: jax.Array, kernel: int, name: str, mask: jax.Array | None) -> jax.Array:
        convolution = Conv(
            self.pixel_dim,
            kernel,
            _xavier_fan_in,
            use_bias=False,
            dtype=self.dtype,
            name=f"{name}_conv",
        )
        x = convolution(zero_outside(x, mask) if kernel > 1 else x)
        groups = group_count(self.pixel_dim)
        norm = nn.GroupNorm(groups, epsilon=1e-5, dtype=self.dtype, name=f"{name}_norm")
        return norm(x, mask=pixel_mask(x, mask))
