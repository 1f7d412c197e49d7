"""The paper's method: one training step of RC²L. `train_step.total_loss` follows its Figure 2."""
