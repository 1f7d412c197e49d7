"""RC²L (IJCAI 2022): semi-supervised semantic segmentation with MaskFormer, in JAX/Flax."""

__version__ = "0.1.0"
