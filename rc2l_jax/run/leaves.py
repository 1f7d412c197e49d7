"""Compares the arrays that a checkpoint holds with those that a model has, by path and shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHOWN = 3

# {path, such as ("params", "head", "kernel"): an array, or what has its `shape`}.
Leaves = Mapping[tuple[str, ...], Any]


def differing_leaves(stored: Leaves, wanted: Leaves) -> str:
    """Names the first arrays whose shapes differ, with both shapes; "" if there are none.

    Args:
      stored: what a checkpoint holds. Fields (the first part of a path) of which nothing is wanted
        may hold anything.
      wanted: what the model has.
    """
    fields = {key[0] for key in wanted}
    stored = {key: leaf for key, leaf in stored.items() if key[0] in fields}
    differing = [
        f"{'/'.join(key)} is {_shape(stored, key)} there and {_shape(wanted, key)} here"
        for key in sorted(stored.keys() | wanted.keys(), key=lambda key: (key[0] != "params", key))
        if _shape(stored, key) != _shape(wanted, key)
    ]
    more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    return "; ".join(differing[:_SHOWN]) + more


def _shape(leaves: Leaves, key: tuple[str, ...]) -> str:
    return str(list(leaves[key].shape)) if key in leaves else "absent"
