"""The transformer decoder, in which queries attend to the image.

Source: DETR (arXiv 2005.12872) as MaskFormer (arXiv 2107.06278) configures it. There is no encoder.
Layers are post-norm, with dropout also on the attention weights and inside the feed-forward network
(where Hugging Face transformers' port has none by default). The heads get each layer's output after
a further LayerNorm, the next layer gets it without.
"""

from __future__ import annotations

import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rc2l_jax.models.convolution import Conv
from rc2l_jax.models.position import masked_sine_position, sine_position

_xavier = nn.initializers.xavier_uniform()
# torch keeps the projections of query, key and value in one [3D, D] matrix, and draws its weights
# with the fan-out of all three.
_xavier_thirds = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")
_xavier_fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


class Dropout(nn.Module):
    """Dropout that draws for each image by itself, from the image's seed and the module's path.

    So the number of devices changes nothing. Bits come from a hash of the place in the array, which
    XLA computes where they are used. jax.random's would be written to memory, and each of its calls
    takes about half a second to compile on a CPU.

    Attributes:
      rate: probability that an entry is set to zero, below 1.
      train: False returns the input.
    """

    rate: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array, seeds: jax.Array | None) -> jax.Array:
        """Drops entries and scales up the others.

        Args:
          x: [B, ...].
          seeds: uint32 [B], from `image_seeds`; None where nothing is dropped.
        """
        if not self.train or self.rate == 0:
            return x
        own = np.uint32(zlib.crc32("/".join(self.path).encode()))
        dropped = random_bits(seeds ^ own, x.shape[1:]) < np.uint32(self.rate * 2**32)
        return jnp.where(dropped, jnp.zeros_like(x), x / (1 - self.rate))


def image_seeds(key: jax.Array, positions: jax.Array) -> jax.Array:
    """A seed for each of some images, uint32 [B], from a key and their positions, int32 [B]."""
    words = jax.random.key_data(key)
    return _mixed(_mixed(positions.astype(jnp.uint32) ^ words[0]) ^ words[-1])


def random_bits(seeds: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random bits for each of some images: uint32 [B, *shape].

    Args:
      seeds: uint32 [B]. Bits of different seeds are independent.
      shape: of one image's bits; at most 2**32 numbers.
    """
    seeds = _mixed(seeds).reshape(-1, *(1,) * len(shape))
    index, stride = jnp.zeros((1, *shape), jnp.uint32), 1
    for axis in range(len(shape), 0, -1):
        place = jax.lax.broadcasted_iota(jnp.uint32, (1, *shape), axis)
        index, stride = index + place * np.uint32(stride), stride * shape[axis - 1]
    return _mixed(_mixed(index ^ seeds) + seeds)


def _mixed(x: jax.Array) -> jax.Array:
    """Mixes the bits of uint32 numbers, each to another number: "lowbias32" of C. Wellons (2018).

    Source: https://nullprogram.com/blog/2018/07/31/
    """
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


class Attention(nn.Module):
    """Multi-head attention, in float32.

    Attributes:
      num_heads: must divide the width D of the inputs.
      dropout: rate at which attention weights are dropped.
    """

    num_heads: int
    dropout: float

    @nn.compact
    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        seeds: jax.Array | None,
        *,
        train: bool,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Lets queries attend to keys, and gathers the keys' values.

        Args:
          query: [B, N, D].
          key: [B, P, D].
          value: [B, P, D].
          seeds: uint32 [B], the images' seeds for dropout; None where nothing is dropped.
          train: whether to drop attention weights.
          mask: bool [B, P], True for the keys to attend to; None for all.

        Returns:
          [B, N, D].
        """
        dim = query.shape[-1]
        query = self._heads(query, "query") * (dim // self.num_heads) ** -0.5
        key, value = self._heads(key, "key"), self._heads(value, "value")
        logits = jnp.einsum("bnhd,bphd->bhnp", query, key)
        if mask is not None:
            logits = jnp.where(mask[:, None, None], logits, jnp.finfo(logits.dtype).min)
        weights = Dropout(self.dropout, train)(nn.softmax(logits), seeds)
        out = jnp.einsum("bhnp,bphd->bnhd", weights, value)
        out = out.reshape(*out.shape[:2], dim)
        return nn.Dense(dim, kernel_init=_xavier, name="out")(out)

    def _heads(self, x: jax.Array, name: str) -> jax.Array:
        """Projects [B, P, D] and splits it into heads: [B, P, num_heads, D / num_heads]."""
        dim = x.shape[-1]
        x = nn.Dense(dim, kernel_init=_xavier_thirds, name=name)(x)
        return x.reshape(*x.shape[:2], self.num_heads, dim // self.num_heads)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward network, each normalised after its residual.

    Attributes:
      num_heads: heads of both attentions.
      ffn_dim: hidden width of the feed-forward network.
      dropout: rate of every dropout.
      train: whether to drop out.
    """

    num_heads: int
    ffn_dim: int
    dropout: float
    train: bool

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array,
        query_position: jax.Array,
        memory_position: jax.Array,
        seeds: jax.Array | None,
        memory_mask: jax.Array | None = None,
    ) -> jax.Array:
        """Applies the layer. Positions are added to queries and keys, never to values.

        Args:
          x: float32 [B, N, D], the queries' content.
          memory: [B, P, D], the image's features.
          query_position: [N, D], learned codes of the queries.
          memory_position: [P, D] or [B, P, D], position codes of `memory`.
          seeds: uint32 [B], the images' seeds for dropout; None where nothing is dropped.
          memory_mask: bool [B, P], False on padding; None if there is none.

        Returns:
          float32 [B, N, D].
        """

        def drop(x: jax.Array) -> jax.Array:
            return Dropout(self.dropout, self.train)(x, seeds)

        def add_norm(x: jax.Array, branch: jax.Array, name: str) -> jax.Array:
            norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)
            return norm(x + drop(branch))

        def attend(
            query: jax.Array,
            key: jax.Array,
            value: jax.Array,
            name: str,
            mask: jax.Array | None = None,
        ) -> jax.Array:
            attention = Attention(self.num_heads, self.dropout, name=name)
            return attention(query, key, value, seeds, train=self.train, mask=mask)

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features, kernel_init=_xavier, name=name)

        query = x + query_position
        x = add_norm(x, attend(query, query, x, "self_attention"), "self_attention_norm")
        query, key = x + query_position, memory + memory_position
        cross = attend(query, key, memory, "cross_attention", memory_mask)
        x = add_norm(x, cross, "cross_attention_norm")
        hidden = drop(nn.relu(dense(self.ffn_dim, "ffn1")(x)))
        return add_norm(x, dense(x.shape[-1], "ffn2")(hidden), "ffn_norm")


class TransformerDecoder(nn.Module):
    """L decoder layers on the backbone's coarsest features, in float32 whatever those are.

    There are few queries, so that float32 costs less than casting all parameters would. As queries
    pass through all layers, rounding them to bfloat16 would add up.

    Attributes:
      hidden_dim: width D.
      num_heads: heads of every attention.
      ffn_dim: hidden width of the feed-forward networks.
      num_layers: L.
      dropout: rate of every dropout.
    """

    hidden_dim: int
    num_heads: int
    ffn_dim: int
    num_layers: int
    dropout: float

    @nn.compact
    def __call__(
        self,
        features: jax.Array,
        query_embed: jax.Array,
        seeds: jax.Array | None,
        *,
        train: bool,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Lets the queries read the image, layer by layer.

        Args:
          features: [B, h5, w5, channels], res5. As in MaskFormer they are projected to width D
            unless they have it already.
          query_embed: float32 [N, D], the queries' learned positions. Their content starts at zero.
          seeds: uint32 [B], the images' seeds for dropout; None where nothing is dropped.
          train: whether to drop out.
          mask: bool [B, h5, w5] from `extent.cell_mask`, where the images are; None if they fill
            the batch.

        Returns:
          float32 [L, B, N, D]: every layer's output after the final LayerNorm.

        Raises:
          ValueError: if D is not a multiple of 4 and of `num_heads`.
        """
        if self.hidden_dim % 4 or self.hidden_dim % self.num_heads:
            raise ValueError(
                f"model.hidden_dim = {self.hidden_dim} must be a multiple of 4 and of "
                f"model.num_heads = {self.num_heads}."
            )
        batch, height, width, channels = features.shape
        if channels != self.hidden_dim:
            features = Conv(
                self.hidden_dim, 1, _xavier_fan_in, dtype=features.dtype, name="input_projection"
            )(features)
        memory = features.reshape(batch, height * width, self.hidden_dim).astype(jnp.float32)
        if mask is None:
            memory_mask, position = None, sine_position(height, width, self.hidden_dim)
        else:
            memory_mask = mask.reshape(batch, height * width)
            position = masked_sine_position(mask, self.hidden_dim)
        x = jnp.zeros((batch, *query_embed.shape))
        outputs = []
        for index in range(self.num_layers):
            x = DecoderLayer(
                num_heads=self.num_heads,
                ffn_dim=self.ffn_dim,
                dropout=self.dropout,
                train=train,
                name=f"layer{index}",
            )(x, memory, query_embed, position, seeds, memory_mask)
            outputs.append(x)
        norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="output_norm")
        return norm(jnp.stack(outputs))
