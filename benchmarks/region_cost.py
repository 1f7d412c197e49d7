"""RC²L's four losses and a pixel-contrast loss on the same feature map, for `memory.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rc2l_jax.method.losses import region
from rc2l_jax.structs import Assignment, Segments, gather_queries

QUERIES, SLOTS, CLASSES, CHANNELS = 50, 21, 21, 256
ANCHORS = 1024
TEMPERATURE = 0.5

Values = dict[str, Any]


def problem(name: str, side: int) -> tuple[Callable[[Values], jax.Array], Values]:
    """A loss and the values to differentiate it by, for one image on a `side` x `side` grid.

    Args:
      name: "region", "sampled" or "dense".
      side: h and w.

    Returns:
      The loss, as a function of the values {"class_logits" [1, N, K+1], "mask_logits" [1, N, h, w],
      "features" [1, h, w, C]}, and the values. The grid has 8 x 8 blocks, each in one segment.
    """
    rng = np.random.default_rng(0)
    values = {
        "class_logits": rng.standard_normal((1, QUERIES, CLASSES + 1), np.float32),
        "mask_logits": rng.standard_normal((1, QUERIES, side, side), np.float32),
        "features": rng.standard_normal((1, side, side, CHANNELS), np.float32),
    }
    # Every slot has some of the blocks, and every block belongs to one slot.
    owner = np.resize(rng.permutation(SLOTS), (8, 8)).repeat(side // 8, 0).repeat(side // 8, 1)
    if name == "region":
        return lambda values: region_losses(values, owner), values
    anchors = None
    if name == "sampled":
        anchors = rng.permutation(side * side)[:ANCHORS]
    return lambda values: pixel_contrast(values["features"], owner, anchors), values


def region_losses(values: Values, owner: np.ndarray) -> jax.Array:
    """RCC + SMC + RMC + RFC of one layer, without their weights.

    Args:
      values: class logits, mask logits and features, as `problem` returns them.
      owner: [h, w], slot of each pixel.
    """
    segments = Segments(
        classes=jnp.arange(SLOTS)[None],
        masks=jnp.asarray(owner == np.arange(SLOTS)[:, None, None])[None],
        valid=jnp.ones((1, SLOTS), bool),
        score=jnp.ones((1, SLOTS)),
        known=jnp.ones((1, *owner.shape), bool),
    )
    matched = Assignment(query=segments.classes, matched=segments.valid)
    classes, masks, features = (values[k] for k in ("class_logits", "mask_logits", "features"))
    of_matched = gather_queries(masks, matched)
    contrast = {"temperature": TEMPERATURE, "denominator": "with_positive"}
    focal = {"focal_weight": 1.0, "dice_weight": 0.05, "focal_alpha": 0.25, "focal_gamma": 2.0}
    terms = (
        region.region_class_consistency(classes, masks, segments, matched, no_object_weight=0.1),
        region.semantic_mask_consistency(classes, masks, segments, union="normalized", **focal),
        region.region_mask_contrast(of_matched, segments, matched, **contrast),
        region.region_feature_contrast(of_matched, features, segments, matched, **contrast),
    )
    return sum(total / count for total, count in terms)


def pixel_contrast(
    features: jax.Array, pseudo_label: np.ndarray, anchors: np.ndarray | None
) -> jax.Array:
    """Supervised InfoNCE from pixel to pixel, the form that pixel-contrast methods share.

    For an anchor, the mean over its positives (other pixels of its pseudo label) of
    -log(exp(s+) / sum over all other pixels of exp(s)), s the cosine over the temperature.

    Args:
      features: float32 [1, h, w, C].
      pseudo_label: [h, w].
      anchors: indices of the pixels that are anchors; None for all of them.

    Returns:
      The mean over the anchors, float32 [].
    """
    pixels = features.reshape(-1, features.shape[-1])
    pixels = pixels * jax.lax.rsqrt((pixels * pixels).sum(-1, keepdims=True) + 1e-12)
    labels = jnp.asarray(pseudo_label.reshape(-1))
    index = jnp.arange(len(pixels)) if anchors is None else jnp.asarray(anchors)
    similarity = pixels[index] @ pixels.T / TEMPERATURE  # [anchors, P]
    other = index[:, None] != jnp.arange(len(pixels))
    positive = other & (labels[index][:, None] == labels)
    log_share = similarity - jax.nn.logsumexp(similarity, axis=1, where=other, keepdims=True)
    mean = jnp.where(positive, log_share, 0.0).sum(1) / jnp.maximum(positive.sum(1), 1)
    return -mean.mean()
