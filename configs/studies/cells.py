"""What the studies' files share: the names of their cells, and overrides that several have."""

import functools
from typing import Any

from ml_collections import ConfigDict

from configs import base, paper

TERMS = ("smc", "rcc", "rmc", "rfc")


def row(*methods: str, partition: str, seeds: int = 1) -> list[str]:
    """The cells of some methods on one partition, METHOD-PARTITION-SEED."""
    return [f"{method}-{partition}-{seed}" for seed in range(seeds) for method in methods]


def without(*terms: str) -> dict[str, float]:
    """Overrides that leave out some of the four losses."""
    return {f"unsup.{term}_weight": 0.0 for term in terms}


def consistency() -> dict[str, float]:
    """The baseline of the paper's Table 3, row 1: L_mask on matched pairs only, weighted as SMC."""
    return without(*TERMS) | {"unsup.consistency_weight": base.get_config().unsup.smc_weight}


def of_paper(*keys: str) -> dict[str, Any]:
    """Overrides with what `configs/paper.py` says of some keys; `pseudo` stands for all in it."""
    found: dict[str, Any] = {}
    for key in keys:
        value = functools.reduce(getattr, key.split("."), paper.get_config())
        several = isinstance(value, ConfigDict)
        found |= {f"{key}.{name}": value[name] for name in value} if several else {key: value}
    return found
