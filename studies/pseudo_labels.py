"""How good are a run's pseudo labels, class by class? Asks its teacher about labelled images.

    python studies/pseudo_labels.py --run=runs/mine
    python studies/pseudo_labels.py --run=runs/mine --split=train --batches=50

The teacher of the newest checkpoint makes pseudo segments of random crops, as in a training step of
the run, here of images whose masks are known (the run's evaluation images, unless --split says
others). The table says for each class which share of its pixels is named rightly, wrongly and not
at all; and, of the pixels that are called by the class's name, which share are of the class. The
student learns what is named, right or wrong.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

# Imported before JAX, because it keeps TensorFlow off the accelerator.
from rc2l_jax.input_pipeline.train_batches import train_batches

# isort: split
import jax
from etils import epath

from data.errors import DataError
from data.label_values import VOID
from data.splits import Subsets
from rc2l_jax.evaluation.confusion import confusion_matrix
from rc2l_jax.input_pipeline.subsets import RunData, open_split
from rc2l_jax.method.segments import nearest_downsample
from rc2l_jax.method.state import create_train_state
from rc2l_jax.run.checkpoints import CheckpointError, Checkpoints
from rc2l_jax.run.stored_config import run_config
from rc2l_jax.training.devices import parallel_views, replicate
from studies.study_report import markdown


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=epath.Path, required=True, help="a run directory")
    parser.add_argument("--split", default="", help="labelled images; the evaluation's by default")
    parser.add_argument("--batches", type=int, default=100)
    arguments = parser.parse_args()
    try:
        names, counts = count(arguments.run, arguments.split, arguments.batches)
    except (CheckpointError, DataError) as error:
        raise SystemExit(f"error: {error}") from error
    print(table(names, counts))


def count(run: epath.Path, split: str, batches: int) -> tuple[list[str], np.ndarray]:
    """Counts pixels of the mask grid by true class and by the pseudo label's.

    Args:
      run: the run directory.
      split: which images; "" for those that the run is evaluated on.
      batches: how many batches of them.

    Returns:
      The class names, and int64 [K, K + 1]; the last column counts pixels without a pseudo label.

    Raises:
      CheckpointError: the run has no checkpoint, or one that cannot be read.
      DataError: its data set or the split cannot be used.
    """
    config = run_config(run)
    config.data.eval_split = split or config.data.eval_split
    config.data.diagnostic_labels = True
    config.unsup_weight = 1.0  # a supervised run has a teacher, too
    num_classes = config.data.num_classes
    model, _, template = create_train_state(config)
    with Checkpoints(run) as checkpoints:
        state = replicate(checkpoints.restore(template)[0], 1)
    views, (dataset, keys) = parallel_views(model, config), open_split(config)
    counts = np.zeros((num_classes, num_classes + 1), np.int64)
    data = RunData(dataset, Subsets(labeled=keys, unlabeled=keys, evaluation=(), overlap=()))
    for _, batch in zip(range(batches), train_batches(config, data, 0, 1)):
        _, pseudo, _, _ = jax.device_get(views(state, batch))
        truth = np.asarray(nearest_downsample(batch.unlabeled_label, pseudo.shape[-2:]))
        called = np.where(pseudo == VOID, num_classes, pseudo)
        counts += np.asarray(confusion_matrix(called, truth, num_classes + 1))[:num_classes]
    return list(dataset.class_names), counts


def table(names: list[str], counts: np.ndarray) -> str:
    """The table in Markdown; `counts` as `count` returns them."""
    lines = [["", "share of pixels", "right", "wrong", "not named", "of those called so, right"]]
    total, right = counts.sum(1), counts.diagonal()
    called = counts.sum(0)[:-1]

    def shares(name: str, total: int, right: int, unnamed: int, called: int) -> list[str]:
        parts = (right, total - right - unnamed, unnamed)
        found = [f"{part / total:.2f}" if total else "" for part in parts]
        precision = f"{right / called:.2f}" if called else ""
        return [name, f"{total / counts.sum():.3f}", *found, precision]

    for i, name in enumerate(names):
        lines.append(shares(name, total[i], right[i], counts[i, -1], called[i]))
    lines.append(shares("all", total.sum(), right.sum(), counts[:, -1].sum(), called.sum()))
    return markdown(lines)


if __name__ == "__main__":
    main()
