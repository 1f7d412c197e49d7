"""Chooses photos that differ from each other, and from those that are labelled already.

Photos are divided by k-means into as many clusters as are asked for, and the photo nearest to each
centre stands for its cluster. With weights, clusters form where photos weigh most, as in CLUE
(Prabhu et al., ICCV 2021, arXiv 2010.08666), where the weight is a photo's uncertainty. Here it is
also the squared distance to the nearest labelled photo, in proportion to which k-means++ (Arthur
and Vassilvitskii, SODA 2007) draws its next centre.
"""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Iterator

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin, pairwise_distances_argmin_min
from threadpoolctl import threadpool_limits

# Photos count as near-duplicates if the cosine of their features, less the mean, is at least this.
# With EfficientNet-Lite0 nine of ten copies of VOC's photos reach it (saved again as a JPEG of
# quality 40, halved, or cut by a 50th), and none of two million pairs of different ones (at most
# 0.93). Of CamVid's neighbouring frames, a second apart, one in a hundred does.
NEAR_DUPLICATE = 0.95
_STARTS = 4  # k-means keeps the best of this many
_LEAST = 1e-6  # of the largest weight: k-means needs some weight on every photo
_NOISE = 1e-3  # features that differ less from the mean, as a share of its length, are the same


@threadpool_limits.wrap(limits=1)  # the same choice on any number of cores, and no waiting for them
def choose(
    features: np.ndarray,
    count: int,
    seed: int,
    weights: np.ndarray | None = None,
    labeled: np.ndarray | None = None,
) -> np.ndarray:
    """Chooses photos.

    Args:
      features: float [N, C].
      count: how many to choose.
      seed: of k-means.
      weights: float [N], how useful each photo is by itself, at least 0; None for all alike.
      labeled: float [L, C], of the photos that are labelled already.

    Returns:
      int64 [n], positions in the order in which to label them. They are fewer than `count` if all
      others are near-duplicates of one of them or of a labelled photo.
    """
    if not len(features):
        return np.zeros(0, np.int64)
    center = features.mean(0)
    points = directions(features, center)
    weights = np.ones(len(points)) if weights is None else np.asarray(weights, np.float64)
    distance = np.ones(len(points))  # to the nearest photo that is labelled, or to be labelled
    free = np.ones(len(points), bool)
    if labeled is not None and len(labeled):
        known = directions(labeled, center)
        distance, free = _nearest(points, known), ~are_near(points, known)
    of_free = np.flatnonzero(free)
    pull = (weights * distance**2)[of_free]
    chosen: list[int] = []

    def take(position: int) -> None:
        chosen.append(position)
        distance[:] = np.minimum(distance, _nearest(points, points[[position]]))
        free[are_near(points, points[[position]])] = False
        free[position] = False

    for members in _clusters(points[of_free], pull, count, seed):
        if left := [i for i in of_free[members] if free[i]]:
            take(left[0])
    while len(chosen) < count and free.any():  # where a cluster was all near-duplicates
        take(int(np.where(free, weights * distance**2, -1.0).argmax()))
    return np.array(chosen, np.int64)


def directions(features: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Returns how features [N, C] differ from the photos' mean [C], as vectors of length 1.

    So photos of one kind, such as frames of one camera, are told apart by what differs there.
    """
    apart = features - center
    length = np.linalg.norm(apart, axis=1, keepdims=True)
    least = max(_NOISE * float(np.linalg.norm(center)), np.finfo(np.float32).tiny)
    return apart / np.maximum(length, least)


def stands_for(points: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Returns for each chosen position to how many points it is the nearest, itself included."""
    owner = pairwise_distances_argmin(points, points[chosen])
    return np.bincount(owner, minlength=len(chosen))


def similarity(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns each point's largest cosine with the others, float [N]; both from `directions`."""
    return 1 - _nearest(points, others) ** 2 / 2


def are_near(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns which points are near-duplicates of any of the others, bool [N]."""
    if not (len(points) and len(others)):
        return np.zeros(len(points), bool)
    return similarity(points, others) >= NEAR_DUPLICATE


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns each point's distance to the nearest of the others, float [N]."""
    return pairwise_distances_argmin_min(points, others)[1]


def _clusters(
    points: np.ndarray, weights: np.ndarray, count: int, seed: int
) -> Iterator[np.ndarray]:
    """Yields the members of each cluster, nearest to its centre first; the heaviest cluster first.

    Args:
      points: float [N, C].
      weights: float [N].
      count: how many clusters.
      seed: of k-means.
    """
    if not len(points):
        return
    weights = np.maximum(weights, _LEAST * weights.max()) if weights.max() > 0 else weights + 1
    means = KMeans(min(count, len(points)), n_init=_STARTS, random_state=seed)
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore", ConvergenceWarning)  # of copies of one photo
        means.fit(points, sample_weight=weights)
    far = np.linalg.norm(points - means.cluster_centers_[means.labels_], axis=1)
    heavy = np.bincount(means.labels_, weights)
    for cluster in np.argsort(-heavy, kind="stable"):
        members = np.flatnonzero(means.labels_ == cluster)
        yield members[np.argsort(far[members], kind="stable")]
