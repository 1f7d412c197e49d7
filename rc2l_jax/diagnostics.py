"""What a step reports besides its losses, above all how good the pseudo labels are."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.structs import Mean, Segments


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
