"""Mask logits from mask embeddings and pixel features: the largest arrays of a step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rc2l_jax.structs import merge_layers, split_layers


@jax.custom_vjp
def mask_products(mask_embed: jax.Array, pixel_features: jax.Array) -> jax.Array:
    """Mask logits: the products of mask embeddings and pixel features, in full float32.

    Gradients are in the inputs' dtype, as those of all activations: bfloat16 halves the size of the
    logits' gradient, one of the largest arrays of a step.

    Args:
      mask_embed: [L, B, N, C].
      pixel_features: [B, h, w, C], of the same dtype.

    Returns:
      float32 [L, B, N, h, w].
    """
    return _mask_products(mask_embed, pixel_features)


def _mask_products(mask_embed: jax.Array, pixel_features: jax.Array) -> jax.Array:
    # One product for each image, with the layers' queries as rows: the result has the image's
    # pixels innermost, as losses read it, and nothing need be transposed.
    logits = _full_product("bqc,bhwc->bqhw", merge_layers(mask_embed), pixel_features)
    return split_layers(logits, len(mask_embed))


def _mask_products_forward(mask_embed: jax.Array, pixel_features: jax.Array) -> tuple:
    return _mask_products(mask_embed, pixel_features), (mask_embed, pixel_features)


def _mask_products_backward(saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    mask_embed, pixel_features = saved
    dtype = mask_embed.dtype
    gradient = merge_layers(gradient.astype(dtype))
    of_embed = _full_product("bqhw,bhwc->bqc", gradient, pixel_features, dtype)
    of_features = _full_product("bqhw,bqc->bhwc", gradient, merge_layers(mask_embed), dtype)
    return split_layers(of_embed, len(mask_embed)), of_features


mask_products.defvjp(_mask_products_forward, _mask_products_backward)


def _full_product(formula: str, a: jax.Array, b: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """A product whose sums are float32, rounded to `dtype` once."""
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum(formula, a, b, precision=highest, preferred_element_type=dtype)
