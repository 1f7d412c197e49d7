"""The style of all charts, and how figures become pixels."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#F0E442")


NETWORK_COLORS = {"teacher": COLORS[0], "student": COLORS[1]}


DPI = 100


# Decorates every function that makes or draws a figure. Users choose the names in figures: "$" must
# not begin a formula, and the font must have the letters of all European languages.
styled = matplotlib.rc_context(
    {
        **{key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"},
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
)


@styled
def render(figure: Figure) -> np.ndarray:
    """Draws a matplotlib figure: uint8 [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def numbers(values: Iterable[float | None]) -> list[float]:
    """Returns values as floats, with NaN for None: matplotlib leaves a gap there."""
    return [np.nan if x is None else float(x) for x in values]
