"""Geometric augmentation and evaluation resizing on the host, as TensorFlow ops on one example.

MaskFormer's pipeline (`ResizeShortestEdge`, `RandomCrop`, flip, `ColorAugSSDTransform`, padding)
without the colour, which `rc2l_jax.augment` does on the device. Images are resampled with a
triangle filter that widens when shrinking (what Pillow calls bilinear), masks by nearest neighbour;
both use half-pixel centres, so a mask pixel's centre and its image pixel's centre stay together.
"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from data.host_tf import tf

IMAGE_PAD = 128
VOID = 255
_SCALE_STEP = 0.1  # MaskFormer's short edges: 0.5, 0.6, ... 2.0 times the crop size


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Sizes and chances of the training view.

    Attributes:
      crop_size: side of the square crop.
      short_edges: the image's short edge is resized to one of these, drawn uniformly.
      max_long_edge: the resized long edge is at most this.
      flip: mirror every second image.
    """

    crop_size: int
    short_edges: tuple[int, ...]
    max_long_edge: int
    flip: bool

    @classmethod
    def from_config(cls, data: ConfigDict) -> Geometry:
        """Reads `config.data`.

        Raises:
          ValueError: a size or scale that leaves nothing to draw from.
        """
        if data.crop_size < 1 or data.max_long_edge < 1:
            raise ValueError("config.data.crop_size and max_long_edge must be at least 1.")
        if not 0 < data.min_scale <= data.max_scale:
            raise ValueError(
                f"config.data.min_scale = {data.min_scale} and max_scale = {data.max_scale}: "
                "need 0 < min_scale <= max_scale."
            )
        steps = int((data.max_scale - data.min_scale) / _SCALE_STEP + 1e-6)
        edges = [int((data.min_scale + _SCALE_STEP * i) * data.crop_size) for i in range(steps + 1)]
        return cls(
            crop_size=data.crop_size,
            short_edges=tuple(max(edge, 1) for edge in edges),
            max_long_edge=data.max_long_edge,
            flip=data.flip,
        )


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Encoded JPEG or PNG -> uint8 [H, W, 3]."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def decode_label(encoded: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """PNG of class ids -> uint8 [H, W]; an empty string gives `size` pixels of void."""
    return tf.cond(
        tf.strings.length(encoded) > 0,
        lambda: tf.io.decode_png(encoded, channels=1)[..., 0],
        lambda: tf.fill(size, tf.constant(VOID, tf.uint8)),
    )


def training_view(
    image: tf.Tensor, label: tf.Tensor, seed: tf.Tensor, geometry: Geometry
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Resizes, crops, flips and pads an image and its label alike.

    Args:
      image: uint8 [H, W, 3].
      label: uint8 [H, W].
      seed: int64 [2]; the same seed gives the same view.
      geometry: sizes and chances.

    Returns:
      image uint8 [S, S, 3] padded with 128, label uint8 [S, S] padded with 255 and valid bool
      [S, S], False on padding, with S the crop size. Padding is at the bottom and right.
    """
    crop = geometry.crop_size
    draw = tf.random.stateless_uniform([4], seed, alg="philox")
    size = tf.shape(label)
    edges = tf.constant(geometry.short_edges)
    resized = resized_size(size, edges[_below(draw[0], len(edges))], geometry.max_long_edge)
    window = tf.minimum(resized, crop)
    room = resized - window + 1
    offset = tf.stack([_below(draw[1], room[0]), _below(draw[2], room[1])])
    image = resample_image(image, resized, offset, window)
    label = resample_label(label, resized, offset, window)
    if geometry.flip:
        mirror = draw[3] < 0.5
        image = tf.cond(mirror, lambda: tf.reverse(image, [1]), lambda: image)
        label = tf.cond(mirror, lambda: tf.reverse(label, [1]), lambda: label)
    valid = pad_to(tf.ones(window, tf.bool), (crop, crop), False)
    return pad_to(image, (crop, crop), IMAGE_PAD), pad_to(label, (crop, crop), VOID), valid


def resized_size(
    size: tf.Tensor, short_edge: tf.Tensor, max_long_edge: int, scale: float = 1.0
) -> tf.Tensor:
    """detectron2's `ResizeShortestEdge`.

    Args:
      size: int32 [..., 2], height and width.
      short_edge: int32 [], wanted; 0 keeps the size.
      max_long_edge: the long edge is at most this, even if the short edge gets shorter for it.
      scale: factor of the wanted short edge and of the long edge's limit.

    Returns:
      int32 [..., 2], at least 1.
    """
    extent = tf.cast(size, tf.float64)
    short = tf.reduce_min(extent, -1, keepdims=True)
    long = tf.reduce_max(extent, -1, keepdims=True)
    wanted = tf.cast(short_edge, tf.float64)
    ratio = tf.where(wanted > 0, wanted / short, 1.0)
    ratio = tf.minimum(ratio, max_long_edge / long) * scale
    return tf.maximum(tf.cast(tf.floor(extent * ratio + 0.5), tf.int32), 1)


def resample_image(
    image: tf.Tensor, resized: tf.Tensor, offset: tf.Tensor, window: tf.Tensor
) -> tf.Tensor:
    """The part `window` at `offset` of the image resized to `resized`, and no other part.

    Args:
      image: uint8 [H, W, 3].
      resized, offset, window: int32 [2], rows and columns.

    Returns:
      uint8 [window[0], window[1], 3].
    """
    scale = tf.cast(resized, tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32)
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=window,
        scale=scale,
        translation=-tf.cast(offset, tf.float32),
        kernel_type="triangle",
        antialias=True,
    )[0]
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)


def resample_label(
    label: tf.Tensor, resized: tf.Tensor, offset: tf.Tensor, window: tf.Tensor
) -> tf.Tensor:
    """As `resample_image` for uint8 [H, W], by nearest neighbour."""
    for axis in (0, 1):
        extent = tf.shape(label)[axis]
        centre = tf.cast(tf.range(window[axis]) + offset[axis], tf.float64) + 0.5
        step = tf.cast(extent, tf.float64) / tf.cast(resized[axis], tf.float64)
        source = tf.minimum(tf.cast(tf.floor(centre * step), tf.int32), extent - 1)
        label = tf.gather(label, source, axis=axis)
    return label


def pad_to(plane: tf.Tensor, size: tuple[int, int], value: int | bool) -> tf.Tensor:
    """Pads [H, W, ...] at the bottom and right to a static `size`."""
    missing = [[0, size[axis] - tf.shape(plane)[axis]] for axis in (0, 1)]
    paddings = missing + [[0, 0]] * (plane.shape.rank - 2)
    padded = tf.pad(plane, paddings, constant_values=tf.cast(value, plane.dtype))
    return tf.ensure_shape(padded, [*size, *plane.shape[2:]])


def _below(uniform: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """A uniform number in [0, 1) -> an integer in 0..count-1."""
    count = tf.cast(count, tf.int32)
    return tf.minimum(tf.cast(uniform * tf.cast(count, tf.float32), tf.int32), count - 1)
