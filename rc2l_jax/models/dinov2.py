"""DINOv2 backbones: plain vision transformers (ViT-S, B and L), with or without register tokens.

Sources: Oquab et al. (arXiv 2304.07193); Darcet et al. (arXiv 2309.16588) for registers. The layers
and the interpolation of position codes are those of transformers' `Dinov2Model` and
`Dinov2WithRegistersModel`. (Meta's code moves the codes of models without registers by another
tenth of a token, to avoid a rounding error of older versions of torch.)

The weights are for patches of 14 pixels, while masks have strides that are powers of two. So images
are resized to 7/8 here: a patch is then 16 of the image's pixels, and features have stride 16.
`pyramid.SimplePyramid` makes the other strides of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rc2l_jax.models.patches import PatchEmbedding, layer_norm, vit_init
from rc2l_jax.models.resampling import resize_codes, seven_eighths
from rc2l_jax.structs import STRIDE

Dtype = Any
PATCH = 14  # pixels of the resized image
TOKEN_STRIDE = 16  # pixels of the image
GRID = 37  # position codes along a side: trained with 518 pixels


class Architecture(NamedTuple):
    """Channels, number of blocks, heads of each attention, number of register tokens."""

    width: int
    depth: int
    num_heads: int
    num_registers: int


_SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
BACKBONES = {
    f"dinov2_{name}{suffix}": Architecture(*size, registers)
    for suffix, registers in (("", 0), ("_registers", 4))
    for name, size in _SIZES.items()
}

_EPSILON = 1e-6  # of every LayerNorm


class Block(nn.Module):
    """Self-attention and a perceptron, each normalised before, scaled, and added to what came in.

    Attributes:
      num_heads: of the attention.
      dtype: of the activations. Parameters, statistics of the norms and the softmax are float32.
    """

    num_heads: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Applies the block.

        Args:
          x: `dtype` [B, T, D].
          mask: bool [B, T], the tokens to attend to; None for all.

        Returns:
          `dtype` [B, T, D].
        """
        dim = x.shape[-1]
        y = self._attention(layer_norm(_EPSILON, self.dtype, "norm1")(x), mask)
        x = x + self._scale("layer_scale1", dim) * self._dense(y, dim, "out")
        y = self._dense(layer_norm(_EPSILON, self.dtype, "norm2")(x), 4 * dim, "ffn1")
        y = self._dense(nn.gelu(y, approximate=False), dim, "ffn2")
        return x + self._scale("layer_scale2", dim) * y

    def _dense(self, x: jax.Array, features: int, name: str) -> jax.Array:
        return nn.Dense(features, dtype=self.dtype, kernel_init=vit_init, name=name)(x)

    def _scale(self, name: str, dim: int) -> jax.Array:
        return self.param(name, nn.initializers.ones, (dim,), jnp.float32).astype(self.dtype)

    def _attention(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """What each token [B, T, D] gathers from all of them, before the output's projection."""
        split = (*x.shape[:2], self.num_heads, x.shape[-1] // self.num_heads)
        query, key, value = (
            self._dense(x, x.shape[-1], name).reshape(split) for name in ("query", "key", "value")
        )
        logits = jnp.einsum(
            "bthd,bshd->bhts",
            query * split[-1] ** -0.5,
            key,
            preferred_element_type=jnp.promote_types(self.dtype, jnp.float32),
        )
        if mask is not None:
            logits = jnp.where(mask[:, None, None], logits, jnp.finfo(logits.dtype).min)
        weights = nn.softmax(logits).astype(self.dtype)
        return jnp.einsum("bhts,bshd->bthd", weights, value).reshape(x.shape)


class DINOv2(nn.Module):
    """DINOv2's tokens as one feature map of stride 16.

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
    ) -> tuple[jax.Array]:
        """Extracts features.

        Args:
          images: float [B, H, W, 3], normalised. Sides that are no multiples of 16 are filled up
            with zeros, the mean colour; so an image smaller than a patch has one token.
          train: has no effect: there is no dropout, and no statistics of the batch.
          mask: bool [B, H / STRIDE, W / STRIDE] from `extent.cell_mask`, where the images are;
            None if they fill the batch. Features outside of the images mean nothing.

        Returns:
          One map, the patches' tokens after the final norm: `dtype` [B, ceil(H / 16), ceil(W / 16),
          D].

        Raises:
          ValueError: the backbone is unknown.
        """
        del train
        if self.backbone not in BACKBONES:
            raise ValueError(
                f"model.backbone = {self.backbone!r} is unknown; use one of {', '.join(BACKBONES)}."
            )
        architecture = BACKBONES[self.backbone]
        shape = (1, 1 + GRID**2, architecture.width)  # the first one is the class token's
        positions = self.param("position_embeddings", vit_init, shape, jnp.float32)
        x = self._patches(images, mask, positions[0, 1:], architecture)
        height, width = x.shape[1:3]
        x = x.reshape(-1, height * width, architecture.width)
        others = self._other_tokens(positions[:, :1], architecture)
        others = jnp.broadcast_to(others, (x.shape[0], *others.shape[1:])).astype(self.dtype)
        x = jnp.concatenate([others, x], 1)
        if mask is not None:
            inside = _of_tokens(mask).reshape(-1, height * width)
            mask = jnp.concatenate([jnp.ones((inside.shape[0], others.shape[1]), bool), inside], 1)
        block = nn.remat(Block) if self.remat else Block
        for index in range(architecture.depth):
            x = block(architecture.num_heads, self.dtype, name=f"layer{index}")(x, mask)
        x = layer_norm(_EPSILON, self.dtype, "norm")(x[:, others.shape[1] :])
        return (x.reshape(-1, height, width, architecture.width),)

    def _patches(
        self,
        images: jax.Array,
        mask: jax.Array | None,
        codes: jax.Array,
        architecture: Architecture,
    ) -> jax.Array:
        """The patches' tokens with their position codes [GRID * GRID, D]: `dtype` [B, h, w, D]."""
        rest = [-side % TOKEN_STRIDE for side in images.shape[1:3]]
        images = images.astype(jnp.promote_types(self.dtype, jnp.float32))
        images = jnp.pad(images, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0)))
        x = PatchEmbedding(architecture.width, PATCH, self.dtype, name="patch_embedding")(
            seven_eighths(images, mask)
        )
        sizes = shape = x.shape[1:3]
        if mask is not None:  # each image has the codes of its own size
            inside = _of_tokens(mask)
            sizes = inside[:, :, 0].sum(1), inside[:, 0, :].sum(1)
        codes = codes.reshape(GRID, GRID, architecture.width)
        # Only the models with registers were trained with antialiased codes.
        codes = resize_codes(codes, sizes, shape, antialias=architecture.num_registers > 0)
        return (x + codes).astype(self.dtype)

    def _other_tokens(self, code: jax.Array, architecture: Architecture) -> jax.Array:
        """The class token with its position code, and the registers: [1, 1 + registers, D]."""
        shape = (1, 1, architecture.width)
        tokens = self.param("class_token", vit_init, shape, jnp.float32) + code
        if not architecture.num_registers:
            return tokens
        shape = (1, architecture.num_registers, architecture.width)
        registers = self.param("register_tokens", vit_init, shape, jnp.float32)
        return jnp.concatenate([tokens, registers], 1)


def _of_tokens(mask: jax.Array) -> jax.Array:
    """Enlarges a mask of cells [B, H / STRIDE, W / STRIDE] to the tokens, [B, h, w]."""
    times = STRIDE // TOKEN_STRIDE
    return mask.repeat(times, 1).repeat(times, 2)
