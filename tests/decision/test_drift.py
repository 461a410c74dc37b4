from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from blemish.decision.conformal import conformal_threshold
from blemish.decision.drift import FALSE_ALARM, Drift, DriftAlarm, find_drift

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def normal(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    return rng.normal(size=size)


def tied(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    return rng.integers(0, 5, size) / 7


def defective(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """A third of the images have scores that no good one has."""
    return np.concatenate([normal(rng, size - size // 3), rng.normal(9, 1, size // 3)])


def p_values(
    before: Draw, after: Draw, n: int, m: int, *, rate: float = 0.1, times: int = 300
) -> list[float]:
    found = []
    for seed in range(times):
        rng = np.random.default_rng(seed)
        calibration = before(rng, n)
        p = find_drift(calibration, after(rng, m), conformal_threshold(calibration, rate), seed=seed).p_value
        found.append(1.0 if p is None else p)
    return found


@pytest.fixture
def fewer_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of ways to deal gives valid p-values."""
    monkeypatch.setattr("blemish.decision.drift.RESAMPLES", 199)


@pytest.mark.parametrize(
    ("before", "after", "n", "m"),
    [
        (normal, normal, 19, 12),
        (normal, normal, 30, 30),
        (normal, defective, 19, 30),  # what is rejected does not count
        (tied, tied, 25, 25),
        (normal, normal, 9, 2),
    ],
)
@pytest.mark.usefixtures("fewer_ways")
def test_p_values_are_valid_without_drift(before: Draw, after: Draw, n: int, m: int) -> None:
    found = np.array(p_values(before, after, n, m))
    for level in (0.05, 0.1, 0.25, 0.5):
        spread = np.sqrt(level * (1 - level) / found.size)
        assert np.mean(found <= level) <= level + 3 * spread
    if before is normal and n > 9:  # and no larger than they must be
        assert np.mean(found <= 0.5) > 0.4


@pytest.mark.parametrize("threshold", [0.8, -0.3])
@pytest.mark.usefixtures("fewer_ways")
def test_a_threshold_set_by_hand_keeps_the_level(threshold: float) -> None:
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        p = find_drift(rng.normal(size=30), rng.normal(size=25), threshold, seed=seed).p_value
        found.append(1.0 if p is None else p)
    assert np.mean(np.array(found) <= 0.1) <= 0.1 + 3 * np.sqrt(0.09 / 200)


@pytest.mark.parametrize(("shift", "word"), [(1.0, "higher"), (-1.0, "lower")])
def test_a_shift_of_the_scores_is_found_in_either_direction(shift: float, word: str) -> None:
    rng = np.random.default_rng(0)
    calibration = rng.normal(size=60)
    found = find_drift(calibration, rng.normal(shift, 1, 60), conformal_threshold(calibration, 0.05))
    assert found.differs
    assert f"score {word} than" in found.in_words()
    assert "fit again" in found.in_words()


def test_power_against_a_shift_grows_with_the_images() -> None:
    def moved(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        return rng.normal(1, 1, size)

    few = np.mean(np.array(p_values(normal, moved, 40, 10, times=60)) <= FALSE_ALARM)
    many = np.mean(np.array(p_values(normal, moved, 40, 80, times=60)) <= FALSE_ALARM)
    assert 0.1 < few < many
    assert many > 0.5


def test_a_wider_spread_is_found_at_an_equal_median() -> None:
    rng = np.random.default_rng(3)
    calibration = rng.normal(size=150)
    found = find_drift(calibration, rng.normal(0, 3, 150), conformal_threshold(calibration, 0.05))
    assert found.differs


@pytest.mark.parametrize(("n", "m"), [(3, 3), (6, 4), (8, 7)])
def test_the_p_value_equals_that_over_all_permutations(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    calibration, new = rng.normal(size=n), rng.normal(0.7, 1, m)
    exact = stats.cramervonmises_2samp(calibration, new, method="exact").pvalue
    found = find_drift(calibration, new, 99.0).p_value
    assert found is not None
    assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / 1999) + 1e-3


def test_ties_are_dealt_with_by_counting_them_together() -> None:
    calibration, new = np.array([0.0, 0, 1, 1, 2]), np.array([1.0, 2, 2, 2])
    pooled = np.concatenate([calibration, new])

    def distance(chosen: tuple[int, ...]) -> float:
        first = pooled[list(chosen)]
        second = np.delete(pooled, chosen)
        cdf = [(np.mean(first <= value) - np.mean(second <= value)) ** 2 for value in pooled]
        return float(np.sum(cdf))

    found = distance((0, 1, 2, 3, 4))
    ways = [distance(chosen) >= found - 1e-12 for chosen in combinations(range(9), 5)]
    p = find_drift(calibration, new, 99.0).p_value
    assert p == pytest.approx(np.mean(ways), abs=0.04)


def test_equal_scores_everywhere_are_no_drift() -> None:
    found = find_drift(np.ones(30), np.ones(30), 2.0)
    assert found.p_value == 1.0
    assert set(found.ranks) == {1.0}


def test_the_order_and_the_scale_of_scores_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    calibration, new = rng.normal(size=30), rng.normal(0.5, 1, 20)
    found = find_drift(calibration, new, 1.0)
    assert find_drift(rng.permutation(calibration), rng.permutation(new), 1.0) == found
    assert find_drift(np.exp(calibration), np.exp(new), float(np.exp(1.0))).p_value == found.p_value


def test_rejected_images_change_nothing_but_the_count() -> None:
    rng = np.random.default_rng(6)
    calibration, new = rng.normal(size=30), rng.normal(size=20)
    found = find_drift(calibration, new, 1.0)
    more = find_drift(calibration, [*new, 5.0, 6.0, 1.0], 1.0)
    assert (more.p_value, more.ranks, more.accepted) == (found.p_value, found.ranks, found.accepted)
    assert more.count == found.count + 3


def test_ranks_are_conformal_p_values_below_the_threshold() -> None:
    assert find_drift([1, 2, 3, 9], [0, 2.5, 3, 50], 9).ranks == (0.5, 0.5, 1.0)


@pytest.mark.parametrize(
    ("calibration", "new", "threshold"),
    [([1.0, 2], [], 3), ([1.0, 2], [9.0], 3), ([], [1.0], 3), ([4.0], [1.0], 4), ([1.0, 2], [1.5], 3)],
)
def test_too_few_images_give_no_finding_and_report_it(
    calibration: list[float], new: list[float], threshold: float
) -> None:
    found = find_drift(calibration, new, threshold)
    assert not found.can_tell
    assert not found.differs
    assert "are too few" in found.in_words()


@pytest.mark.parametrize(("compared", "accepted", "tells"), [(19, 1, False), (19, 2, True), (5, 4, False)])
def test_drift_can_be_found_if_a_p_value_can_reach_the_rate(
    compared: int, accepted: int, tells: bool
) -> None:
    found = find_drift(range(compared), range(100, 100 + accepted), 999)
    assert found.can_tell == tells
    if not tells:
        assert not found.differs


def test_a_mostly_rejected_folder_is_remarked_on() -> None:
    rng = np.random.default_rng(7)
    calibration = rng.normal(size=50)
    words = find_drift(calibration, rng.normal(6, 1, 40), 2.0).in_words()
    assert "40 of 40 are rejected" in words
    assert "are rejected" not in find_drift(calibration, rng.normal(size=40), 2.0).in_words()


def test_the_words_are_one_line() -> None:
    for found in (
        Drift(None, 0, 3, 0, ()),
        Drift(0.4, 30, 40, 30, (0.5,) * 30),
        Drift(0.0005, 30, 80, 30, (0.1,) * 30),
    ):
        assert "\n" not in found.in_words()


# -- one by one ----------------------------------------------------------------------------------------


def watch(shift: float, *, length: int, start: int = 0, seed: int, draw: Draw = normal) -> int | None:
    """The number of the image at which an alarm of 10 % goes off, of images that shift from ``start`` on."""
    rng = np.random.default_rng(seed)
    calibration = normal(rng, 40) if draw is defective else draw(rng, 40)
    alarm = DriftAlarm(calibration, conformal_threshold(calibration, 0.05), false_alarm=0.1, seed=seed)
    stream = rng.permutation(draw(rng, length))
    stream[start:] += shift
    return next((number for number, score in enumerate(stream) if alarm.update(score)), None)


@pytest.mark.parametrize("draw", [normal, tied, defective])
def test_the_false_alarm_rate_is_kept_without_drift(draw: Draw) -> None:
    gone_off = [watch(0.0, length=200, seed=seed, draw=draw) is not None for seed in range(150)]
    assert np.mean(gone_off) <= 0.1 + 3 * np.sqrt(0.09 / 150)


@pytest.mark.parametrize("shift", [1.5, -1.5])
def test_drift_sets_the_alarm_off_soon_after_it_begins(shift: float) -> None:
    found = [watch(shift, length=400, start=100, seed=seed) for seed in range(20)]
    after = [number for number in found if number is not None and number >= 100]
    assert len(after) >= 15
    assert np.median(after) < 200


def test_p_values_of_the_stream_are_uniform_though_they_share_one_calibration() -> None:
    ends = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        alarm = DriftAlarm(tied(rng, 10), 99.0, seed=seed)
        for score in tied(rng, 15):
            p = alarm._p_value(score)
            alarm.update(score)
        ends.append(p)
    assert stats.kstest(ends, "uniform").pvalue > 0.01


def test_the_capital_is_the_product_of_the_stakes_while_none_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DriftAlarm, "JUMPING", 0.0)
    given = iter([0.2, 0.9, 0.4])
    monkeypatch.setattr(DriftAlarm, "_p_value", lambda *_: next(given))
    alarm = DriftAlarm([0.0], 9.0)
    for _ in range(3):
        alarm.update(1.0)
    stakes = [np.prod([1 + e * (p - 0.5) for p in (0.2, 0.9, 0.4)]) for e in (-1, 0, 1)]
    assert alarm.capital == pytest.approx(np.mean(stakes))


def test_an_alarm_stays_and_rejected_images_change_nothing() -> None:
    alarm = DriftAlarm(np.arange(30), 50.0, false_alarm=0.2)
    before = alarm.capital
    assert not alarm.update(50.0)
    assert alarm.capital == before == 1.0
    while not alarm.gone_off:
        alarm.update(40.0)
    for score in range(30):
        assert alarm.update(float(score))


def test_scores_and_rates_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        find_drift([1.0], [np.nan], 2)
    with pytest.raises(ValueError, match="shape"):
        find_drift([[1.0]], [1.0], 2)
    with pytest.raises(ValueError, match="not finite"):
        DriftAlarm([1.0], 2.0).update(float("nan"))
    for rate in (0, 1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            DriftAlarm([1.0], 2.0, false_alarm=rate)
