"""rc2l_jax/reports/seed_curves.py: figures of several seeds show means, deviations, every run."""

from __future__ import annotations

import numpy as np
import pytest

from rc2l_jax.reports import seed_curves

SUPERVISED = [{10: 0.1, 20: 0.3}, {10: 0.3, 20: 0.5}, {10: 0.2, 20: None, 30: 0.9}]
RC2L = [{10: 0.2, 20: 0.6}]


def lines_of(axes) -> dict[str, tuple[list, list]]:
    """{label: (x, y)} of the lines."""
    return {x.get_label(): (list(x.get_xdata()), list(x.get_ydata())) for x in axes.lines}


def test_means_and_deviations_are_those_of_the_runs_that_have_a_number():
    spread = seed_curves.spread_of(SUPERVISED)
    np.testing.assert_array_equal(spread.x, [10, 20, 30])
    np.testing.assert_allclose(spread.mean, [0.2, 0.4, 0.9])
    # Deviations with n - 1: of three numbers 0.1 apart 0.1, of two numbers 0.2 apart 0.1 * sqrt(2).
    np.testing.assert_allclose(spread.deviation, [0.1, 0.1 * 2**0.5, np.nan])
    np.testing.assert_array_equal(spread.runs, [3, 2, 1])
    assert len(seed_curves.spread_of([{}, {10: None}]).x) == 0


def test_a_panel_has_a_line_and_a_band_a_method_in_one_style_everywhere():
    even = [{10: 0.1, 20: 0.3, 30: 0.5}, {10: 0.3, 20: 0.5}]
    panels = {"mIoU": {"supervised": even, "rc2l": RC2L}, "gain": {"rc2l": [{10: -0.1, 20: 0.3}]}}
    figure = seed_curves.bands_figure(panels, "supervised")
    miou, gain = figure.axes
    assert (miou.get_ylabel(), gain.get_ylabel(), gain.get_xlabel()) == ("mIoU", "gain", "step")
    lines = lines_of(miou)
    assert lines.keys() == {"supervised", "rc2l"} and lines["rc2l"] == ([10, 20], [0.2, 0.6])
    assert lines["supervised"][0] == [10, 20], "of step 30 one run alone would be the mean"
    assert lines["supervised"][1] == pytest.approx([0.2, 0.4])
    band = miou.collections[0].get_paths()[0].vertices
    at_ten = band[band[:, 0] == 10, 1]
    assert (at_ten.min(), at_ten.max()) == pytest.approx((0.2 - 0.1 * 2**0.5, 0.2 + 0.1 * 2**0.5))
    colors = {x.get_label(): x.get_color() for axes in figure.axes for x in axes.lines}
    assert colors["supervised"] == "#000000" and colors["rc2l"] == miou.lines[1].get_color()
    assert any(list(x.get_ydata()) == [0, 0] for x in gain.lines), "below 0 it is a loss"
    assert len(miou.lines) == 2
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["supervised", "rc2l"], "0.4 is above 0.3, where the lines end"


def test_panels_of_one_quantity_have_one_scale():
    panels = {"a": {"x": [{1: 0.1, 2: 0.2}]}, "b": {"x": [{1: 0.8, 2: 0.9}]}}
    for one_scale in (True, False):
        one, other = seed_curves.bands_figure(panels, one_scale=one_scale).axes
        assert (one.get_ylim() == other.get_ylim()) == one_scale


def test_one_scale_has_room_for_all_panels_also_if_the_first_is_nearly_flat():
    panels = {"a": {"x": [{1: 0.50, 2: 0.51}]}, "b": {"x": [{1: 0.1, 2: 0.9}]}}
    figure = seed_curves.bands_figure(panels, one_scale=True)
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert low < 0.1 and high > 0.9


def test_a_difference_of_nothing_does_not_look_large():
    (axes,) = seed_curves.bands_figure({"covered": {"rc2l": [{1: 0.996, 2: 0.998}]}}).axes
    low, high = axes.get_ylim()
    assert high - low == pytest.approx(0.05) and low < 0.996 < 0.998 < high


def test_no_two_of_seventeen_methods_look_the_same():
    methods = {f"method {i}": [{1: i / 10, 2: i / 20}] for i in range(17)}
    figure = seed_curves.bands_figure({"mIoU": methods}, "method 3")
    looks = {(x.get_color(), x.get_linestyle()) for x in figure.axes[0].lines}
    assert len(looks) == 17
    seed_curves.render(figure)
    box = figure.legends[0].get_window_extent()
    assert box.y0 >= 0 and box.y1 <= figure.bbox.height, "names are cut off"


def test_miou_over_labels_passes_through_the_means_and_shows_every_run():
    methods = {"supervised": [{23: 0.1, 46: 0.3}, {46: 0.5}], "rc2l": [{23: 0.4}, {46: None}]}
    figure = seed_curves.labels_figure(methods, "supervised", "camvid")
    (axes,) = figure.axes
    line = axes.containers[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), [0.1, 0.4])
    np.testing.assert_allclose(line.get_xdata(), [23, 46], rtol=0.02)
    (bars,) = axes.containers[0].lines[2]
    (lower, upper) = bars.get_segments()[1][:, 1]
    assert (lower, upper) == pytest.approx((0.4 - 0.1 * 2**0.5, 0.4 + 0.1 * 2**0.5))
    dots = {x.get_label(): sorted(x.get_ydata()) for x in axes.lines if x.get_marker() == "."}
    assert dots == {"supervised": [0.1, 0.3, 0.5], "rc2l": [0.4]}
    ticks = [
        (tick.get_text(), place) for tick, place in zip(axes.get_xticklabels(), axes.get_xticks())
    ]
    assert ticks == [("23", 23), ("46", 46)]
    assert figure.get_suptitle() == "camvid"
    assert seed_curves.labels_chart(methods).dtype == np.uint8
