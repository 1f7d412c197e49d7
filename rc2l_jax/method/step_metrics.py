"""What a step reports besides its losses: how good the pseudo labels are, what was not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rc2l_jax.structs import Mean, Segments

NONFINITE = "nonfinite/"  # prefix of the metrics that say how often a term was not finite


def pseudo_label_metrics(
    segments: Segments, label: jax.Array, valid: jax.Array, *, num_classes: int
) -> dict[str, Mean]:
    """Pseudo segments of the weak views beside the ground truth, where the data set has it.

    Args:
      segments: masks [B, M, h, w].
      label: uint8 [B, h, w], 255 where there is no ground truth. It is used for nothing else.
      valid: bool [B, h, w], False on padding.
      num_classes: K.

    Returns:
      Means of: "pseudo/segments" an image; "pseudo/coverage", the share of pixels covered;
      "pseudo/score", the teacher's confidence in a segment; "pseudo/accuracy", the share of
      segments whose class is the most frequent one under their mask; "pseudo/pixel_accuracy",
      the share of covered pixels whose class is right.
    """
    masks = jnp.where(segments.valid[:, :, None, None], segments.masks, False)
    one_hot = jax.nn.one_hot(label, num_classes)  # void and padding are in no class
    votes = jnp.einsum("bmhw,bhwk->bmk", masks.astype(jnp.float32), one_hot)
    judged = segments.valid & (votes.sum(-1) > 0)
    classes = jnp.where(segments.valid, segments.classes, 0)
    right = judged & (votes.argmax(-1) == classes)
    right_pixels = jnp.take_along_axis(votes, classes[..., None], axis=-1)
    return {
        "pseudo/segments": (segments.valid.sum(), segments.valid.shape[0]),
        "pseudo/coverage": ((masks.any(1) & valid).sum(), valid.sum()),
        "pseudo/score": (jnp.where(segments.valid, segments.score, 0).sum(), segments.valid.sum()),
        "pseudo/accuracy": (right.sum(), judged.sum()),
        "pseudo/pixel_accuracy": (right_pixels.sum(), votes.sum()),
    }


def nonfinite_terms(losses: Mapping[str, Mean], grads: Mapping[str, Any]) -> dict[str, Mean]:
    """Which loss terms, and the gradients of which modules, are not finite.

    Args:
      losses: {"loss/...": (sum, count)}.
      grads: a tree by module: {"backbone": ..., "class_head": ...}.

    Returns:
      {"nonfinite/" + name: (1 or 0, 1)}, of every "loss/..." and every "grad/<module>".
    """
    values = {name: total for name, (total, _) in losses.items()}
    values |= {f"grad/{module}": optax.global_norm(tree) for module, tree in grads.items()}
    broken = {name: jnp.float32(~jnp.isfinite(value)) for name, value in values.items()}
    return {f"{NONFINITE}{name}": (value, jnp.ones(())) for name, value in broken.items()}
