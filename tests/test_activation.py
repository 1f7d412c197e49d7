"""rc2l_jax/models/activation.py against torch: values and gradients, with ties and odd sizes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from rc2l_jax.models.activation import max_pool, relu, two_uses


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 1), (2, 5), (33, 4)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_max_pool_equals_torch(size, dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (2, *size, 3)).astype(np.float32)  # many ties
    ours, pull = jax.vjp(max_pool, jnp.asarray(x, dtype))
    peer_x = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    peer = torch.nn.functional.max_pool2d(peer_x, 3, stride=2, padding=1)
    # Whole numbers, so that sums of up to four of them are exact in bfloat16 as well.
    gradient = rng.integers(-9, 10, peer.shape).astype(np.float32)
    peer.backward(torch.tensor(gradient))
    (ours_gradient,) = pull(jnp.asarray(gradient.transpose(0, 2, 3, 1), dtype))
    assert ours.dtype == ours_gradient.dtype == dtype
    np.testing.assert_array_equal(
        ours.astype(np.float32), peer.detach().numpy().transpose(0, 2, 3, 1)
    )
    np.testing.assert_array_equal(
        ours_gradient.astype(np.float32), peer_x.grad.numpy().transpose(0, 2, 3, 1)
    )


def test_max_pool_keeps_nan():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 1, 0].set(jnp.nan)
    assert np.isnan(max_pool(x)).all()  # it lies in all four windows
    assert not np.isnan(max_pool(x.at[0, 1, 1, 0].set(1.0))).any()


def test_relu_and_its_gradient():
    x = np.array([-2.0, -0.0, 0.0, 1e-30, 3.0, np.nan], np.float32)
    y, pull = jax.vjp(relu, jnp.asarray(x))
    peer_x = torch.tensor(x, requires_grad=True)
    peer = torch.relu(peer_x)
    peer.backward(torch.ones(6))
    np.testing.assert_array_equal(y, peer.detach().numpy())
    np.testing.assert_array_equal(pull(jnp.ones(6))[0][:5], peer_x.grad.numpy()[:5])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_two_uses_add_their_gradients(dtype):
    x = jnp.asarray([1.0, 2.0], dtype)
    (first, second), pull = jax.vjp(two_uses, x)
    np.testing.assert_array_equal(first, second)
    (gradient,) = pull((jnp.asarray([1.0, 256.0], dtype), jnp.asarray([2.0, 1.0], dtype)))
    assert gradient.dtype == dtype
    # In bfloat16, 257 lies between 256 and 258, and is rounded to the even one.
    np.testing.assert_array_equal(
        gradient.astype(np.float32), [3.0, 257.0 if dtype == jnp.float32 else 256.0]
    )
