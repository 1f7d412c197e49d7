"""`--mode=check` and `--mode=prepare`: config and data, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data import masks, splits
from data.errors import DataError
from data.records import Dataset, Key
from rc2l_jax import input_pipeline
from rc2l_jax.config import validate
from rc2l_jax.structs import VOID

_CHUNK = 64  # masks in memory at a time


def prepare(config: ConfigDict) -> None:
    """Makes the data set's records if they are not there, and prints what they hold.

    Raises:
      ConfigError: the config cannot be run.
      DataError: the data set cannot be used.
    """
    validate(config, num_devices=1)
    info = input_pipeline.dataset_info(config)
    counts = ", ".join(f"{count} {split}" for split, count in info.num_examples.items())
    print(f"{info.name}: {counts} examples, {len(info.class_names)} classes")


def check(config: ConfigDict) -> None:
    """Checks config, splits and every mask that will be read; prints a histogram of the classes.

    Raises:
      ConfigError: the config cannot be run on this machine's devices.
      DataError: the data cannot be used; its message lists every problem.
    """
    validate(config, jax.device_count())
    try:
        dataset, subsets = input_pipeline.open_subsets(
            config, with_unlabeled=config.unsup_weight > 0
        )
        read = (*subsets.labeled, *subsets.evaluation)
        if errors := [error for key in read if (error := dataset.example(key).label_error)]:
            raise DataError(errors)
    except DataError as error:
        for problem in error.problems:
            print(problem)
        raise DataError(f"{len(error.problems)} problem(s) found in the data") from error
    for name, used in describe_subsets(config, dataset, subsets).items():
        print(f"{name}: {used['examples']} examples ({used['split']}), {used['checksum']}")
    if subsets.overlap:
        print(f"{len(subsets.overlap)} examples of both count as labelled only")
    names = ("labeled", "evaluation")
    shares = [class_shares(dataset, getattr(subsets, name)) for name in names]
    print(f"{'share of pixels':24}" + "".join(f"{name:>12}" for name in names))
    for index, name in [*enumerate(dataset.class_names), (VOID, "(void)")]:
        print(f"{name:24}" + "".join(f"{share[index]:12.3%}" for share in shares))
    absent = [n for i, n in enumerate(dataset.class_names) if shares[0][i] == 0]
    if absent:
        print(f"warning: no labelled example shows {', '.join(absent)}: they cannot be learned")
    print("config and data are fine")


def describe_subsets(
    config: ConfigDict, dataset: Dataset, subsets: splits.Subsets
) -> dict[str, dict[str, Any]]:
    """Returns what each split text of a run names.

    Returns:
      {"labeled": {"split", "examples": their number, "checksum": to compare runs by},
      "unlabeled": ..., "evaluation": ...}; without "unlabeled" in supervised training.
    """
    texts = {
        "labeled": config.data.labeled_split,
        "unlabeled": config.data.unlabeled_split,
        "evaluation": config.data.eval_split,
    }
    ids = dataset.ids()
    return {
        name: {"split": text, "examples": len(keys), "checksum": splits.checksum(keys, ids)}
        for name, text in texts.items()
        if (keys := getattr(subsets, name))
    }


def class_shares(dataset: Dataset, keys: Sequence[Key]) -> np.ndarray:
    """Returns each id's share of all pixels of the masks of `keys`: float64 [256]."""
    counts = np.zeros(256, np.int64)
    for start in range(0, len(keys), _CHUNK):
        _, encoded = dataset.fetch(keys[start : start + _CHUNK], labels=True)
        for mask in encoded:
            counts += np.bincount(masks.decode_mask(mask).ravel(), minlength=256)
    return counts / max(counts.sum(), 1)
