"""studies/ranked_photos.py: does predict's ranking find the photos that need correction?"""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from rc2l_jax.prediction import ranking
from rc2l_jax.reports.photo_ranking import RANKING
from studies import ranked_photos

ROOT = Path(__file__).parents[1]


def cells(values: dict[str, float | None]) -> dict[str, str]:
    """Numbers as they stand in a file."""
    return {name: "" if x is None else str(x) for name, x in values.items()}


def test_empty_cells_are_where_the_rankings_have_them():
    confidence = {f"p{i:02}": i / 20 for i in range(20)} | {"p07": None}  # not finite: the first
    truth = {f"p{i:02}": i / 20 for i in range(20)} | {"p00": None}  # nobody annotated it: the last
    predicted = {n: dict.fromkeys(ranked_photos.BY, x) for n, x in cells(confidence).items()}
    scored = {n: dict.fromkeys(ranked_photos.TRUTHS, x) for n, x in cells(truth).items()}
    order = [ranking.order({"photo": n, "mean_confidence": x}) for n, x in confidence.items()]
    assert min(order)[-1] == "p07"
    assert ranked_photos.lowest_tenth(predicted, "mean_confidence", "-inf") == {"p07", "p00"}
    assert ranked_photos.lowest_tenth(scored, "miou", "inf") == {"p01", "p02"}
    assert "| mean_confidence | 0 | 0 |" in ranked_photos.table(predicted, scored)


def run(predicted: Path, scored: Path) -> subprocess.CompletedProcess:
    """Runs the command."""
    program = [sys.executable, str(ROOT / "studies" / "ranked_photos.py")]
    program += [f"--predicted={predicted}", f"--scored={scored}"]
    return subprocess.run(program, capture_output=True, text=True)


def test_folders_that_cannot_be_compared_are_named_in_one_line(tmp_path):
    for name, columns in (("predicted", ranked_photos.BY), ("scored", ranked_photos.TRUTHS)):
        (tmp_path / name).mkdir()
        with (tmp_path / name / RANKING).open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["photo", *columns])
            table.writerows([f"p{i:02}", i, i] for i in range(20))
    predicted, scored = tmp_path / "predicted", tmp_path / "scored"
    assert "| mean_confidence" in run(predicted, scored).stdout
    cases = {
        f"--predicted={tmp_path}/none: no ranking.csv": (tmp_path / "none", scored),
        f"--scored={tmp_path}: no ranking.csv": (predicted, tmp_path),
        f"--scored={predicted}: its ranking.csv has no miou": (predicted, predicted),
    }
    for words, folders in cases.items():
        done = run(*folders)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 1 and line.startswith(f"error: {words}")
