"""The paper: one training step of RC²L. `train_step.py` is its Figure 2 from top to bottom."""
