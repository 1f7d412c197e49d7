"""Convolutions with torch's padding, in the forms that XLA runs fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Dtype = Any
_LAYOUT = ("NHWC", "HWIO", "NHWC")
_CHUNK = 512  # output pixels whose part of a kernel's gradient is computed by one matrix product


class Conv(nn.Module):
    """A convolution with symmetric padding, (kernel - 1) // 2 times the dilation, as in torch.

    Its parameters are those of flax's `nn.Conv`: "kernel" [k, k, channels, features] and "bias"
    [features], both float32.

    Attributes:
      features: channels of the output.
      kernel: side of the kernel, odd.
      kernel_init: initializer of the kernel.
      stride: of the convolution; a side of n pixels becomes ceil(n / stride).
      dilation: of the kernel.
      use_bias: whether to add a bias, which starts at zero.
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
          gain: float32 [features], by which the output is multiplied before the bias is added;
            None for 1. The kernel is multiplied instead, as it has far fewer elements.

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
      stride: of the convolution.
      dilation: of the kernel.

    Returns:
      [B, ceil(h / stride), ceil(w / stride), features], of `x`'s dtype.
    """
    if kernel.shape[0] == 1:
        # A matrix product, because the gradients of XLA's convolution are several times slower on a
        # CPU and no faster elsewhere.
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
    """The kernel's gradient by matrix products: XLA's CPU backend has no fast convolution for it.

    There is one product for each chunk of the output. A chunk is small enough that the input
    values that its pixels read, [pixels, k * k * channels], stay in the processor's cache.
    """
    batch, height, width, features = gradient.shape
    channels, span = x.shape[-1], (size - 1) * dilation  # a pixel reads span + 1 rows and columns
    # A chunk is some rows of one image if that has more pixels than a chunk, else several images.
    rows = min(height, -(-_CHUNK // width))
    images = min(batch, max(1, _CHUNK // (height * width)))
    grid = -(-batch // images), -(-height // rows)
    missing = grid[0] * images - batch, grid[1] * rows - height
    gradient = jnp.pad(gradient, ((0, missing[0]), (0, missing[1]), (0, 0), (0, 0)))
    wanted = [stride * (n - 1) + span + 1 for n in (height + missing[1], width)]
    # The padding at an end is negative where a stride skips the last pixels.
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
    """The input values that pixels of the output read, in the kernel's order.

    A loop in the compiled program copies them for one place of the kernel after the other. A slice
    for each place would be as many functions for XLA to compile, for each shape of a convolution.

    Args:
      padded: the input [B, ., ., channels] with its padding.
      start: image and row of `padded` at which the first of these pixels starts to read.
      shape: images, rows and columns of these pixels.
      size, stride, dilation: of the convolution; `size` is the side of the kernel.

    Returns:
      [pixels, size * size * channels].
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
