"""Figures of a week against counts by hand and independent formulas."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from scipy.stats import binomtest

from blemish.inspection.detector import Detector
from blemish.serve.contracts import NewVerdict
from blemish.serve.history import History
from blemish.serve.weekly_figures import (
    exact_interval,
    hours_beyond,
    promised_rate,
    read_calibrations,
    realised_rate,
    week_figures,
    week_of,
)
from tests.serve.history.made import BEGIN, decision

CALIBRATION = tuple((np.arange(1, 100) / 100).tolist())
"""99 scores; the threshold 0.95 promises 5 %."""
SHA = "5" * 64
MONDAY, NEXT = date(2026, 3, 2), date(2026, 3, 9)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """A week: 900 accepted and 100 rejected images at 0.95, 10 of another kind; 40 more a week later."""
    rng = np.random.default_rng(0)
    with History.open(tmp_path) as opened:
        new = [
            decision(
                place,
                time=BEGIN + timedelta(minutes=9 * place),
                score=float(rng.uniform(0.01, 0.95)) if place % 10 else 2.0,
                threshold=0.95,
                is_anomalous=place % 10 == 0 or place % 100 == 7,
                other_kind="empty" if place % 100 == 7 else None,
            )
            for place in range(1000)
        ]
        later = [
            decision(place, time=BEGIN + timedelta(days=7), threshold=0.95) for place in range(2000, 2040)
        ]
        opened.add(new + later)
        yield opened


def test_a_week_is_counted(history: History) -> None:
    for number in range(1, 1001, 10):  # every rejected one: 4 in 100 were good
        history.add_verdict(number, NewVerdict(is_right=number % 250 != 1))
    for number in (3, 4, 5):
        history.add_verdict(number, NewVerdict(is_right=False, label="scratch"))
    history.add_verdict(8, NewVerdict(is_right=False))  # of another kind, and good
    figures = week_figures(history, MONDAY, NEXT, timezone.utc, {SHA: CALIBRATION})
    assert (figures.decisions, figures.rejected, figures.judged) == (1000, 110, 104)
    assert len(figures.days) == 7
    assert sum(day.decisions for day in figures.days) == 1000
    assert figures.days[1].day == date(2026, 3, 3)
    assert figures.days[1].decisions == 160  # one every nine minutes
    assert (figures.false_rejects, figures.missed) == (5, 3)
    assert [one.id for one in figures.overturned] == [751, 501, 251, 8, 5, 4, 3, 1]
    [one] = figures.thresholds
    assert (one.decisions, one.rejected, one.of_other_kind, one.missed) == (1000, 110, 10, 3)
    assert (one.rate.false_rejects, one.rate.unjudged, one.rate.accepted_good) == (4, 0, 887)
    assert one.promised == pytest.approx(0.05)
    assert one.rate.least == one.rate.most == 4 / 891
    assert one.keeps_promise is True


def test_rejected_images_without_a_verdict_leave_a_range(history: History) -> None:
    history.add_verdict(1, NewVerdict(is_right=False))
    history.add_verdict(11, NewVerdict(is_right=True))
    [one] = week_figures(history, MONDAY, NEXT, timezone.utc, {SHA: CALIBRATION}).thresholds
    assert (one.rate.false_rejects, one.rate.unjudged, one.rate.accepted_good) == (1, 98, 890)
    assert (one.rate.least, one.rate.most) == (1 / 891, 99 / 989)
    assert one.rate.low == pytest.approx(binomtest(1, 891).proportion_ci(0.95, "exact").low)
    assert one.rate.high == pytest.approx(binomtest(99, 989).proportion_ci(0.95, "exact").high)


def test_a_rate_far_above_the_promise_breaks_it(history: History) -> None:
    for number in range(1, 1001, 10):
        history.add_verdict(number, NewVerdict(is_right=False))
    many = tuple((np.arange(1, 1000) / 1000).tolist())
    [one] = week_figures(history, MONDAY, NEXT, timezone.utc, {SHA: many}).thresholds
    assert one.rate.least == 100 / 990
    assert one.promised == pytest.approx(0.05)
    assert one.allowed is not None
    assert 0.06 < one.allowed < 0.08
    assert one.keeps_promise is False


def test_without_the_model_nothing_is_promised_and_nothing_compared(history: History) -> None:
    figures = week_figures(history, MONDAY, NEXT, timezone.utc, {})
    assert [one.promised for one in figures.thresholds] == [None]
    assert [one.keeps_promise for one in figures.thresholds] == [None]
    assert figures.drift == []


def test_drift_is_found_where_there_is_some(history: History) -> None:
    [same] = week_figures(history, MONDAY, NEXT, timezone.utc, {SHA: CALIBRATION}).drift
    assert not same.differs
    assert same.compared == 890
    assert same.hours_beyond <= 3
    half = tuple(score / 2 for score in CALIBRATION)
    [other] = week_figures(history, MONDAY, NEXT, timezone.utc, {SHA: half}).drift
    assert (other.differs, other.is_higher) == (True, True)
    assert other.hours == 151


def test_days_begin_at_midnight_of_the_zone(history: History) -> None:
    there = week_figures(history, MONDAY, NEXT, ZoneInfo("America/New_York"), {})
    assert there.since.isoformat() == "2026-03-02T00:00:00-05:00"
    assert (
        there.until.isoformat() == "2026-03-09T00:00:00-04:00"
    )  # the clocks were put forward on that Sunday
    assert there.days[0].decisions == -(-(22.5 * 60) // 9)  # from 6:30 to 5:00 of the next day


@pytest.mark.parametrize(("count", "total"), [(0, 20), (3, 20), (20, 20), (7, 4000)])
def test_intervals_are_exact(count: int, total: int) -> None:
    found = binomtest(count, total).proportion_ci(0.95, "exact")
    assert exact_interval(count, total) == pytest.approx((found.low, found.high))


def test_an_interval_covers_the_true_rate_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for false_rejects in rng.binomial(200, 0.03, 400):
        low, high = realised_rate(int(false_rejects), 0, 200 - int(false_rejects))[3:]
        covered += low <= 0.03 <= high
    assert covered / 400 > 0.93


def test_an_interval_of_nothing_is_everything() -> None:
    assert exact_interval(0, 0) == (0.0, 1.0)
    assert realised_rate(0, 0, 0).least == 0


def test_a_promise_is_that_of_the_decision(exported: tuple[Detector, Path]) -> None:
    detector = exported[0]
    promise = detector.decision.promise
    assert promise is not None
    scores = detector.decision.calibration.scores
    assert promised_rate(scores, detector.threshold) == pytest.approx(promise.bound)
    assert promised_rate(scores, detector.threshold + 1e-9) is None


def test_calibrations_are_read_of_models_and_of_nothing_else(
    exported: tuple[Detector, Path], tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text("{")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "model.json").write_bytes((exported[1] / "model.json").read_bytes())
    found = read_calibrations(tmp_path)
    assert found == {exported[0].file.weights_sha256: exported[0].decision.calibration.scores}
    assert read_calibrations(tmp_path / "nowhere") == {}


def test_control_limits_are_rarely_passed_without_drift_and_often_with_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    calibration = rng.normal(0.4, 0.1, 200).clip(0.01)
    beyond = []
    for shift in (0.0, 0.05):
        with History.open(tmp_path / str(shift)) as history:
            history.add(
                [
                    decision(place, time=BEGIN + timedelta(minutes=place), score=float(score), threshold=0.95)
                    for place, score in enumerate(rng.normal(0.4 + shift, 0.1, 3000).clip(0.01))
                ]
            )
            beyond.append(hours_beyond(calibration.tolist(), 0.95, history.hourly()))
    assert [hours for _, hours in beyond] == [51, 51]
    assert beyond[0][0] <= 2
    assert beyond[1][0] > 25
    assert hours_beyond([0.1, 0.2], 0.95, []) == (0, 0)


@pytest.mark.parametrize(
    ("day", "begin"),
    [
        (date(2026, 3, 2), date(2026, 3, 2)),
        (date(2026, 3, 8), date(2026, 3, 2)),
        (date(2027, 1, 1), date(2026, 12, 28)),
    ],
)
def test_a_week_begins_on_monday(day: date, begin: date) -> None:
    assert week_of(day) == (begin, begin + timedelta(days=7))
