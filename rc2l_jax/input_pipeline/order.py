"""The endless order of a stream's examples."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from data.splits import Key


@dataclasses.dataclass(frozen=True)
class Order:
    """The endless sequence of a stream's examples. Every epoch has an order of its own.

    Attributes:
      keys: the examples of an epoch.
      seed: streams with different seeds have unrelated orders.
    """

    keys: tuple[Key, ...]
    seed: int

    def keys_at(self, positions: np.ndarray) -> list[Key]:
        """The examples at the positions int64 [B] of the sequence."""
        epochs, places = np.divmod(positions, len(self.keys))
        return [self.keys[self._epoch(int(e))[p]] for e, p in zip(epochs, places)]

    def others(self, position: int) -> Iterator[Key]:
        """The other examples of a position's epoch: first those after it, then those before it."""
        epoch, place = divmod(position, len(self.keys))
        for index in np.roll(self._epoch(epoch), -place)[1:]:
            yield self.keys[index]

    def _epoch(self, epoch: int) -> np.ndarray:
        return _permutation(len(self.keys), self.seed, epoch)


@functools.lru_cache(maxsize=16)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch, int64 [count].

    It is made from Philox's raw output, which NumPy never changes, unlike Generator's methods.
    """
    key = np.array([seed, epoch], np.int64).view(np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable")
