"""Data sets: builders (one folder each), split rules and random access to prepared records."""

from data.errors import DataError

__all__ = ["DataError"]
