"""The one exception of this package."""


class SuggestError(ValueError):
    """Photos or an output folder that cannot be used. Says what to do."""
