"""Convolutions with torch's padding, in the form in which XLA runs them fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Dtype = Any
_LAYOUT = ("NHWC", "HWIO", "NHWC")
_CHUNK = 512  # pixels of the output whose part of a kernel's gradient is one product


class Conv(nn.Module):
    """A convolution with symmetric padding, (kernel - 1) // 2 times the dilation, as in torch.

    Parameters are those of flax's `nn.Conv`, float32: "kernel" [k, k, channels, features], "bias".

    Attributes:
      features: channels of the output.
      kernel: side of the kernel, odd.
      kernel_init: of the kernel.
      stride: a size n becomes ceil(n / stride).
      dilation: of the kernel.
      use_bias: adds a bias, which starts at zero.
      dtype: of the output.
    """

    features: int
    kernel: int
    kernel_init: Callable[..., jax.Array]
    stride: int = 1
    dilation: int = 1
    use_bias: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, gain: jax.Array | None = None) -> jax.Array:
        """Convolves.

        Args:
          x: [B, h, w, channels].
          gain: float32 [features], factors of the output without the bias. They go into the
            kernel, which has far fewer elements; None for 1.

        Returns:
          `dtype` [B, ceil(h / stride), ceil(w / stride), features].
        """
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        kernel = kernel if gain is None else kernel * gain
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.dilation)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    """A convolution with torch's symmetric padding.

    Args:
      x: [B, h, w, channels].
      kernel: [k, k, channels, features], k odd.
      stride: of the output.
      dilation: of the kernel.

    Returns:
      [B, ceil(h / stride), ceil(w / stride), features], of `x`'s dtype.
    """
    if kernel.shape[0] == 1:
        # A matrix product: XLA's convolution gradients are several times slower on a CPU, and no
        # faster elsewhere.
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    return _convolve(x, kernel, stride, dilation)


def _by_xla(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    padding = (kernel.shape[0] - 1) // 2 * dilation
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_LAYOUT,
    )


_convolve = jax.custom_vjp(_by_xla, nondiff_argnums=(2, 3))


def _forward(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> tuple:
    return _by_xla(x, kernel, stride, dilation), (x, kernel)


def _backward(stride: int, dilation: int, saved: tuple, gradient: jax.Array) -> tuple:
    x, kernel = saved
    of_x = jax.linear_transpose(lambda x: _by_xla(x, kernel, stride, dilation), x)

    def by_xla(x: jax.Array, gradient: jax.Array) -> jax.Array:
        def of_kernel(kernel: jax.Array) -> jax.Array:
            return _by_xla(x, kernel, stride, dilation)

        return jax.linear_transpose(of_kernel, kernel)(gradient)[0]

    def by_products(x: jax.Array, gradient: jax.Array) -> jax.Array:
        return _kernel_gradient(x, gradient, kernel.shape[0], stride, dilation)

    kernel_gradient = jax.lax.platform_dependent(x, gradient, cpu=by_products, default=by_xla)
    return *of_x(gradient), kernel_gradient


_convolve.defvjp(_forward, _backward)


def _kernel_gradient(
    x: jax.Array, gradient: jax.Array, size: int, stride: int, dilation: int
) -> jax.Array:
    """The kernel's gradient as matrix products, which XLA's CPU backend lacks a convolution for.

    One product a chunk of the output: what each of its pixels read ([pixels, k * k * channels])
    and the operands in the layout of a product stay in the cache.
    """
    batch, height, width, features = gradient.shape
    channels, span = x.shape[-1], (size - 1) * dilation  # a pixel reads span + 1 rows and columns
    # Rows of one image where an image has more pixels than a chunk, or else several images.
    rows = min(height, -(-_CHUNK // width))
    images = min(batch, max(1, _CHUNK // (height * width)))
    grid = -(-batch // images), -(-height // rows)
    missing = grid[0] * images - batch, grid[1] * rows - height
    gradient = jnp.pad(gradient, ((0, missing[0]), (0, missing[1]), (0, 0), (0, 0)))
    wanted = [stride * (n - 1) + span + 1 for n in (height + missing[1], width)]
    # What a stride skips at the end has no part: the padding there may be negative.
    ends = [n - span // 2 - there for n, there in zip(wanted, x.shape[1:3])]
    borders = [(0, missing[0], 0), *((span // 2, end, 0) for end in ends), (0, 0, 0)]
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), borders)

    def add(total: jax.Array, chunk: jax.Array) -> tuple[jax.Array, None]:
        image, row = chunk // grid[1] * images, chunk % grid[1] * rows
        part = jax.lax.dynamic_slice_in_dim(gradient, image, images, 0)
        part = jax.lax.dynamic_slice_in_dim(part, row, rows, 1).reshape(-1, features)
        start, shape = (image, row * stride), (images, rows, width)
        read = _read_by(padded, start, shape, size, stride, dilation)
        return total + jnp.matmul(part.T, read, preferred_element_type=jnp.float32), None

    zeros = jnp.zeros((features, size * size * channels), jnp.float32)
    total, _ = jax.lax.scan(add, zeros, jnp.arange(grid[0] * grid[1]))
    return total.T.reshape(size, size, channels, features).astype(x.dtype)


def _read_by(
    padded: jax.Array,
    start: tuple[jax.Array, jax.Array],
    shape: tuple[int, int, int],
    size: int,
    stride: int,
    dilation: int,
) -> jax.Array:
    """What pixels of the output read: [pixels, size * size * channels], in the kernel's order.

    A place of the kernel after the other, in a loop of the program: as many slices as the kernel
    has places would be as many functions for XLA to compile, for each shape of a convolution.

    Args:
      padded: [B, ., ., channels], with what lies around the images.
      start: image and row of `padded` at which the pixels' reading starts.
      shape: images, rows and columns of the output.
      size, stride, dilation: of the kernel.
    """
    images, rows, width = shape
    channels = padded.shape[-1]
    reach = images, stride * (rows - 1) + 1, stride * (width - 1) + 1, channels

    def copy(place: jax.Array, read: jax.Array) -> jax.Array:
        row, column = place // size * dilation, place % size * dilation
        part = jax.lax.dynamic_slice(padded, (start[0], start[1] + row, column, 0), reach)
        part = part[:, ::stride, ::stride, None]
        return jax.lax.dynamic_update_slice(read, part, (0, 0, 0, place, 0))

    read = jnp.zeros((images, rows, width, size * size, channels), padded.dtype)
    return jax.lax.fori_loop(0, size * size, copy, read).reshape(-1, size * size * channels)
