"""Bipartite matching of queries and segments: the cost of every pair, and the best assignment.

The cost is MaskFormer's (`mask_former/modeling/matcher.py`). Unlike Hugging Face's port, which
turns a non-finite cost into a huge one and matches anyway, an image with a non-finite cost matches
nothing and says so.
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

# Costs beyond this count as not finite: sums of float32 potentials would overflow in the device
# matcher, whose loops then never end.
_LARGEST_COST = 1e30

# Elements of one argument of the host callback: 64 KiB of float32. The CPU runtime copies a
# callback's argument of 100 KiB or more on its thread pool, and the callback waits for the copy.
# Under pmap that pool's threads may all be waiting, in a collective, for the device whose callback
# it is: a deadlock. Smaller arguments are copied at once, by the callback's own thread.
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
    """Cost of giving query n to segment m; no gradient passes.

    Args:
      class_logits: [B, N, K+1].
      mask_logits: [B, N, h, w].
      segments: masks [B, M, h, w], on the grid of `mask_logits`. Invalid slots are not read.
      class_weight: weight of minus the probability of the segment's class.
      focal_weight: weight of the focal loss on known pixels.
      dice_weight: weight of the dice loss on known pixels.
      focal_alpha: see `mask.focal_loss`.
      focal_gamma: see `mask.focal_loss`.

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
      matcher: "host", scipy in one callback for the whole batch, or "device", without a callback.
        Both reach the same cost; where several assignments do, they may choose differently. "host"
        needs JAX's CPU backend beside the accelerator's (JAX_PLATFORMS=cuda,cpu, or unset).

    Returns:
      The assignment [..., M]: every valid column is matched, or the cheapest N of them if there are
      more than N; and bool [...], False where a valid column holds a cost that is not finite
      (or beyond 1e30): nothing is matched there.

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
    # "sequential", as stacked pieces would exceed the piece size. Leading axes of the cost, which
    # need no vmap, share one callback.
    return jax.pure_callback(callback, result, *pieces, vmap_method="sequential")


def _scipy_assign(*pieces: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The host's side: NumPy alone, as a JAX computation would wait for threads that wait for it.

    Args:
      *pieces: of the flattened costs; columns to leave out are infinite.
      shape: G, N, M.

    Returns:
      int32 [G, M].
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
    """`_solve_on_host` by optax's Hungarian algorithm."""
    return jax.vmap(_optax_assign)(cost, columns)


def _optax_assign(cost: jax.Array, columns: jax.Array) -> jax.Array:
    """[N, M], bool [M] -> int32 [M]."""
    num_queries, num_columns = cost.shape
    # Columns left out cost every query the same, which does not move the optimum of the others as
    # long as all columns are matched. With more columns than queries they must come last instead:
    # dearer than any rearrangement of the others could save.
    spare = 0.0
    if num_columns > num_queries:
        spread = cost.max() - cost.min()
        spare = cost.max() + (num_queries + 1) * spread + 1.0
    rows, cols = optax.assignment.hungarian_algorithm(jnp.where(columns, cost, spare))
    query = jnp.full(num_columns, -1, jnp.int32).at[cols].set(rows.astype(jnp.int32))
    return jnp.where(columns, query, -1)
