"""Ranks predicted photos by confidence, from their lists of segments.

The lists are what a resumed command has of the photos that were predicted before, so a ranking is
the same whether prediction was interrupted or not.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rc2l_jax.prediction.files import list_path
from rc2l_jax.prediction.regions import SPECK
from rc2l_jax.reports.photo_ranking import Row

COLUMNS = ("photo", "mean_confidence", "lowest_region", "lowest_region_confidence", "classes")


def confidence_row(name: str, description: Mapping[str, Any]) -> dict[str, Any]:
    """Sums up how sure a network is of a photo.

    Args:
      name: the photo's name.
      description: as `files.describe_segments` returns it.

    Returns:
      A value for each of `COLUMNS`. The lowest region is the class segment of the lowest score
      among those that are no specks. A confidence that is not finite is None.
    """
    segments = description["segments"]
    scores, areas = [x["score"] for x in segments], [x["area"] for x in segments]
    mean = None
    if None not in scores:
        total = sum(score * area for score, area in zip(scores, areas))
        mean = round(total / sum(areas), 4)
    lowest = min(large_segments(description), key=lambda x: _unknown_first(x["score"]))
    values = (name, mean, lowest["class"], lowest["score"], [x["class"] for x in segments])
    return dict(zip(COLUMNS, values))


def large_segments(description: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the segments that are no specks; all, if there are no others."""
    segments = description["segments"]
    return [x for x in segments if x["share"] >= SPECK] or segments


def order(row: Row) -> tuple[Any, ...]:
    """What photos are sorted by: the lowest mean confidence first, then by name."""
    return (*_unknown_first(row["mean_confidence"]), row["photo"])


def former_row(output: Path, name: str) -> dict[str, Any]:
    """Sums up a photo that an earlier command predicted; a list that cannot be read has no values.

    So such a photo comes first, where a person sees it.
    """
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, ArithmeticError):
        return confidence_row(name, json.loads(list_path(output, name).read_text("utf-8")))
    return dict(zip(COLUMNS, (name, None, None, None, [])))


def _unknown_first(score: float | None) -> tuple[bool, float]:
    """Sorts scores that are not finite before all others: nothing is worse."""
    return (score is not None, score or 0.0)
