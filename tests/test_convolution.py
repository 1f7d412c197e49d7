"""rc2l_jax/models/convolution.py: values and gradients against torch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from rc2l_jax.models.convolution import Conv, convolve

# (kernel, stride, dilation). Images have odd and even sizes.
CASES = [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 1, 4), (7, 2, 1), (3, 2, 2)]
# The kernel's gradient is made chunk by chunk. The shapes are: several images in a chunk, and the
# last chunk not full; several chunks in an image, and the last one with fewer rows; one row longer
# than a chunk.
SHAPES = [(3, 13, 16), (2, 39, 42), (1, 3, 700)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), CASES)
def test_values_and_gradients_are_torchs(kernel, stride, dilation, shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(*shape, 5)).astype(np.float32)
    weights = rng.normal(size=(kernel, kernel, 5, 4)).astype(np.float32)

    def run(x, weights):
        y = convolve(x, weights, stride, dilation)
        return y, jax.vjp(lambda *a: convolve(*a, stride, dilation), x, weights)[1](jnp.sin(y))

    y, (x_gradient, gradient) = jax.jit(run)(x, weights)
    peer_x = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    peer_weights = torch.tensor(weights.transpose(3, 2, 0, 1), requires_grad=True)
    peer = torch.nn.functional.conv2d(
        peer_x,
        peer_weights,
        stride=stride,
        padding=(kernel - 1) // 2 * dilation,
        dilation=dilation,
    )
    peer.backward(torch.sin(peer.detach()))

    def close(a, b):
        return np.testing.assert_allclose(a, b, rtol=1e-4, atol=5e-4)

    close(y, peer.detach().permute(0, 2, 3, 1))
    close(x_gradient, peer_x.grad.permute(0, 2, 3, 1))
    close(gradient, peer_weights.grad.permute(2, 3, 1, 0))


def test_other_devices_get_xlas_own_gradient():
    """Matrix products replace convolutions on CPUs only: programs for a GPU have none."""
    gradient = jax.grad(lambda k, x: jnp.sin(convolve(x, k)).sum())
    shapes = jax.ShapeDtypeStruct((3, 3, 4, 4), "float32"), jax.ShapeDtypeStruct((2, 8, 8, 4), "f4")
    lowered = {
        platform: jax.export.export(jax.jit(gradient), platforms=[platform])(*shapes).mlir_module()
        for platform in ("cpu", "cuda")
    }
    assert "dot_general" not in lowered["cuda"]
    assert lowered["cuda"].count("stablehlo.convolution") == 2
    assert lowered["cpu"].count("stablehlo.dot_general") == 1
    assert lowered["cpu"].count("stablehlo.convolution") == 1


def test_parameters_are_those_of_flax():
    for bias in (True, False):
        module = Conv(4, 3, jax.nn.initializers.ones, use_bias=bias, dtype=jnp.bfloat16)
        y, variables = module.init_with_output(jax.random.key(0), jnp.ones((1, 6, 6, 2)))
        assert y.dtype == jnp.bfloat16
        shapes = {name: x.shape for name, x in variables["params"].items()}
        assert shapes == {"kernel": (3, 3, 2, 4)} | ({"bias": (4,)} if bias else {})
        assert all(x.dtype == jnp.float32 for x in variables["params"].values())
