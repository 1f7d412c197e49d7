"""Attention inside of windows, as Swin transformers have it.

Windows lie side by side. Where they are shifted, the map is rolled, so that there are no more of
them than without.

Sources: Liu et al. (arXiv 2103.14030), section 3.2; transformers' MaskFormerSwin.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rc2l_jax.models.extent import inside
from rc2l_jax.models.patches import to_squares, vit_init

Dtype = Any


def relative_position_index(window: int) -> np.ndarray:
    """The row of the relative position bias for each pair of a window's tokens.

    Args:
      window: side of the window, in tokens.

    Returns:
      int64 [n, n] with n = window ** 2, from 0 to (2 window - 1) ** 2 - 1, as transformers has it.
    """
    places = np.indices((window, window)).reshape(2, -1)
    rows, columns = places[:, :, None] - places[:, None, :] + window - 1
    return rows * (2 * window - 1) + columns


def to_windows(x: jax.Array, window: int, shift: int) -> jax.Array:
    """Cuts maps into windows; zeros fill them up at the lower and right border.

    Args:
      x: [B, h, w, ...].
      window: side of a window.
      shift: rows and columns by which the map is rolled up and left before.

    Returns:
      [B, G, n, ...]: G windows of n = window ** 2 tokens.
    """
    rest = [(0, 0)] * (x.ndim - 3)
    x = jnp.pad(x, [(0, 0), *((0, -side % window) for side in x.shape[1:3]), *rest])
    x = jnp.roll(x, (-shift, -shift), (1, 2)) if shift else x
    x = to_squares(x, window)
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], window**2, *x.shape[5:])


def from_windows(x: jax.Array, size: tuple[int, int], window: int, shift: int) -> jax.Array:
    """Puts windows together again, the inverse of `to_windows`.

    Args:
      x: [B, G, n, C].
      size: (h, w) of the map.
      window: side of a window.
      shift: as in `to_windows`.

    Returns:
      [B, h, w, C].
    """
    rows, columns = (-(-side // window) for side in size)
    x = x.reshape(x.shape[0], rows, columns, window, window, x.shape[-1]).swapaxes(2, 3)
    x = x.reshape(x.shape[0], rows * window, columns * window, x.shape[-1])
    x = jnp.roll(x, (shift, shift), (1, 2)) if shift else x
    return x[:, : size[0], : size[1]]


def shifted_regions(
    size: tuple[int, int], window: int, shift: int, mask: jax.Array | None
) -> jax.Array:
    """Numbers the regions of a map that shifted windows must keep apart.

    Rolling puts tokens of opposite borders into one window. Only those attend to each other that
    were neighbours before, and of a padded image only those that it has when it is alone: its own
    and those that fill up its windows. Windows that are not shifted need none of this, because
    those of an image then end where its own filling ends.

    Args:
      size: (h, w) of the map.
      window: side of a window.
      shift: of the windows, above 0.
      mask: bool [B, H / STRIDE, W / STRIDE] from `extent.cell_mask`, where the images are; None if
        they fill the batch.

    Returns:
      int32 [1, G, n], or [B, G, n] with a mask: tokens of a window attend to those of their number.
    """
    whole = tuple(-(-side // window) * window for side in size)
    rows, columns = ((jnp.arange(side) + window - shift) // window for side in whole)
    regions = (rows[:, None] * (whole[1] // window + 1) + columns)[None]
    if mask is not None:
        cells = jnp.stack([mask.any(2).sum(1), mask.any(1).sum(1)], axis=1)
        tokens = cells * (size[0] // mask.shape[1])
        own = -(-tokens // window) * window
        regions = jnp.where(inside(own, whole), regions, -1)
    return to_windows(regions, window, shift)


class WindowAttention(nn.Module):
    """Multi-head attention inside of windows, with a learned bias for each relative position.

    Attributes:
      heads: must divide the width C.
      window: side of a window.
      dtype: of the activations; logits and softmax are float32, as are parameters.
    """

    heads: int
    window: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array, regions: jax.Array | None) -> jax.Array:
        """Lets the tokens of each window attend to each other.

        Args:
          x: [B, G, n, C], G windows of n = window ** 2 tokens.
          regions: int32 [1 or B, G, n]: tokens attend to those of their number only; None for all.
            (transformers subtracts 100 from the logits of the others, which leaves them weights
            of some exp(-100).)

        Returns:
          `dtype` [B, G, n, C].
        """
        width = x.shape[-1]

        def dense(x: jax.Array, name: str) -> jax.Array:
            return nn.Dense(width, dtype=self.dtype, kernel_init=vit_init, name=name)(x)

        def split(name: str) -> jax.Array:
            return dense(x, name).reshape(*x.shape[:-1], self.heads, width // self.heads)

        query, key, value = split("query"), split("key"), split("value")
        wide = jnp.promote_types(self.dtype, jnp.float32)
        logits = jnp.einsum("bgnhd,bgmhd->bghnm", query, key, preferred_element_type=wide)
        shape = ((2 * self.window - 1) ** 2, self.heads)
        table = self.param("relative_position_bias", vit_init, shape, jnp.float32)
        bias = table[relative_position_index(self.window)].transpose(2, 0, 1)
        logits = logits * (width // self.heads) ** -0.5 + bias
        if regions is not None:
            same = regions[..., :, None] == regions[..., None, :]
            logits = jnp.where(same[:, :, None], logits, jnp.finfo(wide).min)
        weights = nn.softmax(logits).astype(self.dtype)
        out = jnp.einsum("bghnm,bgmhd->bgnhd", weights, value)
        return dense(out.reshape(x.shape), "out")
