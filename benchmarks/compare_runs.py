"""Validation mIoU over training of several run directories: a table and a curve.

    python benchmarks/compare_runs.py --output=docs/camvid.png supervised=runs/a "RC²L"=runs/b

Reads each directory's evaluations.jsonl, prints Markdown, and draws the picture with matplotlib.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).parents[1]))

from rc2l_jax.report import read_evaluations

NETWORKS = {"student": ":", "teacher": "-"}  # line styles

Runs = dict[str, list[dict]]


def main() -> None:
    """Prints the table; draws the curve if --output is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=WORKDIR")
    parser.add_argument("--output", type=Path, help="picture to write, such as curve.png")
    arguments = parser.parse_args()
    runs = {name: read(Path(folder)) for name, folder in (r.split("=", 1) for r in arguments.runs)}
    print(table(runs))
    if arguments.output:
        draw(runs, arguments.output)


def read(workdir: Path) -> list[dict]:
    """A run's evaluations, by step."""
    evaluations = read_evaluations(workdir)
    if not evaluations:
        raise SystemExit(f"{workdir}: no evaluations; is it a run directory?")
    return sorted(evaluations, key=lambda evaluation: evaluation["step"])


def table(runs: Runs) -> str:
    """A row a step, student / teacher mIoU a run."""
    steps = sorted({e["step"] for evaluations in runs.values() for e in evaluations})
    lines = [f"| step | {' | '.join(runs)} |", "|---" * (len(runs) + 1) + "|"]
    for step in steps:
        cells = [str(step)]
        for evaluations in runs.values():
            found = [e for e in evaluations if e["step"] == step]
            cells.append(
                " / ".join(f"{found[0][f'{n}_miou']:.3f}" for n in NETWORKS) if found else ""
            )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(runs: Runs, path: Path) -> None:
    """A colour a run; the teacher solid, the student dotted."""
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for index, (name, evaluations) in enumerate(runs.items()):
        steps = [e["step"] for e in evaluations]
        for network, style in NETWORKS.items():
            values = [e[f"{network}_miou"] for e in evaluations]
            axes.plot(steps, values, style, color=f"C{index}", label=f"{name}, {network}")
    axes.set(xlabel="step", ylabel="validation mIoU")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
