"""Weights of other programs in, and ours out."""

from rc2l_jax.weights.errors import WeightsError
from rc2l_jax.weights.load import InitReport, load_pretrained

__all__ = ["InitReport", "WeightsError", "load_pretrained"]
