"""Does predict's ranking find the photos that need correction? Compares it with the truth.

    python main.py --workdir=RUN --mode=predict --input=DIR/images/val --output=predicted
    python main.py --workdir=RUN --mode=eval  # of the same photos; it says where its answer lies
    python studies/ranked_photos.py --predicted=predicted --scored=RUN/eval/step_...

Predict ranks photos by their mean confidence, without knowing the truth; eval ranks the same photos
by it. Printed is how many of the tenth of photos that are worst by pixel accuracy, and by mIoU, are
in the first tenth of predict's ranking, by mean confidence and by that of the lowest region. As in
the rankings, a photo without a confidence comes first, and one that nobody annotated last.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rc2l_jax.reports.photo_ranking import RANKING
from studies.study_report import markdown

BY = ("mean_confidence", "lowest_region_confidence")
TRUTHS = ("pixel_accuracy", "miou")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predicted", type=Path, required=True, help="predict's output folder")
    parser.add_argument("--scored", type=Path, required=True, help="eval's answer folder")
    arguments = parser.parse_args()
    predicted = read("--predicted", arguments.predicted, BY)
    scored = read("--scored", arguments.scored, TRUTHS)
    if predicted.keys() != scored.keys():
        missing = predicted.keys() ^ scored.keys()
        raise SystemExit(
            f"error: {len(missing)} photos are in one only, {sorted(missing)[0]} first"
        )
    print(table(predicted, scored))


def read(flag: str, folder: Path, columns: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """The rows of a ranking that has these columns, by the photo's name."""
    try:
        with (folder / RANKING).open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            rows = {row["photo"]: row for row in table}
    except OSError as error:
        raise SystemExit(f"error: {flag}={folder}: no {RANKING} ({error.strerror})") from None
    if missing := set(columns).difference(table.fieldnames or ()):
        raise SystemExit(f"error: {flag}={folder}: its {RANKING} has no {sorted(missing)[0]}")
    return rows


def lowest_tenth(rows: dict[str, dict[str, str]], column: str, unknown: str) -> set[str]:
    """The tenth of the photos with the lowest values, `unknown` in place of an empty cell."""
    values = sorted((float(row[column] or unknown), name) for name, row in rows.items())
    return {name for _, name in values[: len(values) // 10]}


def table(predicted: dict[str, dict[str, str]], scored: dict[str, dict[str, str]]) -> str:
    """A row for each column of predict's ranking, a column for each measure of the truth."""
    worst = {x: lowest_tenth(scored, x, "inf") for x in TRUTHS}
    first = {by: lowest_tenth(predicted, by, "-inf") for by in BY}
    rows = [[by, *(str(len(first[by] & worst[x])) for x in TRUTHS)] for by in BY]
    count = len(scored) // 10
    return markdown([["first tenth by", *(f"of the {count} worst by {x}" for x in TRUTHS)], *rows])


if __name__ == "__main__":
    main()
