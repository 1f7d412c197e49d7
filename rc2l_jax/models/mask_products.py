"""Mask logits from mask embeddings and pixel features: the largest arrays of a step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


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
    layers, batch, queries, _ = mask_embed.shape
    # One product for each image, with the layers' queries as rows: the result has the image's
    # pixels innermost, as losses read it, and nothing need be transposed.
    rows = jnp.moveaxis(mask_embed, 0, 1).reshape(batch, layers * queries, -1)
    logits = _full_product("bqc,bhwc->bqhw", rows, pixel_features)
    return jnp.moveaxis(logits.reshape(batch, layers, queries, *logits.shape[2:]), 1, 0)


def _mask_products_forward(mask_embed: jax.Array, pixel_features: jax.Array) -> tuple:
    return _mask_products(mask_embed, pixel_features), (mask_embed, pixel_features)


def _mask_products_backward(saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    mask_embed, pixel_features = saved
    layers, batch, queries, _ = mask_embed.shape
    gradient = jnp.moveaxis(gradient.astype(mask_embed.dtype), 0, 1)
    gradient = gradient.reshape(batch, layers * queries, *gradient.shape[3:])
    rows = jnp.moveaxis(mask_embed, 0, 1).reshape(batch, layers * queries, -1)
    dtype = mask_embed.dtype
    of_rows = _full_product("bqhw,bhwc->bqc", gradient, pixel_features, dtype)
    of_features = _full_product("bqhw,bqc->bhwc", gradient, rows, dtype)
    return jnp.moveaxis(of_rows.reshape(batch, layers, queries, -1), 1, 0), of_features


mask_products.defvjp(_mask_products_forward, _mask_products_backward)


def _full_product(formula: str, a: jax.Array, b: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """A product whose sums are float32, rounded to `dtype` once."""
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum(formula, a, b, precision=highest, preferred_element_type=dtype)
