"""The files that name the suggested photos: a table, a list and a contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data.whole_files import write_text
from rc2l_jax.reports.photo_ranking import printable, write_ranking
from rc2l_jax.suggestion.choice import directions, similarity, stands_for
from rc2l_jax.suggestion.pool import Pool
from rc2l_jax.suggestion.sheet import write_sheet

TABLE, LIST, SHEET = "suggested.csv", "suggested.txt", "suggested.jpg"
COLUMNS = ("number", "photo", "stands_for", "like_labeled", "uncertainty", "classes")


def write_suggestions(output: Path, pool: Pool, chosen: np.ndarray) -> None:
    """Writes the three files.

    Args:
      output: the folder, which is made.
      pool: the photos that were chosen from.
      chosen: positions in it, in the order in which to label them.
    """
    suggested = [pool.photos[i] for i in chosen]
    output.mkdir(parents=True, exist_ok=True)
    write_sheet(output / SHEET, suggested)
    write_ranking(output / TABLE, COLUMNS, _rows(pool, chosen))
    # With its folder a name means one photo, also where other splits have the same names.
    lines = "".join(f"{photo.folder}/{photo.file_name}\n" for photo in suggested)
    write_text(output / LIST, printable(lines))


def _rows(pool: Pool, chosen: np.ndarray) -> list[dict[str, Any]]:
    """Returns the table's rows; docs/own_images.md says what the columns are."""
    center = pool.features.mean(0)
    points, alike = directions(pool.features, center), [None] * len(chosen)
    if len(pool.labeled):
        alike = similarity(points[chosen], directions(pool.labeled, center)).round(3).tolist()
    rows = []
    near = stands_for(points, chosen).tolist()
    for number, (i, photos, like) in enumerate(zip(chosen, near, alike), 1):
        weight, classes = (None, []) if pool.doubts is None else pool.doubts[i]
        unsure = None if weight is None else round(weight, 4)
        values = (number, pool.photos[i].file_name, photos, like, unsure, classes)
        rows.append(dict(zip(COLUMNS, values)))
    return rows
