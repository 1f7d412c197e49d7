"""A second opinion on pseudo segments: do they look like the labelled segments of their class?

A teacher of few labels names many objects wrongly, and is sure of it; what it names wrongly it
learns again. So each class has a prototype, the mean of the backbone's last features over its
labelled segments, and a pseudo segment is kept only if no other class's prototype is nearer to it
than its own class's. ProDA weighs pseudo labels by prototypes, too (arXiv 2101.10979, Eq. 4), but
takes these from the pseudo labels. Here they come from ground truth alone, so that no error of the
teacher gets into them. The paper has no such check.

Some classes have no look of their own, such as a background. A class is judged only if most of its
labelled segments are nearest to its prototype themselves.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.structs import Segments

_EPSILON = 1e-6


def prototype_sums(features: jax.Array, truth: Segments, prototypes: jax.Array) -> jax.Array:
    """What the labelled images of one step add to `TrainState.class_prototypes`.

    Args:
      features: float32 [B, h', w', D], `Predictions.backbone_features`.
      truth: segments of the ground truth, with masks [B, M, H, W].
      prototypes: float32 [K, D + 2] (`TrainState.class_prototypes`).

    Returns:
      Float32 [K, D + 2], for each class: the sum of its segments' mean features, their number, and
      the number of those that are nearest to its prototype.
    """
    pooled, usable = _mean_features(features, truth)
    recognised = _nearest_class(pooled, prototypes) == truth.classes
    rows = jnp.concatenate(
        [pooled, jnp.ones_like(pooled[..., :1]), recognised[..., None].astype(jnp.float32)], -1
    )
    of_class = jax.nn.one_hot(truth.classes, len(prototypes)) * usable[..., None]
    return jnp.einsum("bmk,bmd->kd", of_class, rows, precision=jax.lax.Precision.HIGHEST)


def confirmed(features: jax.Array, segments: Segments, prototypes: jax.Array) -> jax.Array:
    """Which pseudo segments look like their class: bool [B, M].

    Args:
      features: float32 [B, h', w', D], `Predictions.backbone_features` of the teacher.
      segments: its pseudo segments, with masks [B, M, h, w].
      prototypes: float32 [K, D + 2] (`TrainState.class_prototypes`).

    Returns:
      True where the nearest prototype is the segment's class's, and for classes that are not
      judged: those of which no labelled segment was seen, or half of them or fewer recognised.
    """
    pooled, _ = _mean_features(features, segments)
    count, recognised = prototypes[:, -2], prototypes[:, -1]
    judged = recognised > 0.5 * count
    return (_nearest_class(pooled, prototypes) == segments.classes) | ~judged[segments.classes]


def keep_segments(segments: Segments, which: jax.Array) -> Segments:
    """The segments without those for which `which`, bool [B, M], is False."""
    masks = segments.masks & which[:, :, None, None]
    return segments.replace(valid=segments.valid & which, masks=masks)


def _mean_features(features: jax.Array, segments: Segments) -> tuple[jax.Array, jax.Array]:
    """Each segment's mean features [B, M, D], and whether it has any pixel, bool [B, M].

    A cell of the feature map counts by how much of the mask lies within a cell's width of its
    centre, near pixels more than far ones.
    """
    masks = segments.masks & segments.valid[:, :, None, None]
    shape = (*masks.shape[:2], *features.shape[1:3])
    cells = jax.image.resize(masks.astype(jnp.float32), shape, "linear", antialias=True)
    total = jnp.einsum("bmhw,bhwd->bmd", cells, features, precision=jax.lax.Precision.HIGHEST)
    area = cells.sum((2, 3))
    return total / jnp.maximum(area, _EPSILON)[..., None], masks.any((2, 3))


def _nearest_class(pooled: jax.Array, prototypes: jax.Array) -> jax.Array:
    """The class whose prototype has the largest cosine with the features, int32 [B, M].

    -1 if there is no prototype so far.
    """
    sums, count = prototypes[:, :-2], prototypes[:, -2]
    # Sum and count of a class that was not seen for long are small, and their ratio is not.
    mean = sums / jnp.where(count > 0, count, 1.0)[:, None]
    unit = mean / jnp.maximum(jnp.linalg.norm(mean, axis=1, keepdims=True), _EPSILON)
    cosine = jnp.einsum("bmd,kd->bmk", pooled, unit, precision=jax.lax.Precision.HIGHEST)
    nearest = jnp.where(count > 0, cosine, -jnp.inf).argmax(-1)
    return jnp.where((count > 0).any(), nearest, -1)
