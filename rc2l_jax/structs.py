"""The few dataclasses that pass between files, and the shape letters every docstring uses.

Shape letters, defined here once:

    B  images (of the device; labelled, unlabelled or both, as the docstring says)
    N  queries                          M  segment slots (`max_segments`, fixed, partly empty)
    K  classes, without no-object       C  embedding width of masks and pixel features
    H, W  image height and width        h, w  height and width of the mask grid (stride 4)
    L  decoder layers, each with a prediction of its own; the last entry is the last layer
"""

from __future__ import annotations

from typing import Any

import flax
import jax
import jax.numpy as jnp

from data.label_values import VOID as VOID  # part of the vocabulary, so it is found here too

# The value of an image's padding, a middle grey (MaskFormer's `MODEL.PIXEL_MEAN`, roughly).
IMAGE_PAD = 128

# Name of the axis over which the step is mapped: every device of every process.
AXIS = "batch"

# Of the coarsest features, res5. Images in a batch are padded to multiples of it.
STRIDE = 32

# Scalars that are averaged once, at report time: (sum, count). See `rc2l_jax.evaluation.confusion`.
Mean = tuple[jax.Array, jax.Array]


@flax.struct.dataclass
class Batch:
    """What the input pipeline hands to one step. Void and padding are both 255 in the labels.

    Attributes:
      image: uint8 [B, H, W, 3], labelled images (RGB, padded with 128).
      label: uint8 [B, H, W], class ids 0..K-1 or 255.
      valid: bool [B, H, W], False on padding.
      unlabeled_image: uint8 [B, H, W, 3], the weak view x^w before colour augmentation.
      unlabeled_valid: bool [B, H, W], False on padding.
      unlabeled_label: uint8 [B, H, W], 255 everywhere unless `data.diagnostic_labels`. It feeds
        metrics and pictures only and never a loss.
    """

    image: jax.Array
    label: jax.Array
    valid: jax.Array
    unlabeled_image: jax.Array
    unlabeled_valid: jax.Array
    unlabeled_label: jax.Array


@flax.struct.dataclass
class Segments:
    """A set of segments {(c_i, m_i)} per image: ground truth z^gt or pseudo labels z^t.

    Segments of one image never overlap. Slots with `valid == False` are empty: whatever they hold
    must not change any result.

    Attributes:
      classes: int32 [B, M], class ids 0..K-1.
      masks: bool [B, M, H, W] (ground truth) or [B, M, h, w] (pseudo segments).
      valid: bool [B, M].
      score: float32 [B, M], the teacher's confidence; 1 for ground truth.
      known: bool, the masks' spatial shape [B, H, W] or [B, h, w]: pixels on which a mask may be
        compared. Padding never is; void only with `ignore_void = False`, and what no pseudo
        segment covers only with `pseudo.uncovered = "negative"`: then as background.
    """

    classes: jax.Array
    masks: jax.Array
    valid: jax.Array
    score: jax.Array
    known: jax.Array


@flax.struct.dataclass
class Predictions:
    """Output of `MaskFormer`, float32.

    Attributes:
      class_logits: [L, B, N, K+1]; the last class is no-object.
      mask_logits: [L, B, N, h, w].
      pixel_features: [B, h, w, C], the pixel decoder's mask features F.
    """

    class_logits: jax.Array
    mask_logits: jax.Array
    pixel_features: jax.Array


@flax.struct.dataclass
class Assignment:
    """The matching sigma: which query was given to which segment slot.

    Attributes:
      query: int32 [..., M], index of the matched query; 0 (and meaningless) where not matched.
      matched: bool [..., M].
    """

    query: jax.Array
    matched: jax.Array


@flax.struct.dataclass
class TrainState:
    """Everything a run is, apart from its config. Every field is present from step 0.

    Attributes:
      step: int32 [], steps done.
      key: the run's base PRNG key; never advanced, always folded with the step.
      params, batch_stats: the student.
      teacher_params, teacher_batch_stats: the EMA teacher (Eq. 4).
      opt_state: of the optimiser, over `params`.
      class_shares: float32 [2, K], moving averages of each class's share of the labelled segments
        and of what the teacher says about unlabelled images (see `class_balance`).
      nonfinite_run: int32 [], how many of the last steps, without a break, were not finite and
        changed nothing.
    """

    step: jax.Array
    key: jax.Array
    params: Any
    batch_stats: Any
    teacher_params: Any
    teacher_batch_stats: Any
    opt_state: Any
    class_shares: jax.Array
    nonfinite_run: jax.Array


def gather_queries(per_query: jax.Array, assignment: Assignment) -> jax.Array:
    """Picks each slot's query: [..., N, *rest] -> [..., M, *rest]."""
    index = assignment.query
    extra = per_query.ndim - index.ndim
    return jnp.take_along_axis(
        per_query, index.reshape(index.shape + (1,) * extra), axis=index.ndim - 1
    )


@flax.struct.dataclass
class EvalView:
    """The images of a batch at one scale.

    Attributes:
      image: uint8 [B, He, We, 3], resized, then padded at the bottom and right, He and We to
        multiples of `STRIDE`.
      size: int32 [B, 2], height and width of the real part of `image`.
    """

    image: jax.Array
    size: jax.Array


@flax.struct.dataclass
class EvalBatch:
    """What the input pipeline hands to evaluation. A split has batches of a few shapes.

    Attributes:
      views: one a scale of `eval.scales`, the same images in each.
      label: uint8 [B, Hl, Wl] at the label's own resolution, padded likewise with 255.
      label_size: int32 [B, 2], height and width of the real part of `label`.
      index: int32 [B], position in the split; -1 for examples that only fill up a batch.
    """

    views: tuple[EvalView, ...]
    label: jax.Array
    label_size: jax.Array
    index: jax.Array


# Of the mask logits. CutMix boxes lie on the mask grid, so that mixed masks are exact.
MASK_STRIDE = 4
