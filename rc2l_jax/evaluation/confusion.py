"""Confusion matrices, and intersection over union from them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(jax.jit, static_argnames="num_classes")
def confusion_matrix(prediction: jax.Array, label: jax.Array, num_classes: int) -> jax.Array:
    """Counts pixels by true and predicted class.

    Args:
      prediction: integer, any shape, class ids 0..K-1.
      label: integer, the same shape, class ids 0..K-1. Pixels of 255, or of any other id, are not
        counted.
      num_classes: K.

    Returns:
      int32 [K, K], rows are true classes, columns predicted ones. Each count must stay below 2^31.

    Raises:
      ValueError: the two shapes differ.
    """
    if prediction.shape != label.shape:
        raise ValueError(f"prediction {prediction.shape} and label {label.shape} differ in shape")
    prediction = prediction.astype(jnp.int32).ravel()
    label = label.astype(jnp.int32).ravel()
    cells = num_classes * num_classes
    counted = (label < num_classes) & (prediction < num_classes) & (label >= 0) & (prediction >= 0)
    # Pixels that are not counted go to a cell past the end, which the scatter drops.
    cell = jnp.where(counted, label * num_classes + prediction, cells)
    counts = jnp.zeros(cells, jnp.int32).at[cell].add(1, mode="drop")
    return counts.reshape(num_classes, num_classes)


def iou(confusion: np.ndarray) -> tuple[float, np.ndarray]:
    """Intersection over union of every class, and its mean.

    Args:
      confusion: integer [K, K], rows are true classes, columns predicted ones.

    Returns:
      The mean over the classes that occur in label or prediction (NaN if none does), and each
      class's IoU, float64 [K] (NaN if it occurs in neither).
    """
    confusion = np.asarray(confusion, np.float64)
    intersection = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    per_class = np.full(len(confusion), np.nan)
    np.divide(intersection, union, out=per_class, where=union > 0)
    mean = float(per_class[union > 0].mean()) if (union > 0).any() else float("nan")
    return mean, per_class


def image_miou(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> float:
    """The mean IoU of one image, over the classes that its label or its prediction shows.

    Args:
      label: integer [H, W], class ids 0..K-1; pixels of 255 are not counted.
      prediction: integer [H, W], class ids 0..K-1.
      num_classes: K.

    Returns:
      The mean; NaN if no pixel is annotated.
    """
    known = label < num_classes
    cell = label[known].astype(np.int64) * num_classes + prediction[known]
    counts = np.bincount(cell, minlength=num_classes**2)
    return iou(counts.reshape(num_classes, num_classes))[0]
