"""Tables in Markdown of a study's finished cells; `study.py` runs the cells."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rc2l_jax.reports.history import read_evaluations

BASELINE = "supervised"
PSEUDO = {
    "segments right": "pseudo/accuracy",
    "pixels right": "pseudo/pixel_accuracy",
    "covered": "pseudo/coverage",
}

Tables = Mapping[str, Sequence[str]]
Groups = Mapping[str, Sequence[str]]
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
Score = Callable[[Mapping[str, Any]], float | None]  # of an evaluation


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


def report(
    tables: Mapping[str, list[Cell]], baselines: Baselines, groups: Groups | None = None
) -> str:
    """All tables, as Markdown.

    Args:
      tables: the finished cells of each table.
      baselines: the finished supervised cells, by partition and seed.
      groups: the classes of each group of which the mean IoU is shown as well.
    """
    parts = []
    for name, cells in tables.items():
        table = partitions_table if len(by_partition(cells)) > 1 else methods_table
        parts.append(f"## {name}\n\n{table(cells, baselines)}")
        if groups:
            title = f"## {name}, mean IoU of groups of classes"
            parts.append(f"{title}\n\n{groups_table(cells, baselines, groups)}")
        for partition, some in by_partition(cells).items():
            if len({cell.seed for cell in some}) > 1:
                title = f"## {', '.join(dict.fromkeys((name, partition)))}"
                parts.append(f"{title}, each seed\n\n{seeds_table(some, baselines)}")
                parts.append(f"{title}, IoU of each class\n\n{classes_table(some)}")
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
    partitions = list(by_partition(cells))
    lines = [["", *partitions]]
    for method, runs in by_method(cells).items():
        line, groups = [method], by_partition(runs)
        for partition in partitions:
            group = groups.get(partition, [])
            text = spread([c.last["teacher_miou"] for c in group])
            if group and method != BASELINE:
                text += f" (gain {gain(group, baselines)})"
            line.append(text)
        lines.append(line)
    return markdown(lines)


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


def groups_table(cells: list[Cell], baselines: Baselines, groups: Groups) -> str:
    """One row for each method and partition: the teacher's mean IoU of each group, and its gain."""
    lines = [["", "labels", "seeds", *(head for name in groups for head in (name, "gain"))]]
    for partition, some in by_partition(cells).items():
        for method, runs in by_method(some).items():
            line = [method, partition, str(len(runs))]
            for classes in groups.values():
                score = functools.partial(mean_iou, classes=classes)
                line.append(spread([score(cell.last) for cell in runs]))
                line.append("" if method == BASELINE else gain(runs, baselines, score))
            lines.append(line)
    return markdown(lines)


def mean_iou(evaluation: Mapping[str, Any], classes: Sequence[str]) -> float | None:
    """The teacher's mean IoU of those of the classes that occur; None if none does."""
    found = [iou for name in classes if (iou := evaluation["teacher_iou"][name]) is not None]
    return mean(found) if found else None


def by_method(cells: list[Cell]) -> dict[str, list[Cell]]:
    """The cells of each method; methods and cells keep their order."""
    methods = dict.fromkeys(cell.method for cell in cells)
    return {method: [c for c in cells if c.method == method] for method in methods}


def by_partition(cells: list[Cell]) -> dict[str, list[Cell]]:
    """The cells of each partition; partitions and cells keep their order."""
    partitions = dict.fromkeys(cell.partition for cell in cells)
    return {partition: [c for c in cells if c.partition == partition] for partition in partitions}


def teacher_miou(evaluation: Mapping[str, Any]) -> float | None:
    """The teacher's mIoU of an evaluation."""
    return evaluation["teacher_miou"]


def gain(cells: list[Cell], baselines: Baselines, score: Score = teacher_miou) -> str:
    """A score of the teacher minus that of the baseline with the same labelled images."""
    pairs = [(cell.last, baselines.get((cell.partition, cell.seed))) for cell in cells]
    scores = [(score(last), score(baseline.last)) for last, baseline in pairs if baseline]
    return spread([x - y for x, y in scores if None not in (x, y)])


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
