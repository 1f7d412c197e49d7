"""How all charts look, and how they become pixels."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#F0E442")


NETWORK_COLORS = {"teacher": COLORS[0], "student": COLORS[1]}


DPI = 100


# For whatever makes or draws a figure. Names are a user's: "$" in them is no formula, and every
# letter of Europe must be there.
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
    """Numbers as matplotlib takes them: nan, a gap, for None."""
    return [np.nan if x is None else float(x) for x in values]
