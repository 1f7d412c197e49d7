"""MaskFormer in flax.linen: backbones, FPN pixel decoder, transformer decoder, heads."""

from rc2l_jax.models.maskformer import MaskFormer, build_model

__all__ = ["MaskFormer", "build_model"]
