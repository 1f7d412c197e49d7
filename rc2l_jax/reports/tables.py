"""Scores as one line of text, and as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TITLES = {"iou": "IoU", "dice_f1": "Dice (F1)", "precision": "precision", "recall": "recall"}


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
    columns = {title: (entry["iou"], entry["miou"]) for title, entry in scores.items()}
    return _table("IoU", columns)


def measures_table(network: str, entry: Mapping[str, Any]) -> str:
    """Returns all that is measured of a network's classes as a table like `iou_table`'s.

    Args:
      network: its name.
      entry: what `scores.score` returns of it.
    """
    means = entry["means"] | {"iou": entry["miou"]}
    columns = {title: (entry[name], means[name]) for name, title in _TITLES.items()}
    return _table(network, columns)


def _table(title: str, columns: Mapping[str, tuple[Mapping[str, Any], float | None]]) -> str:
    """Returns a table of columns {title: ({class name: value}, their mean)}."""

    def number(x: float | None, mark: str = "") -> str:
        return "" if x is None else f"{mark}{x:.3f}{mark}"

    rows = [[title, *columns]]
    for name in next(iter(columns.values()))[0]:
        rows.append([name, *(number(values[name]) for values, _ in columns.values())])
    rows.append(["**mean**", *(number(mean, "**") for _, mean in columns.values())])
    first, *others = (max(3, *map(len, cells)) for cells in zip(*rows))
    rule = ["-" * first, *("-" * (width - 1) + ":" for width in others)]

    def line(title: str, *cells: str) -> str:
        return " | ".join(
            [title.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others))]
        )

    return "\n".join(f"| {line(*cells)} |" for cells in (rows[0], rule, *rows[1:]))
