"""Confusion matrices, and what is measured from them: IoU, Dice (F1), precision and recall."""

from __future__ import annotations

import functools
from typing import NamedTuple

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


class Measures(NamedTuple):
    """What is measured of each class: float64 [K], NaN of a class in neither label nor prediction.

    A class that occurs in one of them only has 0 in all of them, 0 / 0 included (as scikit-learn
    has it with `zero_division=0`), so that every mean is over the same classes.

    Attributes:
      iou: intersection over union.
      dice_f1: twice the intersection, over the sum of both areas. This is the F1 score as well.
      precision: the share of the predicted pixels that are right.
      recall: the share of the true pixels that are found; some call it the class's accuracy.
    """

    iou: np.ndarray
    dice_f1: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


def measure(confusion: np.ndarray) -> Measures:
    """Measures each class.

    Args:
      confusion: integer [K, K], rows are true classes, columns predicted ones.
    """
    confusion = np.asarray(confusion, np.float64)
    right, predicted, true = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    occurs = predicted + true > 0

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.where(occurs, 0.0, np.nan), where=whole > 0)

    return Measures(
        iou=share(right, predicted + true - right),
        dice_f1=share(2 * right, predicted + true),
        precision=share(right, predicted),
        recall=share(right, true),
    )


def mean_of(values: np.ndarray) -> float:
    """Returns the mean over the classes that occur; NaN if none does."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def iou(confusion: np.ndarray) -> tuple[float, np.ndarray]:
    """Intersection over union of every class, and its mean.

    Args:
      confusion: integer [K, K], rows are true classes, columns predicted ones.

    Returns:
      The mean over the classes that occur in label or prediction (NaN if none does), and each
      class's IoU, float64 [K] (NaN if it occurs in neither).
    """
    per_class = measure(confusion).iou
    return mean_of(per_class), per_class


def image_confusion(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts the pixels of one image in NumPy, which compiles nothing for its size.

    Args:
      label: integer [H, W], class ids 0..K-1; pixels of 255 are not counted.
      prediction: integer [H, W], class ids 0..K-1.
      num_classes: K.

    Returns:
      int64 [K, K], as `confusion_matrix`.
    """
    known = label < num_classes
    cell = label[known].astype(np.int64) * num_classes + prediction[known]
    counts = np.bincount(cell, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def image_miou(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> float:
    """The mean IoU of one image, over the classes that its label or its prediction shows.

    Arguments as for `image_confusion`. NaN if no pixel is annotated.
    """
    return iou(image_confusion(label, prediction, num_classes))[0]
