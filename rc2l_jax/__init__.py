"""RC²L (IJCAI 2022): semi-supervised semantic segmentation with MaskFormer, in JAX/Flax."""

from rc2l_jax import moved as moved  # answers imports of former names

__version__ = "0.1.0"
