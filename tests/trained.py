"""A trained network for comparing steps: an untrained one is near ties, where rounding chooses.

It is that of `former_run.zip`, with the whole method turned on. The learning rate is the paper's; a
larger one makes rounding grow faster from step to step.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from data.shapes import drawing
from rc2l_jax.method.state import create_train_state
from rc2l_jax.run.checkpoints import Checkpoints
from rc2l_jax.run.stored_config import run_config
from rc2l_jax.structs import Batch

SETTINGS = {
    "num_steps": 120_000,
    "learning_rate": 1e-4,
    "matcher": "host",
    "model.dropout": 0.1,
    "strong_color": "jitter",
    "pseudo.pixel_threshold": 0.3,
}


def unpack(folder: Path) -> Path:
    """Unpacks the run into a folder, and returns it."""
    with zipfile.ZipFile(Path(__file__).with_name("former_run.zip")) as archive:
        archive.extractall(folder)
    return folder


def restore(run: str | Path, images: int, **settings: object) -> tuple[ConfigDict, Any, Any, Any]:
    """The run's config for batches of `images` of each kind, model, optimiser and state."""
    config = run_config(epath.Path(run))
    sizes = {"batch_size": images, "unlabeled_batch_size": images}
    config.update_from_flattened_dict(SETTINGS | sizes | settings)
    model, optimizer, state = create_train_state(config)
    with Checkpoints(epath.Path(run)) as checkpoints:
        state, _ = checkpoints.restore(state)
    return config, model, optimizer, state


def batch(config: ConfigDict, number: int) -> Batch:
    """Drawn images, [B, ...]: the `number`-th batch."""
    images = config.batch_size
    drawn = [
        drawing.draw(0, "train", 2 * images * number + i, config.data.crop_size)
        for i in range(2 * images)
    ]
    image, label = (np.stack(part) for part in zip(*drawn))
    valid = np.ones(label.shape, bool)
    unlabeled = (x[images:] for x in (image, valid, label))
    return Batch(image[:images], label[:images], valid[:images], *unlabeled)
