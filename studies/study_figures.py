"""Figures of a study's finished cells; `study.py` runs the cells, `study_report.py` reads them."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rc2l_jax.reports.pictures import save_png
from studies.study_report import BASELINE, PSEUDO, Baselines, Cell, by_method, by_partition


def write_figures(
    folder: Path, study: str, tables: Mapping[str, list[Cell]], baselines: Baselines
) -> list[Path]:
    """Draws each table: mIoU over steps and over labels, and pseudo labels.

    Over labels only if there are several partitions, each of another number of labels.

    Args:
      folder: to write PNG files to.
      study: the study's name, for titles.
      tables: the finished cells of each table.
      baselines: the finished supervised cells, by partition and seed.

    Returns:
      The paths of the files.
    """
    paths = []
    for name, cells in tables.items():
        for suffix, picture in pictures_of(cells, baselines, f"{study}, {name}").items():
            paths.append(folder / f"{name}_{suffix}.png")
            save_png(paths[-1], picture)
    return paths


def pictures_of(cells: list[Cell], baselines: Baselines, title: str) -> dict[str, np.ndarray]:
    """The pictures of one table: end of the file's name -> uint8 [H, W, 3]."""
    from rc2l_jax.reports import seed_curves  # tables alone need no matplotlib

    cells = sorted(cells, key=labels_of)  # a stable sort: methods keep their order
    partitions = by_partition(cells)
    several = len(partitions) > 1
    miou = {
        f"teacher's mIoU{f', {partition}' if several else ''}": series(some, miou_of)
        for partition, some in partitions.items()
    }
    of_all = f"{title}: {over_seeds(cells)}"
    pictures = {"curves": seed_curves.bands_chart(miou, BASELINE, of_all, one_scale=True)}
    # Where one number of labels was chosen in several ways, it does not say which one a dot shows.
    numbers = [count for some in partitions.values() for count in {labels_of(c) for c in some}]
    if several and len(numbers) == len(set(numbers)):
        pictures["labels"] = seed_curves.labels_chart(over_labels(cells), BASELINE, of_all)
    for partition, some in partitions.items():
        if panels := pseudo_panels(some, baselines):
            of_some = f"{title}, {partition}: {over_seeds(some)}"
            pictures[f"{partition}_pseudo_labels"] = seed_curves.bands_chart(
                panels, BASELINE, of_some
            )
    return pictures


def over_seeds(cells: list[Cell]) -> str:
    """For a title: of how many seeds a line of these cells is the mean."""
    counts = collections.Counter((cell.method, cell.partition) for cell in cells).values()
    least, most = min(counts), max(counts)
    if most == 1:
        return "one seed"
    return f"mean and deviation over {most if least == most else f'{least} to {most}'} seeds"


def over_labels(cells: list[Cell]) -> dict[str, list[dict[int, float | None]]]:
    """{method: [{number of labelled images: the teacher's mIoU} for each seed]}."""
    methods: dict[str, dict[str, dict[int, float | None]]] = {}
    for cell in cells:
        run = methods.setdefault(cell.method, {}).setdefault(cell.seed, {})
        run[labels_of(cell)] = cell.last["teacher_miou"]
    return {method: list(runs.values()) for method, runs in methods.items()}


def labels_of(cell: Cell) -> int:
    """The number of labelled images."""
    return cell.config["splits"]["labeled"]["examples"]


def series(
    cells: list[Cell], of: Callable[[Cell], dict[int, float | None]]
) -> dict[str, list[dict[int, float | None]]]:
    """{method: [{step: number} for each of its runs]}; `of` gives a run's numbers."""
    return {method: [of(cell) for cell in group] for method, group in by_method(cells).items()}


def pseudo_panels(cells: list[Cell], baselines: Baselines) -> dict[str, Any]:
    """Quality of the pseudo labels, and gain in mIoU, of the runs that have pseudo labels."""

    def metric(cell: Cell, key: str) -> dict[int, float | None]:
        return {line["step"]: line["metrics"].get(key) for line in cell.evaluations}

    def known(run: dict[int, float | None]) -> bool:
        return any(value is not None for value in run.values())

    cells = [cell for cell in cells if any(known(metric(cell, key)) for key in PSEUDO.values())]
    panels = {n: series(cells, lambda c, key=key: metric(c, key)) for n, key in PSEUDO.items()}
    panels["gain in mIoU"] = series(cells, lambda cell: gains_of(cell, baselines))
    return {
        name: methods
        for name, methods in panels.items()
        if any(known(run) for runs in methods.values() for run in runs)
    }


def gains_of(cell: Cell, baselines: Baselines) -> dict[int, float]:
    """Step -> the teacher's mIoU minus the baseline's, at steps with an evaluation of both."""
    baseline = baselines.get((cell.partition, cell.seed))
    before = miou_of(baseline) if baseline else {}
    pairs = {step: (miou, before.get(step)) for step, miou in miou_of(cell).items()}
    return {step: x - y for step, (x, y) in pairs.items() if None not in (x, y)}


def miou_of(cell: Cell) -> dict[int, float | None]:
    """The teacher's mIoU by step."""
    return {line["step"]: line["teacher_miou"] for line in cell.evaluations}
