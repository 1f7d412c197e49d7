"""The colours of classes: apart in lightness and hue, also for people who are colour-blind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.annotations.regions import background_id
from rc2l_jax.structs import VOID

# Any two differ by at least 24 in CIELAB, and by 12 as people see them who lack one kind of cones.
# They were chosen one after the other, each as far as possible from those before, so the first ones
# are farthest apart.
_CLASS_COLORS = bytes.fromhex(
    "0069e1 f08700 00ffc3 781e3c 4b5a00 b4d2ff ff0fa5 e1e178 2d00c3 780f87 "
    "ff2d4b f0a587 96ff00 00964b e187ff 006969 b487c3 78d2d2 5a3c1e d200f0 "
    "3cc31e 967800 ff87b4 c300b4 c30069 b44b2d 8700ff 5a2d69 c3f05a b47878"
)
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def class_colors(class_names: Sequence[str]) -> np.ndarray:
    """The colour of each id of a label map, uint8 [256, 3].

    The background is black and void white. Beyond 30 classes the colours come again, darker; two
    classes of such a long list can look alike.

    Args:
      class_names: K names.
    """
    base = np.frombuffer(_CLASS_COLORS, np.uint8).reshape(-1, 3)
    background = background_id(class_names)
    others = [i for i in range(256) if i != background]
    colors = np.zeros((256, 3), np.uint8)
    for place, i in enumerate(others):
        turn, color = divmod(place, len(base))
        colors[i] = np.rint(base[color] * 0.75**turn)
    if background is not None:
        colors[background] = _BLACK
    colors[VOID] = _WHITE
    return colors
