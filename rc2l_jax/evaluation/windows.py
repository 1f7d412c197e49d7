"""What is done at test time besides the network, and where sliding windows lie."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """What is done at test time besides the network.

    Attributes:
      flip: also predict mirrored views, and average.
      window: side of the sliding windows, a multiple of 32; 0 for the whole image at once.
      window_stride: distance of two windows, as a share of their side.
    """

    flip: bool
    window: int
    window_stride: float

    @classmethod
    def from_config(cls, config: ConfigDict) -> InferenceOptions:
        """Reads `config.eval`."""
        return cls(config.eval.flip, config.eval.window, config.eval.window_stride)


@dataclasses.dataclass(frozen=True)
class WindowGrid:
    """Sliding windows over images of several sizes that are padded to one shape.

    Attributes:
      shape: (h, w) of a window.
      step: distance of two windows, in pixels.
      index: int32 [T, 2], rows and columns of the windows that an image of the whole shape has.
    """

    shape: tuple[int, int]
    step: int
    index: np.ndarray

    @classmethod
    def over(cls, shape: tuple[int, int], options: InferenceOptions) -> WindowGrid:
        """Lays windows over images padded to `shape`; one window if there is no sliding."""
        side = options.window or max(shape)
        step = max(round(side * options.window_stride), 1)
        counts = [1 + max(-(-(length - side) // step), 0) for length in shape]
        index = np.array(list(np.ndindex(*counts)), np.int32)
        return cls((min(side, shape[0]), min(side, shape[1])), step, index)

    def place(self, size: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Places one window in images.

        The last window of a row or column ends with the image.

        Args:
          size: int32 [..., 2], height and width of each image.
          index: int32 [2], one of `self.index`.

        Returns:
          int32 [..., 2], the window's upper left corner; int32 [..., 2], height and width of what
          it shows of the image; bool [...], whether the image alone would have this window.
        """
        last = jnp.maximum(size - jnp.array(self.shape), 0)
        used = (index == 0) | ((index - 1) * self.step < last)
        start = jnp.minimum(index * self.step, last)
        return start, jnp.minimum(size, jnp.array(self.shape)), used.all(-1)
