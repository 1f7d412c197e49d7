"""Charts of methods that were run with several seeds: means, and the spread around them.

As in `class_charts`, each `*_chart` returns uint8 [H, W, 3], and the `*_figure` beside it the
matplotlib figure. Each run of a method is a mapping from a place on the x axis (a step, or a number
of labelled images) to the number there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rc2l_jax.reports.style import COLORS, DPI, render, styled

Run = Mapping[int, float | None]
Methods = Mapping[str, Sequence[Run]]

_BASELINE = "#000000"
_COLORS = tuple(c for c in COLORS if c not in (_BASELINE, "#F0E442"))  # yellow lines are too pale
_DASHES = ("-", "--", ":", "-.")
_MARKERS = "os^D"
_LEAST_SPAN = 0.05  # the least that a y axis spans; all numbers drawn here are shares of 1


class Spread(NamedTuple):
    """Mean and deviation of a method's runs, at each place on the x axis.

    Attributes:
      x: the places at which any run has a number, ascending.
      mean: at each place, the mean of the runs that have a number there.
      deviation: at each place, their sample standard deviation; NaN for a single run.
      runs: at each place, how many runs have a number there.
    """

    x: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    runs: np.ndarray

    def where(self, kept: np.ndarray) -> Spread:
        """Returns the spread at some of the places only; `kept` is bool, one for each place."""
        return Spread(*(field[kept] for field in self))


def spread_of(runs: Sequence[Run]) -> Spread:
    """Computes mean and deviation over runs. A run counts only at places where it has a number."""
    places = sorted({x for run in runs for x, value in run.items() if value is not None})
    values = [[run[x] for run in runs if run.get(x) is not None] for x in places]
    deviations = [np.std(found, ddof=1) if len(found) > 1 else np.nan for found in values]
    means, counts = [np.mean(found) for found in values], [len(found) for found in values]
    return Spread(*map(np.array, (places, means, deviations, counts)))


def bands_chart(
    panels: Mapping[str, Methods], baseline: str = "", title: str = "", *, one_scale: bool = False
) -> np.ndarray:
    """Draws numbers over steps: for each method the mean, and a band of one standard deviation.

    A line has only the steps at which the largest number of the method's runs have a number. At
    other steps the mean would be over fewer runs, and would jump.

    Args:
      panels: {label of the y axis: {method: its runs, {step: number} each}}.
      baseline: the method that is drawn in black.
      title: the title of the whole picture.
      one_scale: whether all panels have the same y axis, so that they can be compared.

    Returns:
      uint8 [H, W, 3].
    """
    return render(bands_figure(panels, baseline, title, one_scale=one_scale))


@styled
def bands_figure(
    panels: Mapping[str, Methods], baseline: str = "", title: str = "", *, one_scale: bool = False
) -> Figure:
    """Returns the matplotlib figure of `bands_chart`."""
    styles = _styles((method for panel in panels.values() for method in panel), baseline)
    columns = min(2 if len(panels) <= 4 else 3, len(panels))
    rows = -(-len(panels) // columns)
    width, height = (5.4, 3.8) if len(panels) == 1 else (3.4, 2.6)  # inches
    figure = _figure(width * columns + 1.6, height * rows, title)
    last: dict[str, float] = {}
    first = None
    for number, (name, panel) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, number, sharey=first)
        first = axes if one_scale else None
        last |= _bands(axes, panel, styles)
        if axes.dataLim.y0 < 0:
            axes.axhline(0, color="#777777", linewidth=0.8, zorder=1)
        axes.set(xlabel="step", ylabel=name)
        axes.grid(alpha=0.3)
    for axes in figure.axes:  # when all are drawn: the limits of a shared axis stay as they are set
        low, high = axes.get_ylim()
        if high - low < _LEAST_SPAN:  # otherwise a tiny difference would look large
            axes.set_ylim((low + high - _LEAST_SPAN) / 2, (low + high + _LEAST_SPAN) / 2)
    _legend(figure, styles, last)
    return figure


def _bands(axes: Axes, methods: Methods, styles: Mapping[str, Any]) -> dict[str, float]:
    """Draws a panel; returns {method: the last value of its line}."""
    last = {}
    for method, runs in methods.items():
        line = spread_of(runs)
        line = line.where(line.runs == line.runs.max(initial=0))
        if not len(line.x):
            continue
        axes.plot(line.x, line.mean, **styles[method], markersize=3.5, label=method)
        low, high = line.mean - line.deviation, line.mean + line.deviation
        axes.fill_between(line.x, low, high, color=styles[method]["color"], alpha=0.15, linewidth=0)
        last[method] = line.mean[-1]
    return last


def labels_chart(methods: Methods, baseline: str = "", title: str = "") -> np.ndarray:
    """Draws mIoU over the number of labelled images: for each method a line through the means.

    Each run is a dot; where a method has several runs, a bar shows one standard deviation.

    Args:
      methods: {method: its seeds, {number of labelled images: mIoU} each}.
      baseline: the method that is drawn in black.
      title: the title of the picture.

    Returns:
      uint8 [H, W, 3].
    """
    return render(labels_figure(methods, baseline, title))


@styled
def labels_figure(methods: Methods, baseline: str = "", title: str = "") -> Figure:
    """Returns the matplotlib figure of `labels_chart`."""
    styles, last = _styles(methods, baseline), {}
    figure = _figure(7.0, 3.8, title)
    axes = figure.subplots()
    axes.set_xscale("log")
    for index, (method, runs) in enumerate(methods.items()):
        line, style = spread_of(runs), styles[method]
        if not len(line.x):
            continue
        beside = 1.03 ** (index - (len(methods) - 1) / 2)  # so that no bar hides another
        axes.errorbar(line.x * beside, line.mean, line.deviation, **style, capsize=3, ms=5)
        dots = [(x * beside, y) for run in runs for x, y in run.items() if y is not None]
        axes.plot(*zip(*dots), ".", color=style["color"], alpha=0.5, ms=4, label=method)
        last[method] = line.mean[-1]
    counts = sorted({x for runs in methods.values() for run in runs for x in run})
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set(xlabel="labelled images", ylabel="validation mIoU")
    axes.grid(alpha=0.3)
    _legend(figure, styles, last)
    return figure


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height + 0.3 * bool(title)), dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(title)
    return figure


def _styles(methods: Iterable[str], baseline: str) -> dict[str, dict[str, Any]]:
    """Chooses each method's colour, dashes and marker; no two methods have the same three."""
    styles = {baseline: {"color": _BASELINE, "linestyle": "-", "marker": "o"}}
    for index, method in enumerate(x for x in dict.fromkeys(methods) if x != baseline):
        turn, place = divmod(index, len(_COLORS))
        dashes, marker = _DASHES[turn % len(_DASHES)], _MARKERS[turn % len(_MARKERS)]
        styles[method] = {"color": _COLORS[place], "linestyle": dashes, "marker": marker}
    return styles


def _legend(figure: Figure, styles: Mapping[str, Any], last: Mapping[str, float]) -> None:
    """Adds a legend of the methods, in the order of their lines' last values, highest first."""
    names = sorted(last, key=lambda name: -last[name])
    lines = [Line2D([], [], **styles[name], markersize=4) for name in names]
    figure.legend(lines, names, loc="outside center right")
