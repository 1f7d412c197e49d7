"""Bipartite matching of queries and segments: the cost of every pair, and the best assignment.

The cost is MaskFormer's (`mask_former/modeling/matcher.py`). Where a cost of an image in a decoder
layer is not finite, nothing is matched in that image and layer, and that is reported; Hugging
Face's port replaces such a cost by a huge one and matches anyway.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import linear_sum_assignment

from rc2l_jax.method.losses import mask
from rc2l_jax.structs import Assignment, Segments

MATCHERS = ("host", "device")  # see `assign`

# Larger costs count as not finite. With them the float32 potentials of the device matcher would
# overflow, and its loops would never end.
_LARGEST_COST = 1e30

# Elements of each argument of the host callback: 64 KiB of float32. The CPU runtime copies larger
# arguments (from 100 KiB on) on its thread pool, and the callback waits for the copy. Under pmap
# all threads of that pool may be waiting in a collective for the very device that runs the
# callback: a deadlock. Smaller arguments are copied at once, by the callback's own thread.
_PIECE_SIZE = 16 * 1024


def matching_cost(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    segments: Segments,
    *,
    class_weight: float,
    focal_weight: float,
    dice_weight: float,
    focal_alpha: float,
    focal_gamma: float,
) -> jax.Array:
    """Cost of matching query n to segment m, for all pairs; no gradient passes.

    Args:
      class_logits: [B, N, K+1].
      mask_logits: [B, N, h, w].
      segments: with masks [B, M, h, w], on the grid of `mask_logits`. Invalid slots are not read.
      class_weight: weight of the class cost, which is minus the probability of the segment's class.
      focal_weight: weight of the focal loss on known pixels.
      dice_weight: weight of the dice loss on known pixels.
      focal_alpha: weight of pixels inside the segment in the focal loss; outside it is 1 - alpha.
      focal_gamma: exponent of the focal loss's modulating factor.

    Returns:
      float32 [B, N, M]; 0 in the columns of invalid slots.
    """
    class_logits, mask_logits = jax.lax.stop_gradient((class_logits, mask_logits))
    valid = segments.valid
    classes = jnp.where(valid, segments.classes, 0)
    masks = jnp.where(valid[..., None, None], segments.masks, 0)

    probs = jax.nn.softmax(class_logits.astype(jnp.float32))
    class_cost = -jnp.take_along_axis(probs, classes[:, None, :], axis=-1)
    focal_cost = mask.pairwise_focal(
        mask_logits, masks, segments.known, alpha=focal_alpha, gamma=focal_gamma
    )
    dice_cost = mask.pairwise_dice(mask_logits, masks, segments.known)
    cost = class_weight * class_cost + focal_weight * focal_cost + dice_weight * dice_cost
    return jnp.where(valid[:, None, :], cost, 0.0)


def assign(cost: jax.Array, valid: jax.Array, *, matcher: str) -> tuple[Assignment, jax.Array]:
    """The one-to-one assignment of least total cost, for every matrix in the batch.

    Args:
      cost: [..., N, M].
      valid: bool [..., M], the columns to assign; the others are not read.
      matcher: "host" for scipy, in one callback for the whole batch; "device" for optax, without a
        callback. Both find the least cost; where several assignments have it, they may choose
        different ones. "host" needs JAX's CPU backend beside the accelerator's
        (JAX_PLATFORMS=cuda,cpu, or unset).

    Returns:
      The assignment [..., M], and bool [...], whether all costs of valid columns are finite (and
      below 1e30). Where they are not, nothing is matched. Elsewhere every valid column is matched,
      or, if there are more than N of them, the N that cost the least together.

    Raises:
      ValueError: `matcher` is neither "host" nor "device", or the shapes disagree.
    """
    if matcher not in MATCHERS:
        raise ValueError(f"matcher = {matcher!r} is not one of {', '.join(MATCHERS)}")
    if valid.shape != (*cost.shape[:-2], cost.shape[-1]):
        raise ValueError(
            f"cost {cost.shape} needs valid {(*cost.shape[:-2], cost.shape[-1])}, not {valid.shape}"
        )
    cost = jax.lax.stop_gradient(cost).astype(jnp.float32)
    usable = jnp.abs(cost) < _LARGEST_COST  # False for NaN as well
    ok = (usable | ~valid[..., None, :]).all((-2, -1))
    columns = valid & ok[..., None]
    if cost.size == 0:
        query = jnp.full(valid.shape, -1, jnp.int32)
    else:
        cost = jnp.where(columns[..., None, :], cost, 0.0)
        solve = _solve_on_host if matcher == "host" else _solve_on_device
        query = solve(
            cost.reshape(-1, *cost.shape[-2:]), columns.reshape(-1, columns.shape[-1])
        ).reshape(valid.shape)
    return Assignment(query=jnp.maximum(query, 0), matched=query >= 0), ok


def _solve_on_host(cost: jax.Array, columns: jax.Array) -> jax.Array:
    """[G, N, M] finite costs and bool [G, M] -> int32 [G, M] queries, -1 where not matched."""
    flat = jnp.where(columns[:, None, :], cost, jnp.inf).reshape(-1)
    pieces = [flat[i : i + _PIECE_SIZE] for i in range(0, flat.size, _PIECE_SIZE)]
    callback = functools.partial(_scipy_assign, shape=cost.shape)
    result = jax.ShapeDtypeStruct(columns.shape, jnp.int32)
    # "sequential", because pieces that vmap stacks would exceed the piece size. Leading axes of the
    # cost need no vmap: `assign` has flattened them, and they share one callback.
    return jax.pure_callback(callback, result, *pieces, vmap_method="sequential")


def _scipy_assign(*pieces: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The callback on the host. It uses NumPy and SciPy alone.

    A JAX computation would wait for threads that may be waiting for this callback.

    Args:
      *pieces: the flattened costs, in order; columns to leave out are infinite.
      shape: G, N, M.

    Returns:
      int32 [G, M] queries, -1 where not matched.
    """
    cost = np.concatenate([np.asarray(piece) for piece in pieces]).reshape(shape)
    columns = np.isfinite(cost[:, 0])
    query = np.full(columns.shape, -1, np.int32)
    for one_cost, one_columns, one_query in zip(cost, columns, query):
        chosen = np.flatnonzero(one_columns)
        rows, cols = linear_sum_assignment(one_cost[:, chosen])
        one_query[chosen[cols]] = rows
    return query


def _solve_on_device(cost: jax.Array, columns: jax.Array) -> jax.Array:
    """As `_solve_on_host`, with optax's Hungarian algorithm and without a callback."""
    return jax.vmap(_optax_assign)(cost, columns)


def _optax_assign(cost: jax.Array, columns: jax.Array) -> jax.Array:
    """As `_solve_on_host` for one matrix: cost [N, M] and bool [M] -> int32 [M]."""
    num_queries, num_columns = cost.shape
    # A column to leave out costs 0 for every query, which does not change the optimum of the other
    # columns as long as every column gets a query. With more columns than queries some do not. Then
    # the columns to leave out must be matched last, so each costs more than rearranging the others
    # could ever save.
    spare = 0.0
    if num_columns > num_queries:
        spread = cost.max() - cost.min()
        spare = cost.max() + (num_queries + 1) * spread + 1.0
    rows, cols = optax.assignment.hungarian_algorithm(jnp.where(columns, cost, spare))
    query = jnp.full(num_columns, -1, jnp.int32).at[cols].set(rows.astype(jnp.int32))
    return jnp.where(columns, query, -1)
