"""rc2l_jax/method/step_metrics.py: pseudo-label metrics of a drawn picture, counted by hand."""

import jax
import numpy as np
import pytest

from rc2l_jax.method import step_metrics
from rc2l_jax.structs import Segments

metrics = jax.jit(step_metrics.pseudo_label_metrics, static_argnames="num_classes")

# Two images of eight pixels. A digit is the slot that covers the pixel, a dot means none.
SLOTS = np.array(["0000112.", "1111...."])
CLASSES = np.array([[3, 1, 0], [9, 2, 9]], np.int32)
USED = np.array([[1, 1, 1], [0, 1, 0]], bool)
SCORE = np.array([[0.9, 0.8, 0.7], [np.nan, 0.6, np.nan]], np.float32)
# The true class of each pixel, "v" for void. In image 0, slot 0 is right (3 of 4 pixels), slot 1 is
# wrong at both pixels, and slot 2 lies on void, so it is not judged. In image 1, slot 1 is right (2
# of 3 pixels; one is void).
LABEL = np.array(["333033v1", "2v20vvvv"])
VALID = np.array(["11111111", "11111100"])  # padding at the end of image 1


def pixels(rows):
    return np.array([list(row) for row in rows])[:, None]  # [B, 1, 8]


def drawn(garbage):
    masks = pixels(SLOTS)[:, None] == np.array(list("012"))[:, None, None]
    empty = ~USED[:, :, None, None]
    label = np.where(pixels(LABEL) == "v", "255", pixels(LABEL)).astype(np.uint8)
    segments = Segments(
        classes=CLASSES,
        masks=np.where(empty, garbage, masks),
        valid=USED,
        score=SCORE,
        known=(pixels(SLOTS) != "."),
    )
    return segments, label, pixels(VALID) == "1"


@pytest.mark.parametrize("garbage", [False, True])
def test_metrics_of_a_drawn_picture(garbage):
    got = metrics(*drawn(garbage), num_classes=4)
    expected = {
        "pseudo/segments": (4, 2),
        "pseudo/coverage": (7 + 4, 8 + 6),
        "pseudo/score": (0.9 + 0.8 + 0.7 + 0.6, 4),
        "pseudo/accuracy": (2, 3),
        "pseudo/pixel_accuracy": (3 + 0 + 2, 4 + 2 + 3),
    }
    assert got.keys() == expected.keys()
    for name, mean in expected.items():
        np.testing.assert_allclose(got[name], mean, rtol=1e-6, err_msg=name)


def test_nothing_is_judged_without_ground_truth():
    segments, label, valid = drawn(False)
    got = metrics(segments, np.full_like(label, 255), valid, num_classes=4)
    assert tuple(got["pseudo/accuracy"]) == (0, 0)
    assert tuple(got["pseudo/pixel_accuracy"]) == (0, 0)
    assert tuple(got["pseudo/segments"]) == (4, 2)


def test_nothing_predicted():
    segments, label, valid = drawn(True)
    got = metrics(segments.replace(valid=np.zeros_like(USED)), label, valid, num_classes=4)
    for name in ("coverage", "score", "accuracy", "pixel_accuracy", "segments"):
        assert got[f"pseudo/{name}"][0] == 0
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(got))
