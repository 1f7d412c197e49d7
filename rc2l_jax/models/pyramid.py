"""The simple feature pyramid: feature maps of four strides from a plain transformer's one.

Source: ViTDet (Li et al., arXiv 2203.16527), section 3 and its appendix on the implementation.
Taken from there: the last map alone, strides 4 and 8 by transposed 2x2 convolutions (with LayerNorm
and GELU between the two of stride 4), stride 16 as it is, stride 32 by max-pooling; then for each
stride a 1x1 and a 3x3 convolution, each with LayerNorm and without a bias. Not taken: the fifth
map, of stride 64, and the windows of the backbone's attention.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rc2l_jax.models.convolution import Conv
from rc2l_jax.models.extent import zero_outside
from rc2l_jax.models.patches import layer_norm

Dtype = Any
_initial = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


class Deconv(nn.Module):
    """A transposed convolution with a 2x2 kernel and stride 2: each pixel becomes four.

    Attributes:
      features: channels of the output.
      dtype: of the output; parameters are float32.
    """

    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, channels] to `dtype` [B, 2h, 2w, features]."""
        _, height, width, channels = x.shape
        # One matrix for all four places, [channels, 2 * 2 * features]: each reads one pixel.
        shape = (channels, 4 * self.features)
        kernel = self.param("kernel", _initial, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        y = y.reshape(-1, height, width, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
        return y.reshape(-1, 2 * height, 2 * width, self.features) + bias.astype(self.dtype)


class SimplePyramid(nn.Module):
    """Feature maps of strides 4, 8, 16 and 32 from one of stride 16.

    Attributes:
      features: channels of each map.
      dtype: of the activations; parameters and the norms' statistics are float32.
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, size: tuple[int, int], mask: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Makes the maps.

        Args:
          x: [B, ceil(H / 16), ceil(W / 16), D], D a multiple of 4.
          size: (H, W).
          mask: bool [B, H / STRIDE, W / STRIDE] from `extent.cell_mask`, where the images are;
            None if they fill the batch.

        Returns:
          `dtype` [B, ceil(H / s), ceil(W / s), features] with s = 4, 8, 16, 32.
        """
        dim = x.shape[-1]
        up = Deconv(dim // 2, self.dtype, name="up2_1")(x)
        up = nn.gelu(self._norm("up2_norm")(up), approximate=False)
        # If the number of rows (or columns) is odd, the last window of the pooling has only one.
        odd = [(0, side % 2) for side in x.shape[1:3]]
        maps = (
            Deconv(dim // 4, self.dtype, name="up2_2")(up),
            Deconv(dim // 2, self.dtype, name="up3_1")(x),
            x,
            nn.max_pool(x, (2, 2), strides=(2, 2), padding=odd),
        )
        outputs = []
        for level, y in enumerate(maps, start=2):
            # Tokens may reach beyond an image whose sides are no multiples of 16.
            height, width = (-(-side // 2**level) for side in size)
            y = self._conv_norm(y[:, :height, :width], 1, f"res{level}_1")
            outputs.append(self._conv_norm(zero_outside(y, mask), 3, f"res{level}_2"))
        return tuple(outputs)

    def _conv_norm(self, x: jax.Array, kernel: int, name: str) -> jax.Array:
        conv = Conv(
            self.features, kernel, _initial, use_bias=False, dtype=self.dtype, name=f"{name}_conv"
        )
        return self._norm(f"{name}_norm")(conv(x))

    def _norm(self, name: str) -> nn.LayerNorm:
        return layer_norm(1e-6, self.dtype, name)
