from __future__ import annotations

import bjontegaard
import numpy as np
import pytest

from blemish.errors import UsageError
from blemish.jpeg.benchmark.bd_rate import RateCurve, bd_rate, mean_interval, relative_rates

RATES = np.array([0.08, 0.15, 0.3, 0.5, 0.8, 1.3, 2.0])
PSNR = 36 + 5 * np.log(RATES) + 0.4 * np.sin(7 * RATES)
CURVE = RateCurve.through(RATES, PSNR)
WIDE = (0.001, 100.0)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.3])
def test_a_rate_that_is_scaled_is_the_bd_rate(factor: float) -> None:
    assert bd_rate(CURVE, RateCurve.through(factor * RATES, PSNR), WIDE) == pytest.approx(100 * (factor - 1))


def test_equals_the_package_where_no_limit_bites() -> None:
    other = RateCurve.through(0.7 * RATES**1.1, PSNR + 0.3)
    expected = bjontegaard.bd_rate(RATES, PSNR, other.bpp, other.quality, method="pchip", min_overlap=0)
    assert bd_rate(CURVE, other, WIDE) == pytest.approx(expected)


def test_better_on_one_is_worse_on_the_other() -> None:
    other = RateCurve.through(0.7 * RATES**1.1, PSNR)
    there, back = bd_rate(CURVE, other, WIDE), bd_rate(other, CURVE, WIDE)
    assert there is not None
    assert back is not None
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


def test_only_the_rates_named_count() -> None:
    # the same up to 1 bit per pixel, twice the bits from 1.3 on
    other = RateCurve.through(np.where(RATES > 1, 2 * RATES, RATES), PSNR)
    assert bd_rate(CURVE, other, (0.1, 0.75)) == pytest.approx(0, abs=0.2)
    beyond = bd_rate(CURVE, other, WIDE)
    assert beyond is not None
    assert beyond > 10


def test_the_choice_of_qualities_hardly_changes_the_bd_rate() -> None:
    def smooth(rates: np.ndarray) -> RateCurve:
        return RateCurve.through(rates, 36 + 5 * np.log(rates))

    shifted = [
        bd_rate(smooth(np.geomspace(0.1 * s, 2 * s, 9)), smooth(0.75 * np.geomspace(0.12, 1.9, 11)))
        for s in (0.9, 1.0, 1.1)
    ]
    exact = [bd_rate(smooth(np.geomspace(0.2, 1, 50)), smooth(np.geomspace(0.2, 1, 50)))]
    assert np.ptp(np.array(shifted, float)) < 0.2
    assert exact == [pytest.approx(0, abs=1e-9)]


def test_ends_lie_on_the_limits() -> None:
    part = CURVE.within((0.2, 1.0))
    assert part.bpp.tolist() == pytest.approx([0.2, 0.3, 0.5, 0.8, 1.0])
    assert part.quality[1:4] == pytest.approx(PSNR[2:5])
    assert (np.diff(part.quality) > 0).all()


def test_a_curve_is_not_stretched_beyond_its_points() -> None:
    part = RateCurve.through([0.3, 0.5], [30, 32]).within((0.2, 1.0))
    assert part.bpp.tolist() == [0.3, 0.5]


@pytest.mark.parametrize(
    "other",
    [
        RateCurve.through([], []),
        RateCurve.through([0.4], [30.0]),
        RateCurve.through([3.0, 4.0], [30.0, 31.0]),
        RateCurve.through([0.3, 0.9], [60.0, 70.0]),
    ],
)
def test_curves_without_a_common_range_have_no_bd_rate(other: RateCurve) -> None:
    assert bd_rate(CURVE, other) is None
    assert bd_rate(other, CURVE) is None


def test_points_that_are_no_progress_are_left_out() -> None:
    curve = RateCurve.through([0.2, 0.2, 0.3, 0.4, 0.5], [29, 30, 30, np.nan, 31])
    assert (curve.bpp.tolist(), curve.quality.tolist()) == ([0.2, 0.5], [30, 31])


@pytest.mark.parametrize("wrong", [(0, 1), (1, 0.2), (0.5, 0.5), (-1, 1)])
def test_wrong_range(wrong: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="the lower first"):
        bd_rate(CURVE, CURVE, wrong)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        interval = mean_interval(list(rng.normal(-20, 4, 24)), resamples=500)
        assert interval is not None
        assert interval.low < interval.mean < interval.high
        hits += interval.low <= -20 <= interval.high
    assert 175 <= hits <= 199


def test_the_interval_of_no_values_is_none() -> None:
    assert mean_interval([]) is None


def test_relative_rates_are_the_factor() -> None:
    other = RateCurve.through(0.8 * RATES, PSNR)
    grid = np.array([0.2, 0.5, 1.0])
    assert relative_rates(CURVE, other, grid) == pytest.approx([0.8, 0.8, 0.8])
    assert np.isnan(relative_rates(CURVE, other, np.array([50.0]))).all()
    assert np.isnan(relative_rates(CURVE, RateCurve.through([], []), grid)).all()
