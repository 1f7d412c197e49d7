"""Scores as one line of text, and as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe(scores: Mapping[str, Any]) -> str:
    """Returns mIoU as one line of text: "student mIoU 0.3441  teacher mIoU 0.3502"."""

    def number(x: float | None) -> str:
        return "none" if x is None else f"{x:.4f}"

    return "  ".join(f"{name} mIoU {number(entry['miou'])}" for name, entry in scores.items())


def iou_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns IoU as an aligned Markdown table: a row for each class, and last their mean.

    Args:
      scores: {title of the column: {"miou", "iou"}, as `scores.score` returns it}. All must have
        the same classes.
    """

    def number(x: float | None, mark: str = "") -> str:
        return "" if x is None else f"{mark}{x:.3f}{mark}"

    columns = list(scores.values())
    rows = [["IoU", *scores]]
    for name in columns[0]["iou"]:
        rows.append([name, *(number(column["iou"][name]) for column in columns)])
    rows.append(["**mean**", *(number(column["miou"], "**") for column in columns)])
    first, *others = (max(3, *map(len, cells)) for cells in zip(*rows))
    rule = ["-" * first, *("-" * (width - 1) + ":" for width in others)]

    def line(title: str, *cells: str) -> str:
        return " | ".join(
            [title.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others))]
        )

    return "\n".join(f"| {line(*cells)} |" for cells in (rows[0], rule, *rows[1:]))
