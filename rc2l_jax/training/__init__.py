"""Training a run: its start, the loop, what is done after steps, and checks before training."""
