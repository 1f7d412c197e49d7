"""How unsure a trained network is of a photo: region by region, so that small things count."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from rc2l_jax.prediction import photos
from rc2l_jax.prediction.files import describe_segments
from rc2l_jax.prediction.frames import OpenFrames
from rc2l_jax.prediction.network import Network
from rc2l_jax.prediction.photos import Photo
from rc2l_jax.prediction.ranking import large_segments
from rc2l_jax.prediction.stream import predict_stream


class Doubt(NamedTuple):
    """What a network does not know about a photo.

    Attributes:
      weight: mean over the photo's classes of (1 - confidence) times the class's rarity, 0..1.
      classes: their names, the one that adds most to the weight first.
    """

    weight: float
    classes: list[str]


def rarity(photos_with: np.ndarray) -> np.ndarray:
    """Returns what a region of each class counts: 1 if no labelled photo shows the class.

    Args:
      photos_with: int [K], how many labelled photos show each class.
    """
    return 1 / np.sqrt(1 + photos_with)


def doubt_of(description: Mapping[str, Any], rare: np.ndarray) -> Doubt:
    """Sums up a prediction.

    Args:
      description: as `files.describe_segments` returns it. The pixels of a class are one region
        there, and each region counts the same, however large it is.
      rare: float [K], from `rarity`.
    """
    # A confidence that is not finite is as low as can be.
    parts = [
        ((1 - (x["score"] or 0.0)) * float(rare[x["id"]]), x["class"])
        for x in large_segments(description)
    ]
    parts.sort(key=lambda part: -part[0])
    return Doubt(sum(part for part, _ in parts) / len(parts), [name for _, name in parts])


def doubts(
    network: Network, items: Sequence[Photo], rare: np.ndarray, failed: dict[int, str]
) -> dict[int, Doubt]:
    """Predicts photos, and returns {position: what the network does not know}.

    Args:
      network: the trained network.
      items: the photos.
      rare: float [K], from `rarity`.
      failed: gets {position: reason} of the photos that cannot be read, which have no doubt.
    """
    found: dict[int, Doubt] = {}
    sizes = [photo.size for photo in items]
    with contextlib.closing(OpenFrames()) as frames:
        results = predict_stream(network, sizes, lambda i: photos.read(items[i], frames), False)
        for result in tqdm(results, "predictions", len(items), unit="photo"):
            if result.error:
                failed[result.position] = result.error
            else:
                description = describe_segments(result.prediction, network.class_names)
                found[result.position] = doubt_of(description, rare)
    return found
