"""Reads a run's evaluations and confusion matrices back from its directory."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from etils import epath


def confusions_path(workdir: epath.Path, step: int) -> epath.Path:
    """Returns the path of an evaluation's confusion matrices."""
    return workdir / "figures" / f"step_{step:08d}_confusion.json"


def read_confusions(
    workdir: epath.PathLike, step: int
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Reads an evaluation's confusion matrices.

    Args:
      workdir: the run directory.
      step: the evaluated step.

    Returns:
      {network: int64 [K, K]}, rows are true classes, columns predicted ones; and K class names.
    """
    document = json.loads(confusions_path(epath.Path(workdir), step).read_text())
    counts = {name: np.array(rows, np.int64) for name, rows in document["confusion"].items()}
    return counts, tuple(document["class_names"])


def read_evaluations(workdir: epath.Path) -> list[dict[str, Any]]:
    """Reads all lines of evaluations.jsonl, in order; [] if there is no such file.

    Lines that are no JSON, such as one that a crash has cut off, are left out.
    """
    path = workdir / "evaluations.jsonl"
    evaluations = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            evaluations.append(json.loads(line))
        except ValueError:
            continue
    return evaluations
