"""Writes ranking.csv, which says at which photo a person should look first."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from data.whole_files import AnyPath, write_text

RANKING = "ranking.csv"
Row = Mapping[str, Any]  # of one photo: {column: value}; a list stands for several names
Order = Callable[[Row], Any]  # what rows are sorted by, the worst photo first
_BETWEEN_NAMES = "; "


def ranking_text(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Returns a table of photos as CSV with a header.

    Args:
      columns: names of the columns.
      rows: of the photos, in the order in which they are written. None leaves a cell empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[column]) for column in columns])
    return printable(text.getvalue())


def write_ranking(path: AnyPath, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Writes the file whole; arguments as for `ranking_text`."""
    write_text(path, ranking_text(columns, rows))


def is_ranking(path: epath.Path, columns: Sequence[str]) -> bool:
    """Returns whether a file is a ranking of these columns."""
    with path.open("rb") as file:
        return file.readline(1 << 12).rstrip() == ",".join(columns).encode()


def printable(text: str) -> str:
    """Spells out what UTF-8 has no bytes for: a Linux file name may be no text at all."""
    return text.encode("utf-8", "backslashreplace").decode()


def _cell(value: Any) -> Any:
    return _BETWEEN_NAMES.join(value) if isinstance(value, list | tuple) else value
