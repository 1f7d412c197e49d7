"""The normalisations of the backbone, each applied together with the convolution before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rc2l_jax.models.convolution import Conv
from rc2l_jax.models.extent import pixel_mask, zero_outside

Dtype = Any

NORMS = ("frozen", "batch", "group")

_EPSILON = 1e-5
_he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def group_count(channels: int, min_group_size: int = 1) -> int:
    """Number of groups of a GroupNorm: the largest divisor of `channels` that is at most 32.

    Args:
      channels: of the normalised array.
      min_group_size: fewest channels that a group may have, unless there are fewer in all. A group
        of one channel loses that channel's mean, and all such groups together an image's colours.

    Returns:
      A divisor of `channels`, at most 32 and at most `channels // min_group_size` (but at least 1).
    """
    most = max(1, min(32, channels // min_group_size))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


class FrozenNorm(nn.Module):
    """Batch normalisation whose four arrays are constants, as detectron2's FrozenBatchNorm2d.

    `scale`, `bias`, `mean` and `var` (float32 [features]) are in "batch_stats", so the optimiser
    never changes them, and the teacher has the same.

    Attributes:
      features: channels of what is normalised.
      epsilon: is added to the variance.
    """

    features: int
    epsilon: float = _EPSILON

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """Returns gain and shift, float32 [features], of the map x -> gain * x + shift."""

        def constant(name: str, init: Callable[..., jax.Array]) -> jax.Array:
            return self.variable("batch_stats", name, init, (self.features,), jnp.float32).value

        scale, bias = constant("scale", jnp.ones), constant("bias", jnp.zeros)
        mean, var = constant("mean", jnp.zeros), constant("var", jnp.ones)
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        return gain, bias - mean * gain


def conv_norm(
    x: jax.Array,
    features: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    kind: str,
    train: bool,
    dtype: Dtype,
    axis_name: str | None,
    conv_name: str,
    norm_name: str,
    zero_scale: bool = False,
    mask: jax.Array | None = None,
) -> jax.Array:
    """A convolution without bias, initialised as by He (fan-out), and its normalisation.

    Args:
      x: [B, h, w, channels].
      features: channels of the output.
      kernel: side of the kernel, odd.
      stride: of the convolution.
      dilation: of the kernel.
      kind: one of `NORMS`. The gain of "frozen" is folded into the convolution's kernel.
      train: whether "batch" uses (and records) the statistics of this batch.
      dtype: of the output; statistics are float32.
      axis_name: pmap axis over which "batch" averages its statistics; None for this device alone.
      conv_name: the convolution's name.
      norm_name: the normalisation's name. It contains "norm", by which the optimiser's parameter
        groups recognise it.
      zero_scale: start the scale at 0, so that a residual branch starts as 0. "frozen" ignores it,
        since its constants would stay at 0.
      mask: bool [B, H / STRIDE, W / STRIDE] from `extent.cell_mask`, where the images are. Nothing
        outside of them is read, and statistics are those of the images. None if they fill the
        batch.

    Returns:
      `dtype` [B, ceil(h / stride), ceil(w / stride), features].

    Raises:
      ValueError: on an unknown `kind`.
    """
    conv = Conv(
        features,
        kernel,
        _he_fan_out,
        stride=stride,
        dilation=dilation,
        use_bias=False,
        dtype=dtype,
        name=conv_name,
    )
    x = zero_outside(x, mask) if kernel > 1 else x
    if kind == "frozen":
        gain, shift = FrozenNorm(features, name=norm_name)()
        return conv(x, gain) + shift.astype(dtype)
    x = conv(x)
    scale_init = nn.initializers.zeros if zero_scale else nn.initializers.ones
    if kind == "batch":
        batch_norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=_EPSILON,
            dtype=dtype,
            scale_init=scale_init,
            axis_name=axis_name,
            name=norm_name,
        )
        return batch_norm(x, mask=pixel_mask(x, mask))
    if kind == "group":
        groups = group_count(features, min_group_size=2)
        group_norm = nn.GroupNorm(
            groups, epsilon=_EPSILON, dtype=dtype, scale_init=scale_init, name=norm_name
        )
        return group_norm(x, mask=pixel_mask(x, mask))
    raise ValueError(f"model.norm = {kind!r} is unknown; use one of {', '.join(NORMS)}.")
