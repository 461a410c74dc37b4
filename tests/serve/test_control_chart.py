"""Control chart: the moving average against its closed form, its limits against simulated runs."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.serve.control_chart import WEIGHT, control_chart


def test_the_average_is_the_weighted_sum_of_all_accepted_scores() -> None:
    rng = np.random.default_rng(0)
    calibration, scores = rng.gamma(4, 1, 60), rng.gamma(4, 1, 25)
    chart = control_chart(calibration, 1e9, scores.tolist(), [True] * 25)
    assert chart is not None
    centre = calibration.mean()
    for place in range(25):
        weights = WEIGHT * (1 - WEIGHT) ** np.arange(place, -1, -1)
        expected = weights @ scores[: place + 1] + (1 - WEIGHT) ** (place + 1) * centre
        assert chart.mean[place] == pytest.approx(expected)


def test_rejected_images_change_nothing() -> None:
    calibration = np.linspace(0, 1, 20)
    scores, accepted = [0.4, 99.0, 0.6, 50.0], [True, False, True, False]
    chart = control_chart(calibration, 1.0, scores, accepted)
    alone = control_chart(calibration, 1.0, [0.4, 0.6], [True, True])
    assert chart is not None
    assert alone is not None
    assert [chart.mean[0], chart.mean[2]] == alone.mean
    assert chart.mean[1] == chart.mean[0]
    assert chart.beyond == alone.beyond == 0


def test_there_is_no_average_before_the_first_accepted_image() -> None:
    chart = control_chart(np.linspace(0, 1, 20), 1.0, [5.0, 0.5], [False, True])
    assert chart is not None
    assert chart.mean[0] is None
    assert chart.mean[1] is not None


def test_limits_are_of_the_calibration_below_the_threshold() -> None:
    inside = np.linspace(1, 2, 30)
    chart = control_chart(np.concatenate([inside, [50, 60]]), 2.0, [], [])
    assert chart is not None
    assert chart.centre == pytest.approx(inside.mean())
    assert chart.upper - chart.centre == pytest.approx(3 * inside.std(ddof=1) / 3)  # √(0.2 / 1.8) is a third
    assert chart.centre - chart.lower == pytest.approx(chart.upper - chart.centre)


def test_long_runs_of_good_images_stay_inside_and_a_shift_leaves() -> None:
    rng = np.random.default_rng(1)
    calibration = rng.normal(10, 1, 500)
    steady = control_chart(calibration, 1e9, rng.normal(10, 1, 3000).tolist(), [True] * 3000)
    shifted = control_chart(calibration, 1e9, rng.normal(11.5, 1, 40).tolist(), [True] * 40)
    assert steady is not None
    assert shifted is not None
    # The average run length of this chart is about 560 images (Lucas, Saccucci 1990, λ = 0.2, L = 3).
    assert steady.beyond < 60
    assert shifted.beyond > 25


def test_few_calibration_images_give_no_limits() -> None:
    assert control_chart(np.arange(7.0), 100, [1.0], [True]) is None
    assert control_chart(np.arange(20.0), 6.5, [1.0], [True]) is None
