"""A run from its config to its results: the loop, and what is due after its steps."""
