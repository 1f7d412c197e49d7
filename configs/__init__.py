"""Experiments: each is a short file that changes some defaults of `base.py`, which has them all."""
