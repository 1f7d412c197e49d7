"""What transformers on patches of an image share: patches as tokens, norms, initial values."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Dtype = Any

# Of kernels, tokens and position codes, as in the code of ViT, Swin and DINOv2.
vit_init = nn.initializers.truncated_normal(0.02)


def layer_norm(epsilon: float, dtype: Dtype, name: str) -> nn.LayerNorm:
    """A LayerNorm with output of `dtype` and statistics in float32."""
    return nn.LayerNorm(epsilon, dtype, use_fast_variance=False, name=name)


def to_squares(x: jax.Array, side: int) -> jax.Array:
    """Groups squares of pixels; zeros fill them up at the lower and right border.

    Args:
      x: [B, h, w, ...].
      side: of a square.

    Returns:
      [B, ceil(h / side), ceil(w / side), side, side, ...]: rows and columns of each square.
    """
    rest = [(0, 0)] * (x.ndim - 3)
    x = jnp.pad(x, [(0, 0), *((0, -n % side) for n in x.shape[1:3]), *rest])
    batch, height, width = x.shape[:3]
    x = x.reshape(batch, height // side, side, width // side, side, *x.shape[3:])
    return x.swapaxes(2, 3)


class PatchEmbedding(nn.Module):
    """A convolution whose stride is the side of its kernel: a matrix product of each patch.

    Attributes:
      features: channels of the output.
      side: of a patch, in pixels.
      dtype: of the output; parameters are float32.
    """

    features: int
    side: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, 3] to `dtype` [B, ceil(H / side), ceil(W / side), features]."""
        shape = (self.side, self.side, x.shape[-1], self.features)
        kernel = self.param("kernel", vit_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        patches = to_squares(x.astype(self.dtype), self.side)
        patches = patches.reshape(*patches.shape[:3], -1)
        kernel = kernel.reshape(-1, self.features).astype(self.dtype)
        return patches @ kernel + bias.astype(self.dtype)
