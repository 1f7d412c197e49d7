"""Options of inference at test time, and where sliding windows lie."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """How images are predicted at test time.

    Attributes:
      flip: whether mirrored views are predicted, too, and averaged with the others.
      window: side of the square sliding windows, a multiple of 32; 0 to predict whole images.
      window_stride: distance from one window to the next, as a share of their side.
    """

    flip: bool
    window: int
    window_stride: float

    @classmethod
    def from_config(cls, config: ConfigDict) -> InferenceOptions:
        """Reads the options from `config.eval`."""
        return cls(config.eval.flip, config.eval.window, config.eval.window_stride)


@dataclasses.dataclass(frozen=True)
class WindowGrid:
    """Sliding windows over images of several sizes that are padded to one shape.

    Attributes:
      shape: height and width of a window, in pixels.
      step: distance from one window to the next, in pixels.
      index: int32 [T, 2], row and column in the grid of each window over an image that fills the
        shape. A smaller image has fewer windows, see `place`.
    """

    shape: tuple[int, int]
    step: int
    index: np.ndarray

    @classmethod
    def over(cls, shape: tuple[int, int], options: InferenceOptions) -> WindowGrid:
        """Lays windows over images padded to `shape`; a single window if `options.window` is 0."""
        side = options.window or max(shape)
        step = max(round(side * options.window_stride), 1)
        counts = [1 + max(-(-(length - side) // step), 0) for length in shape]
        index = np.array(list(np.ndindex(*counts)), np.int32)
        return cls((min(side, shape[0]), min(side, shape[1])), step, index)

    def place(self, size: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Places one window of the grid in each image.

        The last window of a row or column is moved back, so that it ends where the image does.

        Args:
          size: int32 [..., 2], height and width of each image.
          index: int32 [2], one of `self.index`.

        Returns:
          int32 [..., 2], the window's upper left corner; int32 [..., 2], height and width of what
          it shows of the image; bool [...], whether an image of this size has this window.
        """
        last = jnp.maximum(size - jnp.array(self.shape), 0)
        used = (index == 0) | ((index - 1) * self.step < last)
        start = jnp.minimum(index * self.step, last)
        return start, jnp.minimum(size, jnp.array(self.shape)), used.all(-1)
