"""rc2l_jax/reports/class_charts.py and run_curves.py: what is drawn is what the numbers say.

Tests read the lengths of bars, the shades and texts of cells, and the points of lines.
"""

from __future__ import annotations

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from rc2l_jax.evaluation.scores import score
from rc2l_jax.reports import class_charts, run_curves, style

CONFUSION = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 3]])


def shades(axes) -> np.ndarray:
    """The values from which a matrix was drawn; nan for classes without a pixel."""
    return np.ma.filled(axes.images[0].get_array().astype(float), np.nan)


def lines_of(axes) -> dict[str, tuple[list, list]]:
    """{label: (steps, values)} for each curve."""
    return {x.get_label(): (list(x.get_xdata()), list(x.get_ydata())) for x in axes.lines}


def test_cells_are_shares_of_the_true_class():
    expected = [[0.75, 0.25, 0.0], [np.nan] * 3, [0.25, 0.0, 0.75]]
    np.testing.assert_array_equal(class_charts.normalized(CONFUSION), expected)
    figure = class_charts.confusion_figure(
        {"student": CONFUSION.T, "teacher": CONFUSION}, "abc", "x"
    )
    student, teacher = figure.axes[:2]
    assert (student.get_title(), teacher.get_title()) == ("student", "teacher")
    np.testing.assert_array_equal(shades(teacher), expected)
    np.testing.assert_array_equal(shades(student), class_charts.normalized(CONFUSION.T))
    written = {text.get_position(): text.get_text() for text in teacher.texts}
    # The true class is y, the predicted one x: the share of "a" predicted as "b" is at (1, 0).
    assert written == {(0, 0): ".75", (1, 0): ".25", (0, 2): ".25", (2, 2): ".75"}
    for axis in (teacher.xaxis, teacher.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == ["a", "b", "c"]
    assert "no pixel" in teacher.get_xlabel()


def test_a_matrix_of_one_class_and_one_of_150():
    figure = class_charts.confusion_figure({"student": np.array([[5]])}, ["only"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00"]
    names = [f"class {i}" for i in range(150)]
    counts = np.diag(np.arange(1, 151))
    figure = class_charts.confusion_figure({"student": counts, "teacher": counts}, names)
    assert not figure.axes[0].texts, "numbers would overlap"
    picture = style.render(figure)
    labels = figure.axes[0].get_yticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) == 150
    assert all(a.y0 >= b.y1 - 1 for a, b in itertools.pairwise(boxes)), "names overlap"
    assert min(box.height for box in boxes) >= 7, "names are too small to read"
    assert min(box.x0 for box in boxes) >= 0 and picture.shape[1] < 2500


def test_a_matrix_of_other_classes_is_refused():
    with pytest.raises(ValueError, match=r"teacher: \(3, 3\) is no matrix of 2 classes"):
        class_charts.confusion_figure({"teacher": CONFUSION}, ["a", "b"])


# IoU by hand: 6 / 9, 0 / 2 (predicted but never true), 3 / 4.
SCORES = {
    "student": score(CONFUSION, ("a", "b", "c")),
    "teacher": {"miou": 0.5, "iou": {"a": 0.9, "b": None, "c": 0.1}},
}


def test_bars_are_as_long_as_the_iou():
    figure = class_charts.iou_figure(SCORES, by_id=True)
    (axes,) = figure.axes
    student, teacher = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert student == pytest.approx([6 / 9, 0, 3 / 4])
    assert teacher == [0.9, 0, 0.1]
    lines = {to_hex(x.get_color()): x.get_xdata()[0] for x in axes.lines}
    mean = (6 / 9 + 3 / 4) / 3
    assert lines == pytest.approx({"#e69f00": mean, "#0072b2": 0.5})
    assert [text.get_text() for text in axes.texts] == [
        *("0.67", "0.00", "0.75"),
        *("0.90", "no pixels", "0.10"),
    ]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["student, mIoU 0.472", "teacher, mIoU 0.500"]


def test_the_best_class_comes_first_and_one_without_pixels_last():
    scores = {
        "one": {"miou": 0.3, "iou": {"a": 0.1, "none": None, "c": 0.5, "d": 0.0}},
        "other": {"miou": None, "iou": {"a": None, "none": None, "c": 0.3, "d": 0.0}},
    }
    (axes,) = class_charts.iou_figure(scores).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["c", "a", "d", "none"]  # means 0.4, 0.1, 0
    assert [bar.get_width() for bar in axes.containers[0]] == [0.5, 0.1, 0, 0]
    assert [bar.get_y() for bar in axes.containers[0]] == sorted(
        bar.get_y() for bar in axes.containers[0]
    )
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first row is the top one"
    assert len(axes.lines) == 1, "a mIoU that is none has no line"


def test_bars_of_one_and_of_150_classes_do_not_overlap():
    single = {"iou": {"only": 0.25}, "miou": 0.25}
    assert class_charts.iou_chart({"student": single}).shape[2] == 3
    classes = {f"class {i}": i / 150 for i in range(150)}
    figure = class_charts.iou_figure(
        {n: {"miou": 0.5, "iou": classes} for n in ("student", "teacher")}
    )
    (axes,) = figure.axes
    assert not axes.texts
    style.render(figure)
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(a.y0 >= b.y1 - 1 for a, b in itertools.pairwise(boxes)), "names overlap"
    edges = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches)
    assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(edges)), "bars overlap"


def test_scores_of_other_classes_are_refused():
    other = {"miou": 1.0, "iou": {"a": 1.0, "z": 1.0}}
    with pytest.raises(ValueError, match=r"two and one have other classes: \['z'\]"):
        class_charts.iou_figure({"one": {"miou": 1.0, "iou": {"a": 1.0}}, "two": other})


def evaluation(step: int, miou: float | None, **metrics: float | None) -> dict:
    named = {key.replace("__", "/"): value for key, value in metrics.items()}
    return {"step": step, "student_miou": miou, "teacher_miou": 0.5, "metrics": named}


def test_curves_pass_through_every_evaluation():
    history = [
        evaluation(10, 0.1, loss__total=3.0, loss__label=1.0, pseudo__coverage=0.25),
        evaluation(20, None, loss__total=2.0, loss__label=None, pseudo__coverage=0.75),
    ]
    history[1]["metrics"]["loss/unlabel_smc"] = 4.0  # missing at step 10, in the burn-in
    panels = {x.get_title(): lines_of(x) for x in run_curves.curves_figure(history).axes}
    both = [10, 20]
    nan = pytest.approx(np.nan, nan_ok=True)
    assert panels == {
        "validation mIoU": {"teacher": (both, [0.5, 0.5]), "student": (both, [0.1, nan])},
        "loss": {"total": (both, [3.0, 2.0]), "labelled": (both, [1.0, nan])},
        "unlabelled loss terms": {"SMC": (both, [nan, 4.0])},
        "pseudo labels": {"pixels covered": (both, [0.25, 0.75])},
    }


def test_shares_are_drawn_from_0_to_1():
    history = [evaluation(step, 0.1, pseudo__coverage=0.8 + step / 1000) for step in (10, 20)]
    axes = {x.get_title(): x for x in run_curves.curves_figure(history).axes}["pseudo labels"]
    assert axes.get_ylim() == (0.0, 1.02)


def test_a_supervised_run_has_no_curves_of_unlabelled_images():
    history = [evaluation(5, 0.1, loss__total=3.0, loss__unlabel=0.0, loss__unlabel_smc=0.0)]
    figure = run_curves.curves_figure(history)
    assert [axes.get_title() for axes in figure.axes] == ["validation mIoU", "loss"]
    assert lines_of(figure.axes[1]) == {"total": ([5], [3.0])}
    # A single point makes no line, but must be visible.
    picture = style.render(figure)
    assert (picture == matplotlib.colors.to_rgba_array(style.COLORS[0])[0, :3] * 255).all(-1).any()


def test_pseudo_labels_that_are_always_wrong_are_shown():
    panels = run_curves.curves_figure([evaluation(5, 0.1, pseudo__accuracy=0.0)]).axes
    assert lines_of(panels[-1]) == {"segments right": ([5], [0.0])}


def test_runs_have_a_colour_and_networks_a_style_each():
    runs = {"supervised": [evaluation(1, 0.1), evaluation(3, 0.2)], "RC²L": [evaluation(2, None)]}
    (axes,) = run_curves.runs_figure(runs).axes
    lines = {x.get_label(): x for x in axes.lines}
    assert list(lines["supervised, student"].get_ydata()) == [0.1, 0.2]
    assert list(lines["supervised, teacher"].get_xdata()) == [1, 3]
    assert list(lines["RC²L, teacher"].get_ydata()) == [0.5]
    assert len({(x.get_color(), x.get_linestyle()) for x in axes.lines}) == 4
    one, other = (lines[f"{name}, teacher"].get_color() for name in runs)
    assert one != other


def test_a_notebooks_settings_neither_change_a_chart_nor_are_changed(recwarn):
    names = ["a$x$", "Straße №5"]  # no formula, and no letter that the font lacks

    def chart():
        return class_charts.confusion_chart({"m": np.eye(2, dtype=int)}, names, "α$1$")

    expected = chart()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        np.testing.assert_array_equal(chart(), expected)
        assert matplotlib.rcParams["font.size"] == 30
    assert expected.dtype == np.uint8
    assert not [str(x.message) for x in recwarn if "lyph" in str(x.message)]
