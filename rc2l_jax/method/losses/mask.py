"""Focal and dice loss of masks: of pairs given one by one, or of all queries with all segments.

The definitions are MaskFormer's (`mask_former/modeling/criterion.py` and `matcher.py`), except that
only `known` pixels count, in the sums and in the number of pixels. If every pixel is known the
values are MaskFormer's. Callers add up the masks' losses and divide by the number of masks.

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

    It is linear in the targets: a target t gives t times the loss of a pixel inside plus 1 - t
    times that of a pixel outside.

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
    """`focal_loss` of every query with every segment, by a matrix product.

    Args:
      logits: [B, N, h, w].
      targets: bool or float in [0, 1], [B, M, h, w].
      known: bool [B, h, w].
      alpha: weight of the pixels inside the target; those outside get 1 - alpha.
      gamma: exponent of the modulating factor, at least 0.

    Returns:
      float32 [B, N, M].
    """
    logits, targets, known = _flat_on_known(logits, targets, known)
    inside, outside = _focal_terms(logits, alpha=alpha, gamma=gamma)
    # As if every pixel were outside, and the difference for those inside: one product, not two.
    total = (outside * known).sum(-1, keepdims=True) + _pairs(inside - outside, targets)
    return total / _at_least_one(known.sum(-1, keepdims=True))


def pairwise_dice(logits: jax.Array, targets: jax.Array, known: jax.Array) -> jax.Array:
    """`dice_loss` of every query with every segment, by a matrix product.

    Args:
      logits: [B, N, h, w].
      targets: bool or float in [0, 1], [B, M, h, w].
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
      p: any shape. It is clipped to [eps, 1 - eps], so that values and gradients are finite
        everywhere: the gradient is 0 outside of these bounds and about 1 / eps at most within.
      eps: at least 1e-7; in float32, 1 minus a much smaller number is 1.

    Returns:
      float32, the shape of `p`.
    """
    p = jnp.clip(p.astype(jnp.float32), eps, 1.0 - eps)
    return jnp.log(p) - jnp.log1p(-p)


def _focal_terms(logits: jax.Array, *, alpha: float, gamma: float) -> tuple[jax.Array, jax.Array]:
    """Each pixel's focal loss if it is inside the target, and if it is outside."""
    miss_outside = jax.nn.softplus(logits)
    # This is softplus(-x), by a subtraction instead of an exponential and a logarithm. For large x
    # rounding loses a value that is negligible beside other pixels' losses.
    miss_inside = miss_outside - logits
    if gamma >= 1 and float(gamma).is_integer():
        p = jax.nn.sigmoid(logits)
        easy_inside, easy_outside = (jax.lax.integer_pow(x, int(gamma)) for x in (1.0 - p, p))
    else:
        # The modulating factor (1 - p)^gamma is computed as exp(-gamma softplus(x)). This avoids
        # the infinite gradients that such gammas give where 1 - p is rounded to zero.
        easy_inside, easy_outside = (jnp.exp(-gamma * x) for x in (miss_outside, miss_inside))
    inside = alpha * easy_inside * miss_inside
    outside = (1.0 - alpha) * easy_outside * miss_outside
    return inside, outside


def _on_known(
    logits: jax.Array, targets: jax.Array, known: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Casts the inputs to float32 and sets their unknown pixels to 0.

    Clearing inputs, and not only losses, keeps NaNs of unknown pixels out of the gradients.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"logits {logits.shape} and targets {targets.shape} must agree in shape")
    known = jnp.broadcast_to(known, logits.shape)
    logits = jnp.where(known, logits.astype(jnp.float32), 0.0)
    targets = jnp.where(known, targets.astype(jnp.float32), 0.0)
    return logits, targets, known.astype(jnp.float32)


def _flat_on_known(
    logits: jax.Array, targets: jax.Array, known: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `_on_known`, for all pairs: [B, N, P], [B, M, P] and [B, 1, P] with P = h * w."""
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
