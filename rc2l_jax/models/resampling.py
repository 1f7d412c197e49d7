"""Resizing by products with matrices of weights, also for images of several sizes in one batch.

DINOv2's patches have 14 pixels and its position codes a grid of their own, so images and codes are
resized. torch's and JAX's bicubic filters differ (-0.75 and -0.5 in their formula), and neither
library can give each image of a batch a size of its own; hence the weights are computed here.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rc2l_jax.models.extent import zero_outside
from rc2l_jax.structs import STRIDE


def seven_eighths(images: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Resizes images to 7/8 of their sides: bilinear with antialiasing, as torch's and PIL's.

    The filter is two pixels of the output wide. At an image's border its part inside of the image
    counts alone, so that padding is never read.

    Args:
      images: float [B, H, W, channels]; H and W are multiples of 8, and of `STRIDE` with a mask.
      mask: bool [B, H / STRIDE, W / STRIDE] from `extent.cell_mask`, where the images are; None if
        they fill the batch.

    Returns:
      [B, 7H / 8, 7W / 8, channels] of the images' dtype; zeros outside of the images.
    """
    images = zero_outside(images, mask)
    rows, columns = (None, None) if mask is None else (mask[:, :, 0], mask[:, 0, :])
    rows = _shrinking_weights(images.shape[1], rows).astype(images.dtype)
    columns = _shrinking_weights(images.shape[2], columns).astype(images.dtype)
    own = "b" if mask is not None else ""  # whether each image has weights of its own
    # In full float32: TF32 would leave images little more than the 8 bits that they came with.
    return jnp.einsum(
        f"{own}ri,{own}cj,bijd->brcd", rows, columns, images, precision=jax.lax.Precision.HIGHEST
    )


def _shrinking_weights(length: int, cells: jax.Array | None) -> Any:
    """Weights [7 length / 8, length], or [B, ., .] for the cells bool [B, length / STRIDE]."""
    target, source = np.arange(length // 8 * 7)[:, None], np.arange(length)
    # 16 times the distance of the centres, in pixels of the output.
    distance = abs((2 * target + 1) * 8 - (2 * source + 1) * 7)
    weights = np.maximum(0.0, 1.0 - distance / 16)
    if cells is None:
        return weights / weights.sum(1, keepdims=True)
    weights = jnp.asarray(weights) * cells.repeat(STRIDE, 1)[:, None]
    return _normalized(weights, jnp)


def resize_codes(
    codes: jax.Array, sizes: Any, shape: tuple[int, int], antialias: bool
) -> jax.Array:
    """Resizes position codes as torch's `interpolate(mode="bicubic", align_corners=False)` does.

    Args:
      codes: float32 [g, g, D].
      sizes: (rows, columns) of the result; or of each image's own part of it, int32 [B] each.
      shape: (rows, columns) of the result.
      antialias: as torch's argument. torch has another filter then, -0.5 in its formula.

    Returns:
      [rows, columns, D], or [B, rows, columns, D], which means nothing outside of the images'
      parts but is finite.
    """
    grid, dtype = codes.shape[0], jnp.promote_types(codes.dtype, jnp.result_type(float))
    rows, columns = (
        jnp.asarray(bicubic_weights(grid, size, length, antialias), dtype)
        for size, length in zip(sizes, shape)
    )
    own = "b" if rows.ndim == 3 else ""
    return jnp.einsum(
        f"{own}ri,{own}cj,ijd->{own}rcd", rows, columns, codes, precision=jax.lax.Precision.HIGHEST
    )


def bicubic_weights(source: int, target: Any, length: int, antialias: bool) -> Any:
    """How much of each of `source` points goes into each of `target` points along the same line.

    Args:
      source: number of points that are there.
      target: number of points wanted; or one for each image, int32 [B].
      length: rows of the result, the first `target` of which are weights.
      antialias: as in `resize_codes`.

    Returns:
      NumPy float64 [length, source]; or JAX float [B, length, source] for an array of targets.
    """
    xp: Any = np if isinstance(target, int) else jnp
    if not isinstance(target, int):
        target = jnp.maximum(target, 1)[:, None, None]
    # Without antialiasing, points beyond an end are read as that end.
    beyond = 0 if antialias else 2
    rows = np.arange(length, dtype=np.int32)[:, None]
    columns = np.arange(-beyond, source + beyond, dtype=np.int32)
    # Integers, as long as they can be: so weights do not depend on how an image is batched.
    distance = (2 * rows + 1) * np.int32(source) - target * (2 * columns + 1)
    if antialias:  # the filter is as wide as a point of the coarser line
        weights = _cubic(distance / (2 * xp.maximum(source, target)), -0.5, xp)
        return _normalized(weights, xp)
    weights = _cubic(distance / (2 * target), -0.75, xp)
    first, last = (weights[..., part].sum(-1, keepdims=True) for part in (np.s_[:3], np.s_[-3:]))
    return xp.concatenate([first, weights[..., 3:-3], last], -1)


def _cubic(x: Any, a: float, xp: Any) -> Any:
    """Keys' cubic convolution: 1 at 0, 0 at the other integers and from 2 on."""
    x = abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return xp.where(x < 1, near, xp.where(x < 2, far, 0))


def _normalized(weights: Any, xp: Any) -> Any:
    """Weights whose sum over the last axis is 1, or 0 where all of them are 0."""
    total = weights.sum(-1, keepdims=True)
    return weights / xp.where(total == 0, 1, total)
