"""A run directory belongs to one config; files in it are replaced whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rc2l_jax.checkpoints import CheckpointError
from rc2l_jax.config import flatten

_SPLITS = "splits"  # in config.json, beside the config's own keys

# Keys that may differ between a run and its continuation: they change no parameter, except
# `num_steps`, by which a run is prolonged (the schedule follows the new value from there on).
CHANGEABLE = frozenset(
    {
        "num_steps",
        "log_every_steps",
        "eval_every_steps",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "num_pictures",
        "compilation_cache",
        "profile",
        "eval_batch_size",
        "eval.scales",
        "eval.flip",
        "eval.window",
        "eval.window_stride",
        "eval.max_shapes",
        "data.dir",
        "data.unlabeled_dir",
        "data.prepared_dir",
    }
)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    os.replace(partial, path)


def write_run_config(workdir: Path, config: ConfigDict, used: Mapping[str, Any]) -> None:
    """Writes config.json: the config, and under "splits" the images that the run uses.

    Args:
      workdir: the run directory.
      config: of the run.
      used: see `check.describe_subsets`.
    """
    write_json(workdir / "config.json", config.to_dict() | {_SPLITS: dict(used)})


def differing_keys(stored: Mapping[str, Any], config: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Returns {dotted key: (stored value, new value)}; a key one side lacks is "absent" there."""
    old, new = flatten(stored), flatten(json.loads(json.dumps(config.to_dict())))
    pairs = {key: (old.get(key, "absent"), new.get(key, "absent")) for key in {**old, **new}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def check_run_config(workdir: Path, config: ConfigDict, used: Mapping[str, Any]) -> list[str]:
    """Refuses to go on with a run of another config, before anything is written.

    Args:
      workdir: the run directory, which need not exist. Without a checkpoint in it there is nothing
        to go on with, and the config may have changed freely.
      config: of the run to start or go on with.
      used: the images it uses, see `check.describe_subsets`.

    Returns:
      A phrase for each key that has changed and may.

    Raises:
      CheckpointError: the directory's config.json differs in a key that matters or names other
        images, or is damaged.
    """
    path = workdir / "config.json"
    if not path.is_file() or not any((workdir / "checkpoints").glob("*")):
        return []
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): use another --workdir") from error
    before = stored.pop(_SPLITS, {})
    differing = differing_keys(stored, config)
    phrases = {key: describe_change(key, *pair) for key, pair in differing.items()}
    if refused := [phrase for key, phrase in phrases.items() if key not in CHANGEABLE]:
        raise CheckpointError(
            f"{workdir} belongs to a run of another config: {'; '.join(refused)}. "
            "Use another --workdir, or that run's config"
        )
    changed = [name for name in used if _images(before, name) != _images(used, name)]
    if before and changed:
        raise CheckpointError(
            f"{workdir} belongs to a run on other images: {', '.join(changed)}. The list file or "
            "the data set has changed since; use another --workdir, or the former ones"
        )
    return list(phrases.values())


def _images(used: Mapping[str, Any], name: str) -> Any:
    entry = used.get(name, {})
    return entry.get("examples"), entry.get("checksum"), entry.get("content")


def describe_change(key: str, old: Any, new: Any) -> str:
    """Returns one differing key as a phrase."""
    return f"{key} was {old!r} and is now {new!r}"


def check_same_model(stored: dict[str, Any], config: ConfigDict, workdir: Path) -> None:
    """Raises CheckpointError if the config describes another network than the stored one."""
    decisive = ("model.", "data.name", "data.num_classes")
    changes = [
        describe_change(key, *pair)
        for key, pair in differing_keys(stored, config).items()
        if key.startswith(decisive) and key != "model.dropout"
    ]
    if changes:
        raise CheckpointError(
            f"the checkpoint in {workdir} was trained with another model: {'; '.join(changes)}"
        )
