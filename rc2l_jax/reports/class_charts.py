"""Charts of classes: confusion matrices and IoU bars.

Each `*_chart` returns uint8 [H, W, 3]; the `*_figure` beside it returns the matplotlib figure, for
those who want to change it before it is drawn. pyplot is not used, so that a notebook's own figures
and settings stay as they are. Colours are those of Okabe and Ito, which colour-blind people can
tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rc2l_jax.reports.style import COLORS, DPI, NETWORK_COLORS, numbers, render, styled

_HATCHES = ("", "//", "..", "xx")  # tell bars apart when the colours repeat
_ABSENT = "#dddddd"
_MOST_NUMBERS = 12  # with more classes, the cells of a matrix are too small for numbers
_MOST_VALUES = 30  # with more classes, bars get no numbers


def normalized(confusion: np.ndarray) -> np.ndarray:
    """Divides each row of a confusion matrix by its sum.

    Args:
      confusion: integer [K, K], rows are true classes, columns predicted ones.

    Returns:
      float64 [K, K]; rows of classes without a pixel are NaN.
    """
    counts = np.asarray(confusion, np.float64)
    totals = counts.sum(1, keepdims=True)
    return np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)


def confusion_chart(
    confusions: Mapping[str, np.ndarray], class_names: Sequence[str], title: str = ""
) -> np.ndarray:
    """Draws confusion matrices, each row divided by its sum.

    Args:
      confusions: {network: integer [K, K]}, rows are true classes, columns predicted ones.
      class_names: K names.
      title: the title of the whole picture.

    Returns:
      uint8 [H, W, 3].
    """
    return render(confusion_figure(confusions, class_names, title))


@styled
def confusion_figure(
    confusions: Mapping[str, np.ndarray], class_names: Sequence[str], title: str = ""
) -> Figure:
    """Returns the matplotlib figure of `confusion_chart`."""
    count = len(class_names)
    for name, confusion in confusions.items():
        if np.shape(confusion) != (count, count):
            raise ValueError(f"{name}: {np.shape(confusion)} is no matrix of {count} classes")
    few = count <= _MOST_NUMBERS
    cell = 0.36 if few else 0.2 if count <= 40 else 0.12  # inches
    names = 0.3 + 0.075 * max(map(len, class_names))
    side = max(count * cell, 1.2) + names
    shape = (1, len(confusions)) if few else (len(confusions), 1)  # large ones: in a column
    size = (shape[1] * side + 1.0, shape[0] * (side + 0.5) + 0.3)
    figure = Figure(figsize=size, dpi=DPI, layout="compressed")
    figure.get_layout_engine().set(w_pad=0.12)  # inches; with less, long names are cut off
    if title:
        figure.suptitle(title)
    font = min(8.0, 64 * cell)
    grid = figure.subplots(*shape, squeeze=False)
    for axes, (name, confusion) in zip(grid.flat, confusions.items()):
        shares = normalized(confusion)
        image = _matrix(axes, shares, class_names, font)
        axes.set_title(name)
        if few:
            _write_shares(axes, shares, font)
        if np.isnan(shares).any():
            axes.set_xlabel("predicted (grey: no pixel of that class)")
    bar = figure.colorbar(image, ax=grid, fraction=0.03, aspect=30, shrink=0.8)
    bar.set_label("share of the true class's pixels")
    return figure


def _matrix(axes: Axes, shares: np.ndarray, class_names: Sequence[str], font: float) -> Any:
    colors = matplotlib.colormaps["Blues"].with_extremes(bad=_ABSENT)
    image = axes.imshow(np.ma.masked_invalid(shares), colors, vmin=0, vmax=1)
    places = np.arange(len(class_names))
    axes.set_xticks(places, class_names, rotation=90, fontsize=font)
    axes.set_yticks(places, class_names, fontsize=font)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="true")
    return image


def _write_shares(axes: Axes, shares: np.ndarray, font: float) -> None:
    for (row, column), share in np.ndenumerate(shares):
        text = "" if np.isnan(share) else f"{share:.2f}".removeprefix("0")
        if text and text != ".00":
            color = "white" if share > 0.55 else "black"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=font)


def iou_chart(
    scores: Mapping[str, Mapping[str, Any]], title: str = "", *, by_id: bool = False
) -> np.ndarray:
    """Draws a bar for the IoU of each class and network, and a line for each network's mIoU.

    Args:
      scores: {network or run: {"miou": float or None, "iou": {class name: float or None}}}, as
        `scores.score` returns it. All must have the same classes.
      title: the title of the picture.
      by_id: True to sort by class id; False to sort by IoU, the best class first.

    Returns:
      uint8 [H, W, 3].

    Raises:
      ValueError: the classes differ, or their order.
    """
    return render(iou_figure(scores, title, by_id=by_id))


@styled
def iou_figure(
    scores: Mapping[str, Mapping[str, Any]], title: str = "", *, by_id: bool = False
) -> Figure:
    """Returns the matplotlib figure of `iou_chart`."""
    classes = _common_classes(scores)
    values = np.array([numbers(entry["iou"].values()) for entry in scores.values()])
    if not by_id:
        classes, values = _best_first(classes, values)
    written = len(classes) <= _MOST_VALUES
    bar = 0.15 if written else 0.08  # inches
    pitch = max(bar * len(scores) + 0.06, 0.16)
    height = pitch * len(classes) + 0.9 + 0.18 * len(scores)
    figure = Figure(figsize=(7.5, height), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    share = bar / pitch
    for index, (name, entry) in enumerate(scores.items()):
        color, hatch = _bar_style(name, index)
        places = np.arange(len(classes)) + (index - (len(scores) - 1) / 2) * share
        known = np.nan_to_num(values[index])
        label = f"{name}, mIoU {_text(entry['miou'])}"
        bars = axes.barh(places, known, 0.92 * share, color=color, hatch=hatch, label=label)
        if written:
            texts = ["no pixels" if np.isnan(x) else f"{x:.2f}" for x in values[index]]
            # On white, so that a line of mIoU does not cross a number out.
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
            axes.bar_label(bars, texts, padding=2, fontsize=7, color="#444444", bbox=paper)
        if entry["miou"] is not None:
            axes.axvline(entry["miou"], color=color, linestyle="--", linewidth=1.2)
    axes.set_yticks(np.arange(len(classes)), classes, fontsize=8 if written else 7)
    axes.set(xlabel="IoU", xlim=(0, 1.05), ylim=(len(classes) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=min(len(scores), 2))
    if title:
        axes.set_title(title)
    return figure


def _common_classes(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lists = {name: list(entry["iou"]) for name, entry in scores.items()}
    first = next(iter(lists))
    for name, classes in lists.items():
        if classes != lists[first]:
            differing = sorted(set(classes) ^ set(lists[first])) or "their order"
            raise ValueError(f"{name} and {first} have other classes: {differing}")
    return lists[first]


def _best_first(classes: list[str], values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Sorts classes by their mean IoU over networks; those without any IoU come last."""
    known = ~np.isnan(values)
    mean = np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1)
    order = np.argsort(np.where(known.any(0), -mean, 1.0), kind="stable")
    return [classes[i] for i in order], values[:, order]


def _bar_style(name: str, index: int) -> tuple[str, str]:
    if name in NETWORK_COLORS:
        return NETWORK_COLORS[name], ""
    turn, place = divmod(index, len(COLORS))
    return COLORS[place], _HATCHES[turn % len(_HATCHES)]


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
