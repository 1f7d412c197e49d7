"""Predicts images of any size and kind with a trained network."""
