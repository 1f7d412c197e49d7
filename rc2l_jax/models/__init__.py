"""MaskFormer in flax.linen: backbones, FPN pixel decoder, transformer decoder, heads."""

from rc2l_jax.models.maskformer import MaskFormer, abstract_variables, build_model

__all__ = ["MaskFormer", "abstract_variables", "build_model"]
