"""Colour augmentation: SSD's distortion, and the strong jitter of semi-supervised methods."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rc2l_jax.method.keys import between, uniform_draws
from rc2l_jax.structs import IMAGE_PAD

# SSD's photometric distortion, as in detectron2's ColorAugSSDTransform. Each of the four operations
# is applied with probability 1/2.
BRIGHTNESS_DELTA = 32.0
CONTRAST_RANGE = (0.5, 1.5)
SATURATION_RANGE = (0.5, 1.5)
HUE_DELTA = 18.0 / 180.0  # of the full circle


def color_augment(keys: jax.Array, images: jax.Array, valid: jax.Array) -> jax.Array:
    """SSD colour augmentation, drawn anew for each image; padding stays `IMAGE_PAD`.

    Args:
      keys: [B, 2], a random key for each image.
      images: uint8 [B, H, W, 3], RGB.
      valid: bool [B, H, W], False on padding.

    Returns:
      float32 [B, H, W, 3] in 0..255.
    """
    order, *drawn = uniform_draws(keys, 9)
    apply, amount = [x < 0.5 for x in drawn[:4]], drawn[4:]
    brightness = between(amount[0], -BRIGHTNESS_DELTA, BRIGHTNESS_DELTA)
    colored = jax.vmap(distort_color)(
        images.astype(jnp.float32),
        brightness=jnp.where(apply[0], brightness, 0.0),
        contrast=jnp.where(apply[1], between(amount[1], *CONTRAST_RANGE), 1.0),
        saturation=jnp.where(apply[2], between(amount[2], *SATURATION_RANGE), 1.0),
        hue=jnp.where(apply[3], between(amount[3], -HUE_DELTA, HUE_DELTA), 0.0),
        contrast_first=order < 0.5,
    )
    return jnp.where(valid[..., None], colored, IMAGE_PAD)


def distort_color(
    image: jax.Array,
    *,
    brightness: jax.Array | float,
    contrast: jax.Array | float,
    saturation: jax.Array | float,
    hue: jax.Array | float,
    contrast_first: jax.Array | bool,
) -> jax.Array:
    """SSD's photometric distortion with given amounts, clipped to 0..255 after each operation.

    Args:
      image: float32 [..., 3] in 0..255, RGB.
      brightness: is added to every channel.
      contrast: factor of every channel.
      saturation: factor of HSV's saturation.
      hue: rotation of HSV's hue, as a share of the circle.
      contrast_first: whether contrast changes before saturation and hue, or after them.
    """
    image = _clip(image + brightness)
    image = jnp.where(contrast_first, _clip(image * contrast), image)
    image = _shift_hue_and_saturation(image, hue, saturation)
    return jnp.where(contrast_first, image, _clip(image * contrast))


def color_jitter(
    keys: jax.Array,
    images: jax.Array,
    valid: jax.Array,
    *,
    probability: float,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    grayscale: float,
) -> jax.Array:
    """Strong colour augmentation with the numbers of UniMatch's strong views.

    UniMatch also blurs, draws the order of the changes, and changes saturation by blending with
    grey.

    Args:
      keys: [B, 2], a random key for each image.
      images: uint8 [B, H, W, 3], RGB.
      valid: bool [B, H, W], False on padding.
      probability: that an image is jittered.
      brightness: channels are multiplied by a factor from 1 - brightness to 1 + brightness.
      contrast: distances from the image's mean grey (padding included) are multiplied by a factor
        from 1 - contrast to 1 + contrast.
      saturation: HSV's saturation is multiplied by a factor from 1 - saturation to 1 + saturation.
      hue: largest rotation of HSV's hue in either direction, as a share of the circle.
      grayscale: probability that an image loses its colours, jittered or not.

    Returns:
      float32 [B, H, W, 3] in 0..255; padding stays `IMAGE_PAD`.
    """

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        k_apply, k_gray, k_factors = jax.random.split(key, 3)
        b, c, s, h = jax.random.uniform(k_factors, (4,), minval=-1.0)
        jittered = _clip(image * (1.0 + brightness * b))
        mean = _luminance(jittered).mean()
        jittered = _clip(mean + (jittered - mean) * (1.0 + contrast * c))
        jittered = _shift_hue_and_saturation(jittered, hue * h, 1.0 + saturation * s)
        image = jnp.where(jax.random.bernoulli(k_apply, probability), jittered, image)
        gray = jnp.broadcast_to(_luminance(image)[..., None], image.shape)
        return jnp.where(jax.random.bernoulli(k_gray, grayscale), gray, image)

    jittered = jax.vmap(one)(keys, images.astype(jnp.float32))
    return jnp.where(valid[..., None], jittered, IMAGE_PAD)


def _luminance(image: jax.Array) -> jax.Array:
    # ITU-R 601, as in Pillow. No matrix product, which accelerators compute with fewer bits.
    return (image * jnp.array([0.299, 0.587, 0.114])).sum(-1)


def _clip(image: jax.Array) -> jax.Array:
    return jnp.clip(image, 0.0, 255.0)


def _shift_hue_and_saturation(rgb: jax.Array, hue: jax.Array, saturation: jax.Array) -> jax.Array:
    """Rotates HSV's hue by `hue` (share of the circle); scales its saturation, at most to 1."""
    value = rgb.max(-1)
    chroma = value - rgb.min(-1)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    safe = jnp.where(chroma > 0, chroma, 1.0)
    sector = jnp.where(
        value == r,
        ((g - b) / safe) % 6.0,
        jnp.where(value == g, (b - r) / safe + 2.0, (r - g) / safe + 4.0),
    )
    sector = jnp.where(chroma > 0, sector, 0.0) + 6.0 * hue
    scaled = jnp.minimum(chroma * saturation, value)
    # HSV -> RGB in closed form: f(n) = v - c * max(0, min(k, 4 - k, 1)), k = (n + h / 60°) mod 6.
    k = (jnp.array([5.0, 3.0, 1.0]) + sector[..., None]) % 6.0
    ramp = jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)
    return value[..., None] - scaled[..., None] * ramp
