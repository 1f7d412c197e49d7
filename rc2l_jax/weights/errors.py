"""What is wrong with weights a user gave."""


class WeightsError(ValueError):
    """Weights that cannot be loaded or written; names the file and the key, and what to do."""
