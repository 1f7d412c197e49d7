"""Focal and dice loss of masks, element by element and for all pairs.

The definitions are MaskFormer's (`mask_former/modeling/criterion.py` and `matcher.py`), with one
addition: only `known` pixels count, in the sums and in the number of pixels. With every pixel known
the values are MaskFormer's. Sums over masks and their normalisation are the caller's.

Everything is computed in float32, whatever the inputs' dtype. What a mask or a target holds on an
unknown pixel, NaN included, changes neither values nor gradients.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def focal_loss(
    logits: jax.Array, targets: jax.Array, known: jax.Array, *, alpha: float, gamma: float
) -> jax.Array:
    """Sigmoid focal loss (Lin et al. 2017), the mean over the known pixels of each mask.

    It is linear in the targets: one strictly between 0 and 1 gives the average of both outcomes.

    Args:
      logits: [..., h, w].
      targets: bool or float in [0, 1], the shape of `logits`.
      known: bool, broadcastable to `logits`.
      alpha: weight of the pixels inside the target; those outside get 1 - alpha.
      gamma: exponent of the modulating factor, at least 0.

    Returns:
      float32 [...]; 0 where no pixel is known.
    """
    logits, targets, known = _on_known(logits, targets, known)
    inside, outside = _focal_terms(logits, alpha=alpha, gamma=gamma)
    per_pixel = (inside * targets + outside * (1.0 - targets)) * known
    return per_pixel.sum((-2, -1)) / _at_least_one(known.sum((-2, -1)))


def dice_loss(logits: jax.Array, targets: jax.Array, known: jax.Array) -> jax.Array:
    """Dice loss, 1 - (2 sum(p t) + 1) / (sum p + sum t + 1) over the known pixels of each mask.

    Args:
      logits: [..., h, w].
      targets: bool or float in [0, 1], the shape of `logits`.
      known: bool, broadcastable to `logits`.

    Returns:
      float32 [...]; 0 where no pixel is known.
    """
    logits, targets, known = _on_known(logits, targets, known)
    probs = jax.nn.sigmoid(logits) * known
    overlap = (probs * targets).sum((-2, -1))
    total = probs.sum((-2, -1)) + targets.sum((-2, -1))
    return 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)


def pairwise_focal(
    logits: jax.Array, targets: jax.Array, known: jax.Array, *, alpha: float, gamma: float
) -> jax.Array:
    """`focal_loss` of every query with every segment, by two matrix products.

    Args:
      logits: [B, N, h, w].
      targets: bool or float [B, M, h, w].
      known: bool [B, h, w].
      alpha: see `focal_loss`.
      gamma: see `focal_loss`.

    Returns:
      float32 [B, N, M].
    """
    logits, targets, known = _flat_on_known(logits, targets, known)
    inside, outside = _focal_terms(logits, alpha=alpha, gamma=gamma)
    total = _pairs(inside, targets) + _pairs(outside, known - targets)
    return total / _at_least_one(known.sum(-1, keepdims=True))


def pairwise_dice(logits: jax.Array, targets: jax.Array, known: jax.Array) -> jax.Array:
    """`dice_loss` of every query with every segment, by a matrix product.

    Args:
      logits: [B, N, h, w].
      targets: bool or float [B, M, h, w].
      known: bool [B, h, w].

    Returns:
      float32 [B, N, M].
    """
    logits, targets, known = _flat_on_known(logits, targets, known)
    probs = jax.nn.sigmoid(logits) * known
    total = probs.sum(-1)[:, :, None] + targets.sum(-1)[:, None, :]
    return 1.0 - (2.0 * _pairs(probs, targets) + 1.0) / (total + 1.0)


def probability_logits(p: jax.Array, eps: float = 1e-6) -> jax.Array:
    """Logits of probabilities, for losses on unions of masks (Eq. 10).

    Args:
      p: any shape; clipped to [eps, 1 - eps], so values and gradients are finite everywhere (the
        gradient is 0 beyond the clip, at most 1 / eps within it).
      eps: at least 1e-7, what float32 can still tell from 0 and 1.

    Returns:
      float32, the shape of `p`.
    """
    p = jnp.clip(p.astype(jnp.float32), eps, 1.0 - eps)
    return jnp.log(p) - jnp.log1p(-p)


def _focal_terms(logits: jax.Array, *, alpha: float, gamma: float) -> tuple[jax.Array, jax.Array]:
    """A pixel's focal loss if it lies inside the target, and if outside; the shape of `logits`."""
    miss_outside = jax.nn.softplus(logits)
    # softplus(-x), by a subtraction instead of an exponential and a logarithm. It loses what is
    # below the rounding of a large x: nothing beside the other pixels' losses.
    miss_inside = miss_outside - logits
    # 1 - p = exp(-softplus(x)): the modulating factor without the cancellation of 1 - p, and, as
    # no power of a rounded zero is taken, with a finite gradient for every gamma.
    inside = alpha * jnp.exp(-gamma * miss_outside) * miss_inside
    outside = (1.0 - alpha) * jnp.exp(-gamma * miss_inside) * miss_outside
    return inside, outside


def _on_known(
    logits: jax.Array, targets: jax.Array, known: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Casts to float32 and clears unknown pixels: of the inputs, so that gradients stay clean."""
    if logits.shape != targets.shape:
        raise ValueError(f"logits {logits.shape} and targets {targets.shape} must agree in shape")
    known = jnp.broadcast_to(known, logits.shape)
    logits = jnp.where(known, logits.astype(jnp.float32), 0.0)
    targets = jnp.where(known, targets.astype(jnp.float32), 0.0)
    return logits, targets, known.astype(jnp.float32)


def _flat_on_known(
    logits: jax.Array, targets: jax.Array, known: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`_on_known` for pairs: [B, N, P], [B, M, P] and [B, 1, P] with P = h * w."""
    if logits.shape[-2:] != targets.shape[-2:] or known.shape[-2:] != logits.shape[-2:]:
        raise ValueError(
            f"logits {logits.shape}, targets {targets.shape} and known {known.shape} must lie on "
            "one grid"
        )
    known = known[:, None]
    logits = jnp.where(known, logits.astype(jnp.float32), 0.0)
    targets = jnp.where(known, targets.astype(jnp.float32), 0.0)
    flat = [x.reshape(*x.shape[:2], -1) for x in (logits, targets, known.astype(jnp.float32))]
    return flat[0], flat[1], flat[2]


def _pairs(queries: jax.Array, segments: jax.Array) -> jax.Array:
    """Inner products [B, N, P] x [B, M, P] -> [B, N, M], in full float32 on every accelerator."""
    return jnp.einsum("bnp,bmp->bnm", queries, segments, precision=jax.lax.Precision.HIGHEST)


def _at_least_one(count: jax.Array) -> jax.Array:
    return jnp.maximum(count, 1.0)
