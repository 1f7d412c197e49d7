"""Tables in Markdown, and figures, of a study's finished cells; `study.py` runs the cells."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from rc2l_jax.reports.history import read_evaluations
from rc2l_jax.reports.pictures import save_png

BASELINE = "supervised"
PSEUDO = {
    "segments right": "pseudo/accuracy",
    "pixels right": "pseudo/pixel_accuracy",
    "covered": "pseudo/coverage",
}

Tables = Mapping[str, Sequence[str]]
Evaluations = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A finished run.

    Attributes:
      method, partition, seed: the parts of its name.
      evaluations: the lines of its evaluations.jsonl, as `rc2l_jax.reports.history` reads them; the
        last one is the result.
      config: the content of its config.json.
    """

    method: str
    partition: str
    seed: str
    evaluations: Evaluations
    config: Mapping[str, Any]

    @property
    def last(self) -> dict[str, Any]:
        """The last evaluation."""
        return self.evaluations[-1]


Baselines = Mapping[tuple[str, str], Cell]  # by partition and seed


def read_cell(workdir: Path) -> Cell | None:
    """Reads a cell's run directory; None unless it has done all steps of its own config.json."""
    evaluations, path = read_evaluations(workdir), workdir / "config.json"
    if not evaluations or not path.is_file():
        return None
    config = json.loads(path.read_text())
    if evaluations[-1]["step"] < config["num_steps"]:
        return None
    return Cell(*workdir.name.split("-"), evaluations, config)


def names_of(tables: Tables) -> list[str]:
    """The names of all cells in the tables, each once."""
    return list(dict.fromkeys(name for names in tables.values() for name in names))


def read_tables(tables: Tables, output: Path) -> dict[str, list[Cell]]:
    """The finished cells of each table; a table without finished cells is left out."""
    found = {name: read_cell(output / name) for name in names_of(tables)}
    cells = {table: [found[n] for n in names if found[n]] for table, names in tables.items()}
    return {table: kept for table, kept in cells.items() if kept}


def read_baselines(tables: Tables, output: Path) -> dict[tuple[str, str], Cell]:
    """The finished supervised cells, by partition and seed."""
    names = [name for name in names_of(tables) if name.split("-")[0] == BASELINE]
    cells = [cell for name in names if (cell := read_cell(output / name))]
    return {(cell.partition, cell.seed): cell for cell in cells}


def report(tables: Mapping[str, list[Cell]], baselines: Baselines) -> str:
    """All tables, as Markdown."""
    parts = []
    for name, cells in tables.items():
        table = partitions_table if len(partitions_of(cells)) > 1 else methods_table
        parts.append(f"## {name}\n\n{table(cells, baselines)}")
        most = most_run(cells)
        if len({cell.seed for cell in most}) > 1:
            title = f"## {', '.join(dict.fromkeys((name, most[0].partition)))}"
            parts.append(f"{title}, each seed\n\n{seeds_table(most, baselines)}")
            parts.append(f"{title}, IoU of each class\n\n{classes_table(most)}")
    return "\n\n".join(parts)


def methods_table(cells: list[Cell], baselines: Baselines) -> str:
    """One row for each method: scores, gain over the baseline of the same seed, pseudo labels."""
    lines = [["", "seeds", "student", "teacher", "gain", *PSEUDO]]
    for method, group in by_method(cells).items():
        scores = [spread([c.last[f"{n}_miou"] for c in group]) for n in ("student", "teacher")]
        pseudo = [spread([c.last["metrics"].get(key) for c in group]) for key in PSEUDO.values()]
        lines.append([method, str(len(group)), *scores, gain(group, baselines), *pseudo])
    return markdown(lines)


def partitions_table(cells: list[Cell], baselines: Baselines) -> str:
    """Rows are methods, columns partitions: the teacher's mIoU, and its gain over the baseline."""
    partitions = partitions_of(cells)
    lines = [["", *partitions]]
    for method, runs in by_method(cells).items():
        line = [method]
        for partition in partitions:
            group = [cell for cell in runs if cell.partition == partition]
            text = spread([c.last["teacher_miou"] for c in group])
            if group and method != BASELINE:
                text += f" (gain {gain(group, baselines)})"
            line.append(text)
        lines.append(line)
    return markdown(lines)


def most_run(cells: list[Cell]) -> list[Cell]:
    """The cells of the partition that has the most of them."""
    partitions = [cell.partition for cell in cells]
    most = max(partitions, key=partitions.count)
    return [cell for cell in cells if cell.partition == most]


def seeds_table(cells: list[Cell], baselines: Baselines) -> str:
    """Rows are methods and their gains, columns seeds: the teacher's mIoU on one partition."""
    seeds = sorted({cell.seed for cell in cells}, key=int)
    lines = [["", *(f"seed {seed}" for seed in seeds), "mean"]]
    for method, runs in by_method(cells).items():
        groups = [[cell for cell in runs if cell.seed == seed] for seed in seeds]
        scores = [[cell.last["teacher_miou"] for cell in group] for group in (*groups, runs)]
        lines.append([method, *map(spread, scores)])
        if method != BASELINE:
            gains = [gain(group, baselines) for group in (*groups, runs)]
            lines.append([f"{method}, gain", *gains])
    return markdown(lines)


def classes_table(cells: list[Cell]) -> str:
    """Rows are classes, columns methods: the teacher's IoU on one partition."""
    methods = by_method(cells)
    lines = [["", *methods]]
    for name in next(iter(methods.values()))[0].last["teacher_iou"]:
        ious = [[c.last["teacher_iou"][name] for c in group] for group in methods.values()]
        lines.append([name, *map(spread, ious)])
    return markdown(lines)


def by_method(cells: list[Cell]) -> dict[str, list[Cell]]:
    """The cells of each method; methods and cells keep their order."""
    methods = dict.fromkeys(cell.method for cell in cells)
    return {method: [c for c in cells if c.method == method] for method in methods}


def partitions_of(cells: list[Cell]) -> list[str]:
    """The partitions that occur, in order."""
    return list(dict.fromkeys(cell.partition for cell in cells))


def gain(cells: list[Cell], baselines: Baselines) -> str:
    """The teacher's mIoU minus that of the baseline with the same labelled images."""
    pairs = [(cell.last, baselines.get((cell.partition, cell.seed))) for cell in cells]
    scores = [(x["teacher_miou"], y.last["teacher_miou"]) for x, y in pairs if y]
    return spread([x - y for x, y in scores if None not in (x, y)])


def gains_of(cell: Cell, baselines: Baselines) -> dict[int, float]:
    """Step -> the teacher's mIoU minus the baseline's, at steps with an evaluation of both."""
    baseline = baselines.get((cell.partition, cell.seed))
    before = miou_of(baseline) if baseline else {}
    pairs = {step: (miou, before.get(step)) for step, miou in miou_of(cell).items()}
    return {step: x - y for step, (x, y) in pairs.items() if None not in (x, y)}


def miou_of(cell: Cell) -> dict[int, float | None]:
    """The teacher's mIoU by step."""
    return {line["step"]: line["teacher_miou"] for line in cell.evaluations}


def write_figures(
    folder: Path, study: str, tables: Mapping[str, list[Cell]], baselines: Baselines
) -> list[Path]:
    """Draws each table: mIoU over steps, mIoU over labels if their number varies, pseudo labels.

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
    partitions = {p: [c for c in cells if c.partition == p] for p in partitions_of(cells)}
    several = len(partitions) > 1
    miou = {
        f"teacher's mIoU{f', {partition}' if several else ''}": series(some, miou_of)
        for partition, some in partitions.items()
    }
    of_all = f"{title}: {over_seeds(cells)}"
    pictures = {"curves": seed_curves.bands_chart(miou, BASELINE, of_all, one_scale=True)}
    if several:
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


def spread(values: list[float | None]) -> str:
    """Mean ± standard deviation of the values that are not None; "" if there are none."""
    values = [value for value in values if value is not None]
    if len(values) < 2:
        return "".join(f"{value:.3f}" for value in values)
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def markdown(lines: list[list[str]]) -> str:
    """A Markdown table; the first line is its head."""
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|---" * len(lines[0]) + "|", *body])
