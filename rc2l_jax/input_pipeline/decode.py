"""Decodes images and masks on the host: whole, or only the part that a view shows."""

from __future__ import annotations

from data.host_tf import tf
from rc2l_jax.structs import VOID

_RATIOS = (1, 2, 4, 8)  # factors by which a JPEG decoder can shrink an image while it decodes
# Pixels decoded beyond those that are needed. A JPEG's chroma planes have half the size and are
# interpolated between neighbours, which are missing at the edge of what is decoded.
_MARGIN = 2


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG or PNG to uint8 [H, W, 3]."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def decode_label(encoded: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG of class ids to uint8 [H, W]; an empty string gives `size` pixels of void.

    Raises:
      tf.errors.InvalidArgumentError: the PNG has another size.
    """

    def decoded() -> tf.Tensor:
        ids = tf.io.decode_png(encoded, channels=1)[..., 0]
        return with_size(ids, tf.shape(ids), size)

    def void() -> tf.Tensor:
        return tf.fill(size, tf.constant(VOID, tf.uint8))

    return tf.cond(tf.strings.length(encoded) > 0, decoded, void)


def with_size(value: tf.Tensor, found: tf.Tensor, expected: tf.Tensor) -> tf.Tensor:
    """Returns `value`, but fails if two sizes, int32 [2], differ.

    A crop that was drawn for a wrong size may still lie inside the image. Without this check image
    and mask could silently show different parts.

    Raises:
      tf.errors.InvalidArgumentError: the sizes differ.
    """
    message = "another height and width than when it was prepared"
    same = tf.reduce_all(tf.equal(found, expected))
    with tf.control_dependencies([tf.debugging.Assert(same, [message])]):
        return tf.identity(value)


def decode_part(
    encoded: tf.Tensor, size: tf.Tensor, resized: tf.Tensor, offset: tf.Tensor, window: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes the part of an image from which a window of the resized image is computed.

    If the resizing shrinks a JPEG by 2, 4 or 8 or more, the decoder already shrinks it by that
    factor, and the caller does the rest. Other formats are decoded whole and cut.

    Args:
      encoded: string [], JPEG or PNG.
      size: int32 [2], height and width of the image.
      resized: int32 [2], height and width of the whole resized image.
      offset: int32 [2], first row and column of the window in the resized image.
      window: int32 [2], rows and columns of the window.

    Returns:
      Pixels uint8 [h, w, 3]; int32 [2], their first row and column in the image as the decoder
      shrinks it; and int32 [], the factor by which it does.
    """
    is_jpeg = tf.io.is_jpeg(encoded)
    step = tf.cast(size, tf.float64) / tf.cast(resized, tf.float64)
    shrink = tf.reduce_min(step)
    level = tf.reduce_sum(tf.cast(shrink >= tf.constant(_RATIOS[1:], tf.float64), tf.int32))
    level = tf.where(is_jpeg, level, 0)
    ratio = tf.constant(_RATIOS)[level]
    step /= tf.cast(ratio, tf.float64)
    reach = tf.maximum(step, 1) + _MARGIN  # of the triangle filter, in decoded pixels
    first = tf.floor(tf.cast(offset, tf.float64) * step - reach)
    first = tf.maximum(tf.cast(first, tf.int32), 0)
    last = tf.math.ceil(tf.cast(offset + window, tf.float64) * step + reach)
    last = tf.minimum(tf.cast(last, tf.int32), -(-size // ratio))
    extent = last - first

    def jpeg(ratio: int) -> tf.Tensor:
        known = with_size(encoded, tf.io.extract_jpeg_shape(encoded)[:2], size)
        place = tf.concat([first, extent], 0)
        return tf.image.decode_and_crop_jpeg(known, place, channels=3, ratio=ratio)

    def other() -> tf.Tensor:
        pixels = decode_image(encoded)
        pixels = with_size(pixels, tf.shape(pixels)[:2], size)
        return tf.slice(pixels, [*tf.unstack(first), 0], [*tf.unstack(extent), 3])

    branches = [lambda r=r: jpeg(r) for r in _RATIOS]
    pixels = tf.cond(is_jpeg, lambda: tf.switch_case(level, branches), other)
    return tf.ensure_shape(pixels, [None, None, 3]), first, ratio
