"""Reads trained networks, and their class names, back from a run directory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from data.catalog import open_dataset
from rc2l_jax.method.optimizer import create_optimizer
from rc2l_jax.method.state import initial_state
from rc2l_jax.models.maskformer import MaskFormer, build_model
from rc2l_jax.run.checkpoints import Checkpoints
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.stored_config import check_same_model, stored_class_names, stored_config

NETWORKS = ("teacher", "student")


def restore_run(
    config: ConfigDict, workdir: epath.Path, step: int | None = None
) -> tuple[MaskFormer, int, dict[str, Any], dict[str, Any]]:
    """Reads student and teacher of a checkpoint.

    Args:
      config: the run's config; it must describe the model that the run trained. If its
        `data.num_classes` is 0, it is set to the run's.
      workdir: the run directory.
      step: the checkpoint's step; None for the newest.

    Returns:
      The model, the checkpoint's step, {"student": {"params", "batch_stats"}, "teacher": ...} of
      NumPy arrays, and the checkpoint's metadata.

    Raises:
      CheckpointError: there is no such checkpoint, it cannot be read, or it is of another model.
    """
    if stored := stored_config(workdir):  # first: differing keys say more than differing shapes
        if not config.data.num_classes:
            config.data.num_classes = stored["data"]["num_classes"]
        check_same_model(stored, config, workdir)
    elif not config.data.num_classes:
        open_dataset(config.data)
    model = build_model(config)
    template = jax.eval_shape(lambda: initial_state(model, create_optimizer(config), config))
    with Checkpoints(workdir) as checkpoints:
        step, networks, metadata = checkpoints.restore_networks(template, step)
    check_same_model(metadata["config"], config, workdir)
    return model, step, networks, metadata


def run_classes(workdir: epath.Path, config: ConfigDict) -> Sequence[str]:
    """Returns the K class names that the run directory keeps; else those of its data set.

    Raises:
      DataError: the directory does not keep K class names (an older run), and the data set cannot
        be opened.
    """
    names = stored_class_names(workdir)
    if len(names) == config.data.num_classes:
        return names
    return open_dataset(config.data).class_names


def teacher_of_run(init_from: str) -> dict[str, np.ndarray] | None:
    """Reads the teacher of a run's newest checkpoint, if `init_from` is a run directory.

    Args:
      init_from: the config's `init_from`: weights of any kind, or a run directory.

    Returns:
      {path such as "backbone/res2_0/conv1/kernel": array}, of whatever model the run trained; None
      if `init_from` is not a run directory.

    Raises:
      CheckpointError: the run has no checkpoint, or it cannot be read.
    """
    if not init_from or not (run_path(init_from) / "checkpoints").exists():
        return None
    with Checkpoints(run_path(init_from)) as checkpoints:
        return checkpoints.restore_teacher()
