"""The few dataclasses that pass between files, and the shape letters every docstring uses.

Shape letters, defined here once:

    B  images on one device: labelled, unlabelled or both, as the docstring says
    N  queries                          M  segment slots (`max_segments`, fixed, partly empty)
    K  classes, without no-object       C  embedding width of masks and pixel features
    H, W  image height and width        h, w  height and width of the mask grid (stride 4)
    L  decoder layers; each makes its own prediction, and inference uses the last one's
"""

from __future__ import annotations

from typing import Any

import flax
import jax
import jax.numpy as jnp

from data.label_values import VOID as VOID  # part of the vocabulary, so it is found here too

# Images are padded with this value, a middle grey (close to MaskFormer's `MODEL.PIXEL_MEAN`).
IMAGE_PAD = 128

# Name of the pmap axis of the training step, which spans all devices of all processes.
AXIS = "batch"

# Stride of the backbone's coarsest features (res5). Images are padded to multiples of it.
STRIDE = 32

# A mean as (sum, count): both are added up over images, devices and steps before the one division.
# See `rc2l_jax.training.averages` for metrics and `weighted_total` in `rc2l_jax.method.objective`
# for losses.
Mean = tuple[jax.Array, jax.Array]


@flax.struct.dataclass
class Batch:
    """What the input pipeline hands to one step. Void and padding are both 255 in the labels.

    The pipeline's arrays have one more axis in front, of this process's D devices; pmap takes it
    off.

    Attributes:
      image: uint8 [B, H, W, 3], labelled images (RGB, padded with `IMAGE_PAD`).
      label: uint8 [B, H, W], class ids 0..K-1 or 255.
      valid: bool [B, H, W], False on padding.
      unlabeled_image: uint8 [B, H, W, 3], the weak view x^w before colour augmentation.
      unlabeled_valid: bool [B, H, W], False on padding.
      unlabeled_label: uint8 [B, H, W], 255 everywhere unless `data.diagnostic_labels`. Only
        metrics and pictures use it, never a loss.
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

    Segments of one image never overlap. Slots with `valid == False` are empty, and what they hold
    must not change any result.

    Attributes:
      classes: int32 [B, M], class ids 0..K-1.
      masks: bool [B, M, H, W] (ground truth) or [B, M, h, w] (pseudo segments).
      valid: bool [B, M].
      score: float32 [B, M], the teacher's confidence; 1 for ground truth.
      known: bool [B, H, W] or [B, h, w], as the masks: the pixels on which masks may be compared.
        Padding is never known. Void is known only with `ignore_void = False`, and a pixel of a
        strong view that no pseudo segment covers only with `pseudo.uncovered = "negative"`; both
        are then outside of every segment.
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
      backbone_features: [B, h', w', D], the backbone's last feature map, without gradient.
    """

    class_logits: jax.Array
    mask_logits: jax.Array
    pixel_features: jax.Array
    backbone_features: jax.Array


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
    """Everything that one training step hands to the next. All fields are present from step 0.

    Attributes:
      step: int32 [], steps done.
      key: the run's base PRNG key. It never changes: every step folds its own number into it.
      params, batch_stats: the student.
      teacher_params, teacher_batch_stats: the EMA teacher (Eq. 4). A frozen backbone is not among
        its parameters, since it has the student's.
      opt_state: the optimiser's state for `params`, also without a frozen backbone.
      class_shares: float32 [2, K], moving averages of each class's share of the labelled segments
        (row 0) and of the teacher's predictions on unlabelled images (row 1); see
        `rc2l_jax.method.class_alignment`.
      class_scores: float32 [2, K], moving averages of the sum of the teacher's scores on the pixels
        at which a class is the best one, and of their number; see
        `rc2l_jax.method.class_thresholds`.
      class_prototypes: float32 [K, D + 2], moving averages of the sum of the labelled segments'
        features, by class, of their number, and of the number of those that were recognised; see
        `rc2l_jax.method.class_prototypes`. Zeros without `pseudo.prototype_check`.
      nonfinite_run: int32 [], number of steps in a row, up to the last one, that were not finite
        and therefore changed nothing.
    """

    step: jax.Array
    key: jax.Array
    params: Any
    batch_stats: Any
    teacher_params: Any
    teacher_batch_stats: Any
    opt_state: Any
    class_shares: jax.Array
    class_scores: jax.Array
    class_prototypes: jax.Array
    nonfinite_run: jax.Array

    @property
    def teacher(self) -> dict[str, Any]:
        """The teacher's variables, whole."""
        params = {**self.params, **self.teacher_params}
        return {"params": params, "batch_stats": self.teacher_batch_stats}


def merge_layers(x: jax.Array) -> jax.Array:
    """[L, B, N, *rest] to [B, L * N, *rest]: each image's queries of all layers, one after another.

    It is also the order in which the network computes mask logits, so that nothing moves in memory.
    """
    layers, images, queries, *rest = x.shape
    return jnp.moveaxis(x, 0, 1).reshape(images, layers * queries, *rest)


def split_layers(x: jax.Array, layers: int) -> jax.Array:
    """The inverse of `merge_layers`: [B, L * N, *rest] to [L, B, N, *rest]."""
    images, merged, *rest = x.shape
    return jnp.moveaxis(x.reshape(images, layers, merged // layers, *rest), 1, 0)


def gather_queries(per_query: jax.Array, assignment: Assignment) -> jax.Array:
    """Picks the values of each slot's matched query: [..., N, *rest] -> [..., M, *rest]."""
    index = assignment.query
    extra = per_query.ndim - index.ndim
    return jnp.take_along_axis(
        per_query, index.reshape(index.shape + (1,) * extra), axis=index.ndim - 1
    )


@flax.struct.dataclass
class EvalView:
    """The images of a batch at one scale.

    Attributes:
      image: uint8 [B, He, We, 3], resized, then padded at the bottom and right so that He and We
        are multiples of `STRIDE`.
      size: int32 [B, 2], height and width of the real part of `image`.
    """

    image: jax.Array
    size: jax.Array


@flax.struct.dataclass
class EvalBatch:
    """What the input pipeline hands to evaluation. The batches of a split have a few shapes.

    The pipeline's arrays have one more axis in front, of this process's D devices.

    Attributes:
      views: one for each of `eval.scales`, all of the same images.
      label: uint8 [B, Hl, Wl] at the labels' own resolution, padded at the bottom and right
        with 255.
      label_size: int32 [B, 2], height and width of the real part of `label`.
      index: int32 [B], position in the split; -1 for examples that only fill up a batch.
    """

    views: tuple[EvalView, ...]
    label: jax.Array
    label_size: jax.Array
    index: jax.Array


# Stride of the mask logits, whose grid (h, w) is the mask grid. CutMix boxes lie on it, so that
# masks are mixed exactly like their images.
MASK_STRIDE = 4
