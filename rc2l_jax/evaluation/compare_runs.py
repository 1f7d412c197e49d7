"""`--mode=compare`: compares runs in a table, curves, bars and a grid of predictions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from rc2l_jax.evaluation import compare
from rc2l_jax.evaluation.evaluate_run import scoring_options
from rc2l_jax.evaluation.verdict import verdicts
from rc2l_jax.reports.history import read_evaluations
from rc2l_jax.reports.pictures import save_png
from rc2l_jax.reports.tables import iou_table
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.stored_config import evaluated_images, run_config, stored_config

FILES = ("table.md", "curves.png", "iou.png", "grid.png")
# Options that change how a score is rounded, or how fast it is there. Runs may differ in them.
_ROUNDING = ("dtype", "matmul_precision", "eval.max_shapes")

Runs = dict[str, list[dict]]


class CompareError(ValueError):
    """Runs that cannot be compared, or an output that cannot be written. Says what to do."""


def compare_runs(
    named: Sequence[str],
    output: epath.PathLike | None = None,
    *,
    network: str = "teacher",
    best: bool = False,
    images: int = 4,
    differing: bool = False,
    data_dir: str = "",
) -> str:
    """Compares runs: prints a table, and writes the files that docs/evaluation.md describes.

    Args:
      named: NAME=RUN each: what to call a run, and its directory.
      output: the folder to make; None to write nothing.
      network: "teacher" or "student": which network bars and grid show.
      best: bars and grid show each run's best evaluation and its checkpoint instead of the newest.
      images: rows of the grid; 0 for no grid.
      differing: the grid shows the images on which the runs differ most, not the first ones.
      data_dir: where the data set lies now; "" if that has not changed since the runs were trained.

    Returns:
      What is printed, in Markdown: a table with a row for each step, one with a row for each class,
      and the verdicts.

    Raises:
      CompareError: the runs cannot be compared, or `output` cannot be used.
      CheckpointError: a run's config or network cannot be read, or its classes have other ids than
        those of the images.
      ConfigError: a run's config is not valid any more, or the runs differ in their data set.
      DataError: the first run's evaluation split cannot be read.
    """
    folders = _folders(named)
    with _storage(output):
        output = None if output is None else _new_folder(output)
        runs = {name: _read(folder) for name, folder in folders.items()}
    _check_classes(runs)
    which = "best" if best else "newest"
    shown = {name: compare.evaluation_of(found, which) for name, found in runs.items()}
    bars = scores(shown, network)
    evaluated = {name: evaluated_images(folder) for name, folder in folders.items()}
    options = {name: _options(folder) for name, folder in folders.items()}
    said = verdicts(runs, shown, network, evaluated, options)
    text = "\n\n".join([table(runs), iou_table(bars), *said])
    print(text)
    if output is not None:
        drawn = folders.items() if images > 0 else ()
        opened = [compare.open_run(n, folder, network, which, data_dir) for n, folder in drawn]
        split = compare.open_images(opened) if opened else None  # before anything is written
        with _storage(output):
            _write(output, text, runs, bars, network)
            if opened:  # the grid last, since it takes longest
                picture = compare.comparison_grid(opened, images, differing=differing, split=split)
                save_png(output / "grid.png", picture)
    return text


@contextlib.contextmanager
def _storage(output: epath.PathLike | None) -> Iterator[None]:
    """Says in a line which file cannot be read or written."""
    try:
        yield
    except OSError as error:
        raise CompareError(f"{error.filename or output}: {error.strerror or error}") from error


def _folders(named: Sequence[str]) -> dict[str, epath.Path]:
    """Splits NAME=RUN into {name: run directory}."""
    folders = {}
    for text in named:
        name, _, folder = text.partition("=")
        if not (name and folder):
            raise CompareError(
                f"--runs={','.join(named)}: {text!r} is not NAME=RUN, a name and a run directory"
            )
        if name in folders:
            raise CompareError(f"--runs: two runs are called {name!r}: give each its own name")
        folders[name] = run_path(folder)
    return folders


def _new_folder(output: epath.PathLike) -> epath.Path:
    """Returns the output folder; refuses one with anything but an earlier comparison's files."""
    output = run_path(output)
    found = {path.name for path in output.iterdir()} if output.is_dir() else set()
    ours = not found or ("table.md" in found and found <= set(FILES))
    if output.exists() and not (output.is_dir() and ours):
        raise CompareError(f"--output={output} is no empty folder: choose another")
    return output


def _read(workdir: epath.Path) -> list[dict]:
    """Reads a run's evaluations, by ascending step; refuses a run without any."""
    evaluations = read_evaluations(workdir)
    if not evaluations:
        is_run = (workdir / "config.json").exists()
        hint = " yet; go on with the run until its first one, or leave it out"
        raise CompareError(
            f"{workdir}: no evaluations{hint if is_run else '; is it a run directory?'}"
        )
    return sorted(evaluations, key=lambda evaluation: evaluation["step"])


def _options(workdir: epath.Path) -> dict[str, Any]:
    """Returns the options on which a run's scores depend; {} if it keeps no config."""
    options = scoring_options(run_config(workdir)) if stored_config(workdir) else {}
    return {key: value for key, value in options.items() if key not in _ROUNDING}


def _check_classes(runs: Runs) -> None:
    classes = {name: list(evaluations[-1]["teacher_iou"]) for name, evaluations in runs.items()}
    first = next(iter(classes))
    for name, found in classes.items():
        if found != classes[first]:
            differing = ", ".join(sorted(set(found) ^ set(classes[first]))) or "their order"
            raise CompareError(
                f"{name} has other classes than {first} ({differing}): leave one of them out"
            )


def table(runs: Runs) -> str:
    """Returns a Markdown table: a row for each step, each run's "student / teacher" mIoU in it."""
    steps = sorted({e["step"] for evaluations in runs.values() for e in evaluations})
    lines = [f"| step | {' | '.join(runs)} |", "|---" * (len(runs) + 1) + "|"]
    for step in steps:
        cells = [str(step)]
        for evaluations in runs.values():
            found = [e for e in evaluations if e["step"] == step]
            both = ("student", "teacher")
            cells.append(" / ".join(_miou(found[0], network) for network in both) if found else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _miou(evaluation: dict, network: str) -> str:
    value = evaluation[f"{network}_miou"]
    return "none" if value is None else f"{value:.3f}"


def scores(shown: Mapping[str, Mapping[str, Any]], network: str) -> dict[str, dict]:
    """Returns what `class_charts.iou_chart` draws: {"NAME, step STEP": {"miou", "iou"}}.

    Args:
      shown: {name: one of its evaluations}.
      network: "teacher" or "student".
    """
    return {
        f"{name}, step {found['step']}": {
            "miou": found[f"{network}_miou"],
            "iou": found[f"{network}_iou"],
        }
        for name, found in shown.items()
    }


def _write(output: epath.Path, text: str, runs: Runs, bars: dict[str, dict], network: str) -> None:
    """Writes the table and the charts."""
    from rc2l_jax.reports import class_charts, run_curves  # a table alone needs no matplotlib

    output.mkdir(parents=True, exist_ok=True)
    (output / "grid.png").unlink(missing_ok=True)  # of an earlier comparison, maybe of other runs
    (output / "table.md").write_text(text + "\n")
    save_png(output / "curves.png", run_curves.runs_chart(runs))
    save_png(output / "iou.png", class_charts.iou_chart(bars, network))
