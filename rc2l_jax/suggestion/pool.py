"""The photos to choose from, and what is known about each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rc2l_jax.prediction.inputs import Photos
from rc2l_jax.prediction.network import Network
from rc2l_jax.prediction.photos import Photo
from rc2l_jax.suggestion.choice import are_near, directions
from rc2l_jax.suggestion.features import features, photo_features
from rc2l_jax.suggestion.labeled import Labeled
from rc2l_jax.suggestion.uncertainty import Doubt, doubts, rarity


class Pool(NamedTuple):
    """The photos to choose from.

    Attributes:
      photos: N photos.
      features: float32 [N, C].
      doubts: the network's, of each photo; None without a network.
      labeled: float32 [L, C], the features of the photos that are labelled for training.
    """

    photos: Sequence[Photo]
    features: np.ndarray
    doubts: Sequence[Doubt] | None
    labeled: np.ndarray

    @property
    def weights(self) -> np.ndarray | None:
        """How useful each photo is by itself, float [N]; None if that is not known."""
        return None if self.doubts is None else np.array([x.weight for x in self.doubts])


def look_at(
    found: Photos, backbone: Network, labeled: Labeled | None, network: Network | None
) -> Pool:
    """Computes what is known about photos.

    Photos that look the same as one to measure with are left out: a score on what is trained on
    says nothing.

    Args:
      found: the photos. Those that cannot be read move to `skipped`.
      backbone: makes their features.
      labeled: the photos that have masks; None if there are none.
      network: a trained network; None for none.
    """
    items, failed = found.photos, {}
    values = photo_features(items, backbone, failed)
    known: dict[int, Doubt] = {}
    if network is not None and labeled is not None:
        known = doubts(network, items, rarity(labeled.photos_with()), failed)
    for i, reason in failed.items():
        where = "" if items[i].frame is None else f"frame {items[i].frame}: "
        found.skipped.setdefault(items[i].path, where + reason)
    left = np.array([i for i in range(len(items)) if i not in failed], np.int64)
    found.photos = [items[i] for i in left]
    training, measuring = _with_masks(backbone, labeled, values.shape[1])
    if len(left):
        center = values[left].mean(0)
        to_measure = are_near(directions(values[left], center), directions(measuring, center))
        left = left[~to_measure]
    return Pool(
        [items[i] for i in left],
        values[left],
        None if network is None else [known[i] for i in left],
        training,
    )


def _with_masks(
    backbone: Network, labeled: Labeled | None, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features of labelled photos to train on, and to measure with."""
    if labeled is None or not labeled.keys:
        return np.zeros((0, width), np.float32), np.zeros((0, width), np.float32)
    values = features(backbone, labeled.sizes(), labeled.reader(), {}, "labelled photos")
    count = len(labeled.training)
    return values[:count], values[count:]
