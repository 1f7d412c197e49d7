"""Labelled images of rare classes are drawn more often: repeat-factor sampling.

An image is drawn max(1, sqrt(t / f)) times as often as one of frequent classes only, where f is the
share of labelled images that show its rarest class and t is `data.class_sampling`. The rule is that
of LVIS (Gupta et al., arXiv 1908.03195, section 5.1; detectron2's RepeatFactorTrainingSampler).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from data import masks
from data.dataset import Dataset
from data.errors import DataError
from data.splits import Key
from rc2l_jax.structs import VOID

_CHUNK = 64  # masks in memory at a time
# An epoch holds an image this many times its repeat factor, rounded to a whole number.
_PARTS = 4


def pixel_counts(dataset: Dataset, keys: Sequence[Key]) -> Iterator[np.ndarray]:
    """Yields each mask's number of pixels of each id, int64 [256]; 255 is void."""
    for start in range(0, len(keys), _CHUNK):
        _, encoded = dataset.fetch(keys[start : start + _CHUNK], labels=True)
        for mask in encoded:
            yield np.bincount(masks.decode_mask(mask).ravel(), minlength=256)


def repeat_factors(shown: np.ndarray, threshold: float) -> np.ndarray:
    """How often each image is drawn, float64 [N], at least 1.

    Args:
      shown: bool [N, K], whether an image shows a class.
      threshold: t; classes that a larger share of the images shows are not repeated.
    """
    share = np.maximum(shown.mean(axis=0), 1.0 / len(shown))
    of_class = np.maximum(1.0, np.sqrt(threshold / share))
    return np.where(shown, of_class, 1.0).max(axis=1)


def repeated(dataset: Dataset, keys: Sequence[Key], threshold: float) -> tuple[Key, ...]:
    """The keys of an epoch in which images of rare classes come more often.

    Args:
      dataset: the keys' data set.
      keys: labelled images, each once. Their masks are read, once.
      threshold: t. With 0, and if no class is rarer, each key comes once, as it was given.
    """
    if not threshold:
        return tuple(keys)
    shown = np.stack([_classes_shown(dataset, key) for key in keys])
    times = np.rint(_PARTS * repeat_factors(shown, threshold)).astype(int)
    if (times == _PARTS).all():
        return tuple(keys)
    return tuple(key for key, number in zip(keys, times) for _ in range(number))


def _classes_shown(dataset: Dataset, key: Key) -> np.ndarray:
    """Which classes a mask shows, bool [255]; none if it broke after it was prepared.

    What becomes of an image that broke is decided where it is trained on (`bad_examples`).
    """
    try:
        (counts,) = pixel_counts(dataset, [key])
    except (DataError, OSError, ValueError, SyntaxError):  # Pillow raises the last three
        return np.zeros(VOID, bool)
    return counts[:VOID] > 0
