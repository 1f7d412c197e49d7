"""Several runs beside each other: mIoU over training, IoU of each class, and their predictions.

    python benchmarks/compare_runs.py --output=runs/compared supervised=runs/a "RC²L"=runs/b

Prints a table in Markdown. With --output, a new or empty folder, it also writes there:

    table.md    the table
    curves.png  validation mIoU over the steps
    iou.png     each class's IoU, a bar a run
    grid.png    image, ground truth and each run's prediction, in the style of the paper's Figure 3

Of runs that come from another machine, --data_dir=DIR says where the images are here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from etils import epath

sys.path.insert(0, str(Path(__file__).parents[1]))

from data.errors import DataError
from rc2l_jax.evaluation import compare
from rc2l_jax.reports.history import read_evaluations
from rc2l_jax.reports.pictures import save_png
from rc2l_jax.run.checkpoints import CheckpointError
from rc2l_jax.run.config import ConfigError
from rc2l_jax.run.directory import run_path

NETWORKS = ("student", "teacher")
FILES = ("table.md", "curves.png", "iou.png", "grid.png")

Runs = dict[str, list[dict]]


def main() -> None:
    """Prints the table; writes the figures if --output is given."""
    arguments = parser().parse_args()
    folders = dict(split_argument(run) for run in arguments.runs)
    if len(folders) < len(arguments.runs):
        raise SystemExit("two runs have the same name: give each NAME=WORKDIR a name of its own")
    output = arguments.output
    if output and output.exists() and not (output.is_dir() and may_write(output)):
        raise SystemExit(f"--output={output} is no empty folder: choose another")
    runs = {name: read(folder) for name, folder in folders.items()}
    check_classes(runs)
    print(table(runs))
    if output:
        try:
            write(output, folders, runs, arguments)
        except (CheckpointError, ConfigError, DataError) as error:
            raise SystemExit(f"error: {error}") from error
        except OSError as error:
            raise SystemExit(f"error: {error.filename or output}: {error.strerror}") from error


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("runs", nargs="+", metavar="NAME=WORKDIR")
    result.add_argument("--output", type=run_path, help="folder to make")
    result.add_argument("--network", choices=NETWORKS, default="teacher", help="in bars and grid")
    which = "in bars: which evaluation; in the grid: which checkpoint"
    result.add_argument("--which", choices=("newest", "best"), default="newest", help=which)
    result.add_argument("--images", type=int, default=4, help="rows of the grid; 0 for none")
    moved = "where the data set is now, if not where the runs had it"
    result.add_argument("--data_dir", default="", help=moved)
    choose = "the first ones of the split, or those on which the runs differ most"
    result.add_argument("--choose", choices=("first", "differing"), default="first", help=choose)
    return result


def split_argument(text: str) -> tuple[str, epath.Path]:
    """Name and folder of a run."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise SystemExit(f"{text!r} is not NAME=WORKDIR")
    return name, run_path(folder)


def may_write(output: epath.Path) -> bool:
    """Whether a folder holds nothing but what an earlier comparison wrote."""
    found = {path.name for path in output.iterdir()}
    return not found or ("table.md" in found and found <= set(FILES))


def read(workdir: epath.Path) -> list[dict]:
    """A run's evaluations, by step."""
    evaluations = read_evaluations(workdir)
    if not evaluations:
        raise SystemExit(f"{workdir}: no evaluations; is it a run directory?")
    return sorted(evaluations, key=lambda evaluation: evaluation["step"])


def check_classes(runs: Runs) -> None:
    """Ends with an error if runs were evaluated on other classes."""
    classes = {name: list(evaluations[-1]["teacher_iou"]) for name, evaluations in runs.items()}
    first = next(iter(classes))
    for name, found in classes.items():
        if found != classes[first]:
            differing = ", ".join(sorted(set(found) ^ set(classes[first]))) or "their order"
            raise SystemExit(
                f"error: {name} has other classes than {first} ({differing}): leave one of them out"
            )


def table(runs: Runs) -> str:
    """A row a step, student / teacher mIoU a run."""
    steps = sorted({e["step"] for evaluations in runs.values() for e in evaluations})
    lines = [f"| step | {' | '.join(runs)} |", "|---" * (len(runs) + 1) + "|"]
    for step in steps:
        cells = [str(step)]
        for evaluations in runs.values():
            found = [e for e in evaluations if e["step"] == step]
            cells.append(" / ".join(miou(found[0], n) for n in NETWORKS) if found else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def miou(evaluation: dict, network: str) -> str:
    """A network's mIoU, as the table has it."""
    value = evaluation[f"{network}_miou"]
    return "none" if value is None else f"{value:.3f}"


def scores(runs: Runs, network: str, which: str) -> dict[str, dict]:
    """See `charts.iou_chart`; names say of which step."""
    result = {}
    for name, evaluations in runs.items():
        found = compare.evaluation_of(evaluations, which)
        entry = {"miou": found[f"{network}_miou"], "iou": found[f"{network}_iou"]}
        result[f"{name}, step {found['step']}"] = entry
    return result


def write(
    output: epath.Path,
    folders: dict[str, epath.Path],
    runs: Runs,
    arguments: argparse.Namespace,
) -> None:
    """Writes table and figures; the grid last, for it takes longest."""
    from rc2l_jax.reports import class_charts, run_curves  # a table alone needs no matplotlib

    network, which = arguments.network, arguments.which
    names = runs if arguments.images > 0 else ()
    where = arguments.data_dir
    opened = [compare.open_run(name, folders[name], network, which, where) for name in names]
    for run in opened[1:]:  # before anything is written
        compare.check_same_classes(opened[0], run)
    output.mkdir(parents=True, exist_ok=True)
    (output / "table.md").write_text(table(runs) + "\n")
    save_png(output / "curves.png", run_curves.runs_chart(runs))
    save_png(output / "iou.png", class_charts.iou_chart(scores(runs, network, which), network))
    if opened:
        differing = arguments.choose == "differing"
        picture = compare.comparison_grid(opened, arguments.images, differing=differing)
        save_png(output / "grid.png", picture)


if __name__ == "__main__":
    main()
