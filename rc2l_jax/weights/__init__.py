"""Reads the weights of other programs, and writes ours for them."""

from rc2l_jax.weights.errors import WeightsError
from rc2l_jax.weights.load import InitReport, load_pretrained

__all__ = ["InitReport", "WeightsError", "load_pretrained"]
