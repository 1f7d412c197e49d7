"""Swin transformer backbones, as MaskFormer uses them.

An image's patches of 4 x 4 pixels are tokens. They attend to each other inside of windows of a
fixed size, which every other block shifts by half a window. Between stages 2 x 2 tokens become one.
Every stage's output is normalised before the pixel decoder gets it.

As in MaskFormer, and unlike in classification, maps that windows do not divide are padded with
tokens that are zero after the norm, which are attended to like all others; and a map smaller than a
window is padded to one whole window. There is no drop path (stochastic depth), with which
MaskFormer trains its Swins at a rate of 0.3: predictions are the same, training is that of a rate
of 0.

Sources: Liu et al. (arXiv 2103.14030); transformers' MaskFormerSwin.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rc2l_jax.models.extent import zero_outside
from rc2l_jax.models.patches import PatchEmbedding, layer_norm, to_squares, vit_init
from rc2l_jax.models.windows import (
    WindowAttention,
    from_windows,
    shifted_regions,
    to_windows,
)

Dtype = Any


class Architecture(NamedTuple):
    """A Swin transformer's sizes.

    Attributes:
      embed_dim: channels of the first stage; each later stage has twice those of the one before.
      depths: blocks of each stage.
      heads: attention heads of each stage.
      window: side of a window, in tokens.
    """

    embed_dim: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int


BACKBONES = {  # those of facebook/maskformer-swin-{tiny,small,base,large}-{ade,coco}
    "swin_tiny": Architecture(96, (2, 2, 6, 2), (3, 6, 12, 24), window=7),
    "swin_small": Architecture(96, (2, 2, 18, 2), (3, 6, 12, 24), window=7),
    "swin_base": Architecture(128, (2, 2, 18, 2), (4, 8, 16, 32), window=12),
    "swin_large": Architecture(192, (2, 2, 18, 2), (6, 12, 24, 48), window=12),
}
PATCH = 4  # side of a patch, in pixels
MLP_RATIO = 4
EPSILON = 1e-5  # of every LayerNorm


class Block(nn.Module):
    """Attention inside of windows and a perceptron of each token, each a residual branch.

    Attributes:
      heads: attention heads.
      window: side of a window.
      shift: of the windows; 0 for none.
      dtype: of the activations.
    """

    heads: int
    window: int
    shift: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Applies the block.

        Args:
          x: `dtype` [B, h, w, C].
          mask: bool [B, H / STRIDE, W / STRIDE] from `extent.cell_mask`, where the images are;
            None if they fill the batch.

        Returns:
          `dtype` [B, h, w, C].
        """
        size, width, regions = x.shape[1:3], x.shape[-1], None
        if self.shift:
            regions = shifted_regions(size, self.window, self.shift, mask)
        y = zero_outside(layer_norm(EPSILON, self.dtype, "attention_norm")(x), mask)
        attention = WindowAttention(self.heads, self.window, self.dtype, name="attention")
        y = attention(to_windows(y, self.window, self.shift), regions)
        x = x + from_windows(y, size, self.window, self.shift)

        y = layer_norm(EPSILON, self.dtype, "mlp_norm")(x)
        y = nn.Dense(MLP_RATIO * width, dtype=self.dtype, kernel_init=vit_init, name="mlp1")(y)
        y = nn.gelu(y, approximate=False)
        return x + nn.Dense(width, dtype=self.dtype, kernel_init=vit_init, name="mlp2")(y)


class Swin(nn.Module):
    """Swin feature extractor.

    Attributes:
      backbone: a key of `BACKBONES`.
      dtype: of the activations; parameters are float32.
      remat: whether to keep only each block's output for the backward pass, which then computes
        the rest again.
    """

    backbone: str
    dtype: Dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Extracts features.

        Args:
          images: float [B, H, W, 3], normalised, of any size.
          train: changes nothing, as there is no drop path.
          mask: bool [B, H / STRIDE, W / STRIDE] from `extent.cell_mask`, where the images are;
            None if they fill the batch. Features outside of the images mean nothing.

        Returns:
          The normalised outputs of the four stages: `dtype` [B, ceil(H / s), ceil(W / s), C] with
          s = 4, 8, 16, 32 (rounded up at each halving).

        Raises:
          ValueError: on an unknown backbone.
        """
        del train
        if self.backbone not in BACKBONES:
            raise ValueError(
                f"model.backbone = {self.backbone!r} is unknown; use one of {', '.join(BACKBONES)}."
            )
        embed_dim, depths, heads, window = BACKBONES[self.backbone]
        block = nn.remat(Block) if self.remat else Block
        # Neither patches nor merged tokens reach over an image's border, since extents are
        # multiples of 32; so only attention needs the mask.
        x = PatchEmbedding(embed_dim, PATCH, self.dtype, name="patch_embed")(images)
        x = layer_norm(EPSILON, self.dtype, "patch_norm")(x)
        outputs = []
        for stage, depth in enumerate(depths, start=1):
            x = self._merge(x, stage - 1) if stage > 1 else x
            for index in range(depth):
                x = block(
                    heads=heads[stage - 1],
                    window=window,
                    shift=window // 2 if index % 2 else 0,
                    dtype=self.dtype,
                    name=f"stage{stage}_{index}",
                )(x, mask)
            outputs.append(layer_norm(EPSILON, self.dtype, f"stage{stage}_norm")(x))
        return tuple(outputs)

    def _merge(self, x: jax.Array, stage: int) -> jax.Array:
        """Maps a stage's output [B, h, w, C] to [B, ceil(h / 2), ceil(w / 2), 2 C]."""
        channels = x.shape[-1]
        x = to_squares(x, 2).swapaxes(3, 4)  # peers take a square's columns one after the other
        x = x.reshape(*x.shape[:3], 4 * channels)
        x = layer_norm(EPSILON, self.dtype, f"merge{stage}_norm")(x)
        dense = nn.Dense(
            2 * channels,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=vit_init,
            name=f"merge{stage}",
        )
        return dense(x)
