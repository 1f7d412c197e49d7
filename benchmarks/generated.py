"""Batches of generated images for benchmarks: no data set, no TensorFlow."""

from __future__ import annotations

import numpy as np

from data.shapes import drawing
from rc2l_jax.structs import Batch, EvalBatch, EvalView


def generated_batch(size: int, labeled: int = 1, unlabeled: int = 1) -> Batch:
    """A batch of drawn images for one device, [1, B, ...]; the unlabelled images have labels, too.

    A few drawings are repeated, as a step's cost does not depend on what they show.
    """
    drawn = [drawing.draw(0, "train", i, size) for i in range(min(labeled + unlabeled, 4))]

    def pick(part: int, count: int, start: int) -> np.ndarray:
        return np.stack([drawn[(start + i) % len(drawn)][part] for i in range(count)])[None]

    empty = np.zeros((1, 0, size, size), np.uint8)
    other_images, other_labels = empty[..., None].repeat(3, -1), empty
    if unlabeled:
        other_images, other_labels = (pick(part, unlabeled, labeled) for part in (0, 1))
    return Batch(
        image=pick(0, labeled, 0),
        label=pick(1, labeled, 0),
        valid=np.ones((1, labeled, size, size), bool),
        unlabeled_image=other_images,
        unlabeled_valid=np.ones((1, unlabeled, size, size), bool),
        unlabeled_label=other_labels,
    )


def generated_eval_batch(size: int, images: int) -> EvalBatch:
    """A batch of drawn images to evaluate on, for one device and at one scale: [1, B, ...]."""
    drawn = generated_batch(size, images, 0)
    sizes = np.full((1, images, 2), size, np.int32)
    return EvalBatch(
        views=(EvalView(drawn.image, sizes),),
        label=drawn.label,
        label_size=sizes,
        index=np.arange(images, dtype=np.int32)[None],
    )
