"""The one exception for weights that a user gave and that cannot be used."""


class WeightsError(ValueError):
    """Weights that cannot be loaded or written. Names the file, what is wrong, and what to do."""
