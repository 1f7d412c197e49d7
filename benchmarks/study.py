"""Runs a study's cells, each a run directory, and makes its tables from what is there.

    python benchmarks/study.py --study=configs/studies/camvid.py --output=runs/camvid --jobs=2
    python benchmarks/study.py --study=configs/studies/camvid.py --output=runs/camvid --tables=terms
    python benchmarks/study.py --study=configs/studies/camvid.py --output=runs/camvid --report

A study is a config file whose `get_config(cell)` takes the name of a cell, METHOD-PARTITION-SEED,
with `TABLES`, the cells of each table. A cell that was stopped goes on where it was, a finished one
is not run again, and one that several tables show is run once. Flags after -- go to main.py:
`-- --config.data.dir=DIR`. --report prints Markdown, and is a study's only output.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from rc2l_jax.report import read_evaluations

ROOT = Path(__file__).parents[1]
BASELINE = "supervised"
PSEUDO = {
    "segments right": "pseudo/accuracy",
    "pixels right": "pseudo/pixel_accuracy",
    "covered": "pseudo/coverage",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A finished run.

    Attributes:
      method, partition, seed: its name.
      evaluations: see `report.read_evaluations`; the last one is the result.
    """

    method: str
    partition: str
    seed: str
    evaluations: list[dict[str, Any]]

    @property
    def last(self) -> dict[str, Any]:
        """The last evaluation."""
        return self.evaluations[-1]


def main() -> None:
    """Runs the cells that are missing, or reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, required=True, help="file in configs/studies/")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run directories")
    parser.add_argument("--tables", default="", help="comma-separated; all by default")
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at a time, on equal shares of cores"
    )
    parser.add_argument("--report", action="store_true", help="print the tables so far, and stop")
    parser.add_argument("flags", nargs="*", help="for main.py, after --")
    arguments = parser.parse_args()
    study = load(arguments.study)
    unknown = set(filter(None, arguments.tables.split(","))) - set(study.TABLES)
    if unknown:
        parser.error(f"--tables: {', '.join(unknown)}; the study has {', '.join(study.TABLES)}")
    wanted = arguments.tables.split(",") if arguments.tables else list(study.TABLES)
    tables = {name: study.TABLES[name] for name in wanted}
    if arguments.report:
        print(report(tables, arguments.output, study))
        return
    missing = [
        cell
        for cell in dict.fromkeys(cell for cells in tables.values() for cell in cells)
        if not finished(study, arguments.output / cell)
    ]
    run_all(arguments.study, missing, arguments.output, arguments.jobs, arguments.flags)


def load(path: Path) -> ModuleType:
    """Imports a study's file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finished(study: ModuleType, workdir: Path) -> bool:
    """Whether a cell has its last evaluation."""
    evaluations = read_evaluations(workdir)
    steps = study.get_config(workdir.name).num_steps
    return bool(evaluations) and evaluations[-1]["step"] >= steps


def run_all(study: Path, cells: list[str], output: Path, jobs: int, flags: list[str]) -> None:
    """Runs cells, `jobs` at a time; ends with an error that names those that failed."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shares = [set(cores[i::jobs]) or set(cores) for i in range(jobs)]
    failed = []

    def work(share: set[int]) -> None:
        if share:  # of this thread; the processes that it starts inherit it
            os.sched_setaffinity(0, share)
        while cells:
            cell = cells.pop(0)
            if status := run_cell(study, cell, output / cell, flags):
                failed.append(f"{cell} (status {status}, see {output / cell}.log)")

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, shares))
    if failed:
        raise SystemExit(f"not finished: {', '.join(failed)}")


def run_cell(study: Path, cell: str, workdir: Path, flags: list[str]) -> int:
    """Trains one cell with main.py; what it prints is added to WORKDIR.log."""
    workdir.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "main.py", f"--config={study}:{cell}"]
    command += [f"--workdir={workdir.absolute()}", *flags]
    with Path(f"{workdir}.log").open("a") as log:
        status = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log).returncode
    scores = read_evaluations(workdir)[-1:] if not status else []
    said = ", ".join(f"{n} {scores[0][f'{n}_miou']:.4f}" for n in ("student", "teacher") if scores)
    print(f"{cell}: {said or f'status {status}'}", flush=True)
    return status


def report(tables: dict[str, list[str]], output: Path, study: ModuleType) -> str:
    """All tables with what is finished, as Markdown."""
    parts = []
    for name, names in tables.items():
        cells = [
            Cell(*cell.split("-"), read_evaluations(output / cell))
            for cell in names
            if finished(study, output / cell)
        ]
        if cells:
            baselines = baseline_scores(study, output)
            table = partitions_table if len({c.partition for c in cells}) > 1 else methods_table
            parts.append(f"## {name}\n\n{table(cells, baselines)}")
            if table is partitions_table:
                parts.append(f"## {name}, IoU of each class\n\n{classes_table(cells)}")
    return "\n\n".join(parts)


def baseline_scores(study: ModuleType, output: Path) -> dict[tuple[str, str], float]:
    """Teacher mIoU of the supervised cells, by partition and seed."""
    scores = {}
    for cell in dict.fromkeys(cell for cells in study.TABLES.values() for cell in cells):
        method, partition, seed = cell.split("-")
        if method == BASELINE and finished(study, output / cell):
            scores[partition, seed] = read_evaluations(output / cell)[-1]["teacher_miou"]
    return scores


def methods_table(cells: list[Cell], baselines: dict[tuple[str, str], float]) -> str:
    """A row a method: scores, the gain over the baseline of the same seed, the pseudo labels."""
    lines = [["", "seeds", "student", "teacher", "gain", *PSEUDO]]
    for method in dict.fromkeys(cell.method for cell in cells):
        group = [cell for cell in cells if cell.method == method]
        scores = [spread([c.last[f"{n}_miou"] for c in group]) for n in ("student", "teacher")]
        pseudo = [
            spread([c.last["metrics"][key] for c in group if key in c.last["metrics"]])
            for key in PSEUDO.values()
        ]
        lines.append([method, str(len(group)), *scores, gain(group, baselines), *pseudo])
    return markdown(lines)


def partitions_table(cells: list[Cell], baselines: dict[tuple[str, str], float]) -> str:
    """A row a method, a column a partition: the teacher's mIoU, and the gain over the baseline."""
    partitions = list(dict.fromkeys(cell.partition for cell in cells))
    lines = [["", *partitions]]
    for method in dict.fromkeys(cell.method for cell in cells):
        line = [method]
        for partition in partitions:
            group = [c for c in cells if (c.method, c.partition) == (method, partition)]
            text = spread([c.last["teacher_miou"] for c in group])
            if group and method != BASELINE:
                text += f" (gain {gain(group, baselines)})"
            line.append(text)
        lines.append(line)
    return markdown(lines)


def classes_table(cells: list[Cell]) -> str:
    """A row a class, a column a method: the teacher's IoU where most seeds were run."""
    partitions = [cell.partition for cell in cells]
    most = max(partitions, key=partitions.count)
    cells = [cell for cell in cells if cell.partition == most]
    methods = list(dict.fromkeys(cell.method for cell in cells))
    lines = [[most, *methods]]
    for name in cells[0].last["teacher_iou"]:
        ious = [
            [c.last["teacher_iou"][name] for c in cells if c.method == method] for method in methods
        ]
        lines.append([name, *(spread([x for x in group if x is not None]) for group in ious)])
    return markdown(lines)


def gain(cells: list[Cell], baselines: dict[tuple[str, str], float]) -> str:
    """The teacher's mIoU minus that of the baseline with the same labelled images."""
    keys = [(cell, (cell.partition, cell.seed)) for cell in cells]
    return spread([c.last["teacher_miou"] - baselines[key] for c, key in keys if key in baselines])


def spread(values: list[float]) -> str:
    """Mean ± standard deviation; "" of none."""
    if len(values) < 2:
        return "".join(f"{value:.3f}" for value in values)
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def markdown(lines: list[list[str]]) -> str:
    """A table; the first line is its head."""
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|---" * len(lines[0]) + "|", *body])


if __name__ == "__main__":
    main()
