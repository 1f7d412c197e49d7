"""Experiments: one short file each over `base`, which has every default."""
