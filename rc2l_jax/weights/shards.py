"""Weights in several files (shards), and the index that says which array is in which.

Format: that of `transformers`, {"weight_map": {name: file}}, beside the shards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from rc2l_jax.weights.errors import WeightsError

INDEX_SUFFIX = ".index.json"
# A plain name, so that an index reaches no other folder, and asks a hub for no pattern.
_SHARD_NAME = re.compile(r"[\w-][\w.-]*\.(safetensors|bin|pth|pt)")


def read_index(path: Path) -> dict[str, set[str]]:
    """Reads an index of shards.

    Returns:
      {name of a shard's file: names of the arrays in it}, in the order of the files' names.

    Raises:
      WeightsError: it is no such index, or names anything but files beside it.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not JSON ({error})") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{path}: no index of shards, as it has no weight_map")
    shards: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not _SHARD_NAME.fullmatch(shard):
            raise WeightsError(
                f"{path}: puts {name} into {shard!r}; it may name .safetensors, .bin, .pth and .pt "
                "files of its own folder only"
            )
        shards.setdefault(shard, set()).add(name)
    return dict(sorted(shards.items()))


def check_shard(index: Path, shard: str, listed: set[str], found: Iterable[str]) -> None:
    """Checks that a shard has the arrays that the index puts into it, and no others.

    Raises:
      WeightsError: it has not, or it has others.
    """
    found = set(found)
    for names, what in ((listed - found, "lacks"), (found - listed, "also has")):
        if names:
            first = ", ".join(sorted(names)[:5])
            raise WeightsError(
                f"{index}: does not fit {shard}, which {what} {len(names)} arrays: {first}. Get "
                "the index and all shards anew, from one place"
            )
