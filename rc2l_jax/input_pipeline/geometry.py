"""Geometric augmentation and evaluation resizing on the host, as TensorFlow ops on one example.

This is MaskFormer's pipeline (`ResizeShortestEdge`, `RandomCrop`, flip, `ColorAugSSDTransform`,
padding) without colours, which `rc2l_jax.method.color` changes on the device. Training decodes and
resizes only what its crop shows, evaluation whole images. Images are resampled with a triangle
filter that widens when it shrinks (Pillow's bilinear), masks by nearest neighbour. Both use
half-pixel centres, so that masks stay aligned with their images.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from data.host_tf import tf
from rc2l_jax.input_pipeline import decode
from rc2l_jax.structs import IMAGE_PAD, VOID

Size = tuple[int, int]
_BLOCK = 64  # rows that `_resample` transposes at a time
_SCALE_STEP = 0.1  # MaskFormer's short edges: 0.5, 0.6, ... 2.0 times the crop size


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How the training view resizes, crops and flips.

    Attributes:
      crop_size: side of the square crop.
      short_edges: the image's short edge is resized to one of these, drawn uniformly.
      max_long_edge: the resized long edge is at most this.
      flip: whether to mirror images with probability 1/2.
    """

    crop_size: int
    short_edges: tuple[int, ...]
    max_long_edge: int
    flip: bool

    @classmethod
    def from_config(cls, data: ConfigDict) -> Geometry:
        """Reads `config.data`.

        Raises:
          ValueError: a size is below 1, or the scales leave no range to draw from.
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


class Crop(NamedTuple):
    """A part of a resized image.

    Attributes:
      resized: int32 [2], height and width of the whole resized image.
      offset: int32 [2], first row and column of the part.
      window: int32 [2], rows and columns of the part.
    """

    resized: tf.Tensor
    offset: tf.Tensor
    window: tf.Tensor


def training_view(
    image: tf.Tensor, label: tf.Tensor, size: tf.Tensor, seed: tf.Tensor, geometry: Geometry
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes, resizes, crops and flips an image and, in the same way, its label.

    Args:
      image: string [], JPEG or PNG; only what the crop shows is decoded and resized.
      label: string [], PNG of class ids; "" for a label that is void everywhere.
      size: int32 [2], height and width of both.
      seed: int64 [2]; the same seed gives the same view.
      geometry: how to resize, crop and flip.

    Returns:
      With S the crop size: image uint8 [S, S, 3] padded with `IMAGE_PAD`, label uint8 [S, S] padded
      with 255, and valid bool [S, S], False on padding. Padding is at the bottom and right.
    """
    shape = (geometry.crop_size, geometry.crop_size)
    crop, mirror = draw_crop(size, seed, geometry)

    def finished(plane: tf.Tensor, padding: int) -> tf.Tensor:
        plane = tf.cond(mirror, lambda: tf.reverse(plane, [1]), lambda: plane)
        return pad_to(plane, shape, padding)

    def seen_label() -> tf.Tensor:
        return finished(resample_label(decode.decode_label(label, size), *crop), VOID)

    def no_label() -> tf.Tensor:
        return tf.fill(shape, tf.constant(VOID, tf.uint8))

    pixels = finished(resample_encoded(image, size, crop), IMAGE_PAD)
    ids = tf.cond(tf.strings.length(label) > 0, seen_label, no_label)
    return pixels, ids, pad_to(tf.ones(crop.window, tf.bool), shape, False)


def draw_crop(size: tf.Tensor, seed: tf.Tensor, geometry: Geometry) -> tuple[Crop, tf.Tensor]:
    """Draws the scale and the place of the crop, and whether to mirror it.

    Args:
      size: int32 [2], height and width of the image.
      seed: int64 [2]; the same seed gives the same crop.
      geometry: what to draw from.

    Returns:
      The crop, and bool [], whether to mirror it.
    """
    draw = tf.random.stateless_uniform([4], seed, alg="philox")
    edges = tf.constant(geometry.short_edges)
    resized = resized_size(size, edges[_below(draw[0], len(edges))], geometry.max_long_edge)
    window = tf.minimum(resized, geometry.crop_size)
    room = resized - window + 1
    offset = tf.stack([_below(draw[1], room[0]), _below(draw[2], room[1])])
    mirror = tf.logical_and(geometry.flip, draw[3] < 0.5)
    return Crop(resized, offset, window), mirror


def resized_size(
    size: tf.Tensor, short_edge: tf.Tensor, max_long_edge: int, scale: float = 1.0
) -> tf.Tensor:
    """The size to which detectron2's `ResizeShortestEdge` resizes an image.

    Args:
      size: int32 [..., 2], height and width.
      short_edge: int32 [], the short edge to resize to; 0 keeps the image's own.
      max_long_edge: the long edge is at most this, for which the short edge gets shorter if needed.
      scale: factor of both `short_edge` and `max_long_edge`.

    Returns:
      int32 [..., 2], each side at least 1.
    """
    extent = tf.cast(size, tf.float64)
    short = tf.reduce_min(extent, -1, keepdims=True)
    long = tf.reduce_max(extent, -1, keepdims=True)
    wanted = tf.cast(short_edge, tf.float64)
    ratio = tf.where(wanted > 0, wanted / short, 1.0)
    ratio = tf.minimum(ratio, max_long_edge / long) * scale
    return tf.maximum(tf.cast(tf.floor(extent * ratio + 0.5), tf.int32), 1)


def resample_encoded(encoded: tf.Tensor, size: tf.Tensor, crop: Crop) -> tf.Tensor:
    """As `resample_image`, for an encoded image: only what the crop needs is decoded.

    Args:
      encoded: string [], JPEG or PNG.
      size: int32 [2], height and width of the image.
      crop: the part of the resized image to return.
    """
    pixels, first, ratio = decode.decode_part(encoded, size, *crop)
    scale = _scale(size, crop.resized) * tf.cast(ratio, tf.float32)
    start = tf.cast(crop.offset, tf.float32) - tf.cast(first, tf.float32) * scale
    return _resample(pixels, scale, start, crop.window)


def resample_image(
    image: tf.Tensor, resized: tf.Tensor, offset: tf.Tensor, window: tf.Tensor
) -> tf.Tensor:
    """A window of an image that is resized; nothing outside of the window is computed.

    Args:
      image: uint8 [H, W, 3].
      resized: int32 [2], height and width of the whole resized image.
      offset: int32 [2], first row and column of the window in the resized image.
      window: int32 [2], rows and columns of the window.

    Returns:
      uint8 [window[0], window[1], 3].
    """
    scale = _scale(tf.shape(image)[:2], resized)
    return _resample(image, scale, tf.cast(offset, tf.float32), window)


def _scale(size: tf.Tensor, resized: tf.Tensor) -> tf.Tensor:
    return tf.cast(resized, tf.float32) / tf.cast(size, tf.float32)


def _resample(image: tf.Tensor, scale: tf.Tensor, start: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Resamples uint8 [h, w, 3] to [*window, 3]; output place r shows place (r + start) / scale.

    The result is that of one `ScaleAndTranslate` of both axes. That op is fast where it adds up
    rows of many values, and slow where it adds up pixels of three values. So both axes are
    resampled as rows: the image is transposed in between, in blocks that stay in the processor's
    cache.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    blocks = -(-window[0] // _BLOCK)
    rows = tf.reshape(image, [1, height, 3 * width])
    rows = _resample_rows(rows, scale[0], start[0], blocks * _BLOCK)
    turned = tf.transpose(tf.reshape(rows, [blocks, _BLOCK, 3 * width]), [0, 2, 1])
    columns = tf.reshape(turned, [blocks, width, 3 * _BLOCK])
    columns = _resample_rows(columns, scale[1], start[1], window[1])
    # The filter's weights are positive and add up to 1, so values stay within 0..255.
    pixels = tf.cast(tf.round(columns), tf.uint8)
    pixels = tf.reshape(pixels, [blocks, 3 * window[1], _BLOCK])
    return tf.reshape(tf.transpose(pixels, [0, 2, 1]), [-1, window[1], 3])[: window[0]]


def _resample_rows(
    images: tf.Tensor, scale: tf.Tensor, start: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
    """Resamples [N, rows, values] to float32 [N, count, values]; rows beyond the images are 0."""
    return tf.raw_ops.ScaleAndTranslate(
        images=images[:, :, None],
        size=tf.stack([count, 1]),
        scale=tf.stack([scale, 1.0]),
        translation=tf.stack([-start, 0.0]),
        kernel_type="triangle",
        antialias=True,
    )[:, :, 0]


def resample_label(
    label: tf.Tensor, resized: tf.Tensor, offset: tf.Tensor, window: tf.Tensor
) -> tf.Tensor:
    """As `resample_image`, for a label map uint8 [H, W] and by nearest neighbour."""
    size = tf.shape(label)
    for axis in (1, 0):
        extent = size[axis]
        centre = tf.cast(tf.range(window[axis]) + offset[axis], tf.float64) + 0.5
        step = tf.cast(extent, tf.float64) / tf.cast(resized[axis], tf.float64)
        source = tf.minimum(tf.cast(tf.floor(centre * step), tf.int32), extent - 1)
        # Transposed, because whole rows are gathered several times as fast as single pixels.
        label = tf.gather(tf.transpose(label), source)
    return label


def pad_to(plane: tf.Tensor, size: tuple[int, int], value: int | bool) -> tf.Tensor:
    """Pads [H, W, ...] with `value` at the bottom and right to a static `size`."""
    height, width = tf.unstack(tf.shape(plane)[:2])
    depth = math.prod(plane.shape[2:])
    # Channels are joined to columns, because `tf.pad` is slow with a short last axis.
    padded = tf.pad(
        tf.reshape(plane, [height, width * depth]),
        [[0, size[0] - height], [0, (size[1] - width) * depth]],
        constant_values=tf.cast(value, plane.dtype),
    )
    return tf.reshape(padded, [*size, *plane.shape[2:]])


def _below(uniform: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Turns a uniform number in [0, 1) into a uniform integer in 0..count-1."""
    count = tf.cast(count, tf.int32)
    return tf.minimum(tf.cast(uniform * tf.cast(count, tf.float32), tf.int32), count - 1)


class Resize(NamedTuple):
    """How an evaluation view resizes images: the arguments of `resized_size` except the size."""

    short_edge: int
    max_long_edge: int
    scale: float

    def __call__(self, size: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Maps image sizes, int [..., 2], to resized sizes, int32 [..., 2]."""
        return resized_size(size, self.short_edge, self.max_long_edge, self.scale)
