"""Charts of what changes over the steps of one run, or of several.

As in `class_charts`, each `*_chart` returns uint8 [H, W, 3], and the `*_figure` beside it the
matplotlib figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rc2l_jax.reports.style import COLORS, DPI, NETWORK_COLORS, numbers, render, styled

_STYLES = {"teacher": "-", "student": ":"}
_PSEUDO = {
    "pseudo/accuracy": "segments right",
    "pseudo/pixel_accuracy": "pixels right",
    "pseudo/coverage": "pixels covered",
}
_LOSSES = {"loss/total": "total", "loss/label": "labelled", "loss/unlabel": "unlabelled"}
_DASHED = ("total", "pixels covered")  # so that another line with the same values can be seen
_TERMS = "loss/unlabel_"
_SHARES = "pseudo labels"  # the panel of shares, drawn from 0 to 1 so that small changes look small


def curves_chart(evaluations: Sequence[Mapping[str, Any]], title: str = "") -> np.ndarray:
    """Draws a run over its steps: mIoU, losses, unlabelled terms, and how good pseudo labels are.

    Losses that are always 0 and panels without a number, as in supervised runs, are left out.

    Args:
      evaluations: lines of evaluations.jsonl, as `history.read_evaluations` returns them.
      title: the title of the whole picture.

    Returns:
      uint8 [H, W, 3].
    """
    return render(curves_figure(evaluations, title))


@styled
def curves_figure(evaluations: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Returns the matplotlib figure of `curves_chart`."""
    steps = [line["step"] for line in evaluations]
    metrics = [line["metrics"] for line in evaluations]
    names = list(dict.fromkeys(name for line in metrics for name in line))
    terms = {n: n.removeprefix(_TERMS).upper() for n in names if n.startswith(_TERMS)}
    miou = {name: [line.get(f"{name}_miou") for line in evaluations] for name in NETWORK_COLORS}

    def of(wanted: Mapping[str, str]) -> dict[str, list[float | None]]:
        return {label: [line.get(name) for line in metrics] for name, label in wanted.items()}

    panels = {
        "validation mIoU": miou,
        "loss": _without_zeros(of(_LOSSES)),
        "unlabelled loss terms": _without_zeros(of(terms)),
        _SHARES: of(_PSEUDO),
    }
    panels = {k: kept for k, lines in panels.items() if (kept := _with_numbers(lines))}
    rows, columns = -(-len(panels) // 2), min(len(panels), 2)
    size = (4.1 * max(columns, 1), 2.9 * max(rows, 1) + (0.3 if title else 0))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(title)
    for number, (name, lines) in enumerate(panels.items(), start=1):
        _curves(figure.add_subplot(rows, columns, number), name, steps, lines)
    return figure


def _curves(
    axes: Axes, title: str, steps: Sequence[int], lines: Mapping[str, Sequence[float | None]]
) -> None:
    for index, (label, values) in enumerate(lines.items()):
        dashed = label in _DASHED
        style = "--" if dashed else _STYLES.get(label, "-")
        color = COLORS[index % len(COLORS)]
        order = 3 if dashed else 2
        axes.plot(steps, numbers(values), style, marker=".", color=color, label=label, zorder=order)
    axes.set_title(title)
    if title == _SHARES:
        axes.set_ylim(0.0, 1.02)  # a line at 1 is not cut
    axes.set_xlabel("step", labelpad=1)
    axes.grid(alpha=0.3)
    below = (0.5, -0.17)  # below the axes, where the legend hides no line
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=below, ncols=4, columnspacing=1.2)


def runs_chart(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> np.ndarray:
    """Draws the mIoU of several runs over their steps.

    Each run has a colour, and each of its networks a line style.

    Args:
      runs: {name: lines of evaluations.jsonl, as `history.read_evaluations` returns them}.

    Returns:
      uint8 [H, W, 3].
    """
    return render(runs_figure(runs))


@styled
def runs_figure(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Returns the matplotlib figure of `runs_chart`."""
    figure = Figure(figsize=(7.5, 4.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for index, (name, evaluations) in enumerate(runs.items()):
        steps = [line["step"] for line in evaluations]
        for network, style in _STYLES.items():
            values = numbers(line[f"{network}_miou"] for line in evaluations)
            color = COLORS[index % len(COLORS)]
            axes.plot(steps, values, style, marker=".", color=color, label=f"{name}, {network}")
    axes.set(xlabel="step", ylabel="validation mIoU")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=min(len(runs), 3))
    return figure


def _without_zeros(lines: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    return {name: line for name, line in lines.items() if any(line)}


def _with_numbers(lines: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    return {name: line for name, line in lines.items() if any(x is not None for x in line)}
