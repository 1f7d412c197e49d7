"""The one exception for weights that a user gave and that cannot be used, and its reasons."""


class WeightsError(ValueError):
    """Weights that cannot be loaded or written. Names the file, what is wrong, and what to do."""


def first_line(error: Exception) -> str:
    """Returns the first line of another library's error, or its kind if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
