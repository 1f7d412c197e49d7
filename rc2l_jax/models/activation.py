"""ReLU and max-pooling of the backbone, with gradients that read and write little memory.

A step on an accelerator takes as long as its reads and writes of activations, and the backbone's
are the largest. The results are those of flax's `nn.relu` and `nn.max_pool`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), whose gradient is found from the result, not from `x`.

    So `x` need not be kept, and accelerators compute the ReLU inside of the convolution before it.
    """
    # On a CPU by `where`, which reads x twice. `maximum` reads it once, and XLA's CPU backend then
    # computes x again wherever it is used: at the end of a block the whole sum of all blocks.
    return jax.lax.platform_dependent(
        x, cpu=lambda x: jnp.where(x <= 0, 0, x), default=lambda x: jnp.maximum(x, 0)
    )


def _relu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = relu(x)
    return y, y


def _relu_backward(y: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    # Not `y > 0`, which XLA would turn into a comparison of x, and then keep x as well.
    return (jnp.where(y != 0, gradient, 0),)


relu.defvjp(_relu_forward, _relu_backward)


@jax.custom_vjp
def two_uses(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns `x` twice: for a residual block's branch, and for the sum at its end (identity).

    Their gradients are added by a kernel of its own. On a GPU, XLA would add inside of the matrix
    product that computes the first one, into a copy of the second, which moves more memory.
    """
    return x, x


def _two_uses_forward(x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
    return (x, x), None


def _two_uses_backward(saved: None, gradients: tuple[jax.Array, jax.Array]) -> tuple[jax.Array]:
    del saved
    # Added in float32, which rounds no differently and keeps the sum out of the product.
    branch, rest = (gradient.astype(jnp.float32) for gradient in gradients)
    return ((branch + rest).astype(gradients[0].dtype),)


two_uses.defvjp(_two_uses_forward, _two_uses_backward)


def max_pool(x: jax.Array) -> jax.Array:
    """Max-pooling over 3 x 3 pixels with stride 2 and padding 1, as torch pads.

    Where several pixels of a window are largest, the first one gets the gradient, as in torch.

    Args:
      x: [B, h, w, channels].

    Returns:
      [B, ceil(h / 2), ceil(w / 2), channels].
    """

    def by_xla(x: jax.Array) -> jax.Array:
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)

    # A TPU has an instruction for XLA's gradient. Elsewhere it looks for the largest pixels again,
    # in float32 and with 32-bit indices.
    return jax.lax.platform_dependent(x, tpu=by_xla, default=_max_pool)


@jax.custom_vjp
def _max_pool(x: jax.Array) -> jax.Array:
    """As `max_pool`. The place of a window's largest pixel is remembered as a number of 8 bits."""
    return _max_pool_forward(x)[0]


def _max_pool_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    height, width = (-(-side // 2) for side in x.shape[1:3])
    lowest = jnp.array(-jnp.inf, x.dtype)
    ends = [2 * out + 1 - side for out, side in zip((height, width), x.shape[1:3])]
    padded = jax.lax.pad(x, lowest, ((0, 0, 0), (1, ends[0], 0), (1, ends[1], 0), (0, 0, 0)))
    largest, place = None, None
    for index in range(9):
        row, column = divmod(index, 3)
        rows, columns = (
            slice(row, row + 2 * height - 1, 2),
            slice(column, column + 2 * width - 1, 2),
        )
        value = padded[:, rows, columns]
        if largest is None:
            largest, place = value, jnp.zeros(value.shape, jnp.int8)
            continue
        better = (value > largest) | jnp.isnan(value)
        largest = jnp.where(better, value, largest)
        place = jnp.where(better, jnp.int8(index), place)
    # The backward pass needs the input's shape, but not its data: hence an empty slice.
    return largest, (place, x[..., :0])


def _max_pool_backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    place, like = saved
    height, width = like.shape[1:3]

    def of(row: int, column: int, down: int, right: int) -> jax.Array:
        """The gradients of windows whose largest pixel is their (row, column)-th one.

        Entry (r, c) is that of the window `down` below and `right` of the (r, c)-th one.
        """
        chosen = jnp.where(place == 3 * row + column, gradient, 0)
        return jnp.pad(chosen, ((0, 0), (0, down), (0, right), (0, 0)))[:, down:, right:]

    # A pixel of an even row is in the middle row of one window; that of an odd row is in the last
    # row of a window and in the first row of the window below. Columns likewise.
    even_even = of(1, 1, 0, 0)
    even_odd = of(1, 2, 0, 0) + of(1, 0, 0, 1)
    odd_even = of(2, 1, 0, 0) + of(0, 1, 1, 0)
    odd_odd = of(2, 2, 0, 0) + of(2, 0, 0, 1) + of(0, 2, 1, 0) + of(0, 0, 1, 1)
    rows = [jnp.stack(pair, 3) for pair in ((even_even, even_odd), (odd_even, odd_odd))]
    batch, small_height, small_width, channels = gradient.shape
    whole = jnp.stack(rows, 2).reshape(batch, 2 * small_height, 2 * small_width, channels)
    return (whole[:, :height, :width],)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
