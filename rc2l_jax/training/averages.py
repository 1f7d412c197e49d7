"""Running averages of the training metrics."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from rc2l_jax.structs import Mean

Totals = dict[str, Mean]


@jax.jit
def _add(total: Totals, new: Totals) -> Totals:
    return jax.tree.map(jnp.add, total, new)


def accumulate(total: Totals | None, new: Totals) -> Totals:
    """Adds one step's metrics to the totals, on the device and without waiting for it.

    Args:
      total: the totals of the steps before, or None at the first step.
      new: the step's {name: (sum, count)}, float32 scalars.

    Returns:
      The totals, {name: (sum, count)}, of all steps so far.

    Raises:
      ValueError: the step's metrics have other names than the totals.
    """
    if total is None:
        return dict(new)
    if total.keys() != new.keys():
        raise ValueError(
            f"metrics changed between steps: {sorted(total.keys() ^ new.keys())} are not in both"
        )
    return _add(dict(total), dict(new))


def summarize(total: Totals | None) -> dict[str, float]:
    """Divides sums by counts, on the host. Metrics with a count of 0 are left out.

    Args:
      total: {name: (sum, count)}, or None if no step was taken.

    Returns:
      {name: mean}.
    """
    host: Mapping[str, Mean] = jax.device_get(total or {})
    return {name: float(sum_ / count) for name, (sum_, count) in host.items() if count}
