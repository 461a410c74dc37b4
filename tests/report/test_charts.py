from __future__ import annotations

import math

import numpy as np
import pytest

from blemish.report.charts import CurveChart, Histogram, Line, Series, ticks


def test_counts_equal_those_of_numpy_over_shared_edges(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=300), rng.normal(2, 3, size=41)
    chart = Histogram("t", [Series("a", a), Series("b", b)])
    edges = chart.edges()
    assert (edges[0], edges[-1]) == (min(a.min(), b.min()), max(a.max(), b.max()))
    for counts, values in zip(chart.counts(), (a, b), strict=True):
        assert (counts == np.histogram(values, edges)[0]).all()
        assert counts.sum() == values.size


@pytest.mark.parametrize("threshold", [-9.0, 0.0, 0.313, 55.0])
def test_bins_are_separated_at_the_threshold_like_the_decisions(
    rng: np.random.Generator, threshold: float
) -> None:
    values = np.append(rng.normal(size=200), [threshold, threshold])
    chart = Histogram("t", [Series("a", values)], [(threshold, "threshold")])
    edges, (counts,) = chart.edges(), chart.counts()
    assert counts.sum() == values.size
    assert np.allclose(np.diff(edges), np.diff(edges)[0])
    assert counts[edges[:-1] > threshold].sum() == (values > threshold).sum()
    (strip,) = chart.drawing()["strips"]
    assert strip["beyond"] == (values > threshold).sum()
    assert any(bar["beyond"] for bar in strip["bars"]) == bool((values > threshold).any())


@pytest.mark.parametrize("values", [[], [0.25], [0.0, 0.0, 0.0], [3e-9, 3e-9], [-2.0]])
@pytest.mark.parametrize("marks", [[], [(0.25, "threshold")]])
def test_few_or_equal_values_are_all_counted(values: list[float], marks: list[tuple[float, str]]) -> None:
    chart = Histogram("t", [Series("a", values)], marks)
    assert chart.counts()[0].sum() == len(values)
    assert (np.diff(chart.edges()) > 0).all()


def test_values_that_are_not_finite_are_left_out() -> None:
    assert Histogram("t", [Series("a", [1.0, math.nan, math.inf, 2.0])]).counts()[0].sum() == 2


def test_bar_heights_follow_the_counts() -> None:
    values = [0.0] * 8 + [1.0] * 4
    high, low = Histogram("t", [Series("a", values)]).drawing()["strips"][0]["bars"]
    assert low["height"] / high["height"] == pytest.approx(1 / 2, abs=1e-3)


def test_one_image_among_thousands_is_visible() -> None:
    values = np.append(np.zeros(5000), 1.0)
    bars = Histogram("t", [Series("a", values)]).drawing()["strips"][0]["bars"]
    assert min(bar["height"] for bar in bars) >= 1


def test_a_chart_without_series_can_be_drawn() -> None:
    assert Histogram("t", []).drawing()["strips"] == []
    assert CurveChart("t", "x", "y", []).drawing()["lines"] == []


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 17), (0.0831, 0.0839), (1e-7, 4e-6), (0, 1e9)])
def test_ticks_are_even_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 11
    assert low - 1e-9 * abs(high) <= found[0] < found[-1] <= high * (1 + 1e-9)
    steps = np.diff(found)
    assert np.allclose(steps, steps[0], rtol=1e-6)
    assert round(steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9), 6) in (1, 2, 5)


def test_ratios_are_drawn_on_the_unit_square_with_y_upwards() -> None:
    drawing = CurveChart("ROC", "x", "y", [Line("a", [(0.0, 0.0), (0.5, 0.8), (1.0, 1.0)])]).drawing()
    (line,) = drawing["lines"]
    first, middle, last = line["points"]
    assert (first["x"], first["y"]) == (drawing["left"], drawing["bottom"])
    assert (last["x"], last["y"]) == (drawing["right"], drawing["top"])
    assert middle["x"] == pytest.approx((drawing["left"] + drawing["right"]) / 2)
    assert (drawing["bottom"] - middle["y"]) / (drawing["bottom"] - drawing["top"]) == pytest.approx(0.8)


def test_points_that_are_not_finite_are_left_out() -> None:
    (line,) = CurveChart("t", "x", "y", [Line("a", [(0.0, math.nan), (0.5, 0.8)])]).drawing()["lines"]
    assert len(line["points"]) == 1
