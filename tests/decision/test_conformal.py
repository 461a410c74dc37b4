from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from scipy import stats

from blemish.decision.conformal import (
    Guarantee,
    at_most,
    benjamini_hochberg,
    conformal_threshold,
    largest,
    needed,
    outlying,
    p_values,
    train_mean_threshold,
    trimmed,
)
from blemish.errors import CalibrationError, UsageError

RATES = (0.01, 0.02, 0.05, 0.07, 0.1, 0.15, 0.2, 0.29, 1 / 3, 0.5)


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.05, 0.07, 0.1, 0.15, 0.2, 0.29, 0.5])
def test_rank_is_the_formula_in_exact_arithmetic(rate: float) -> None:
    alpha = Fraction(str(rate))
    for n in range(ceil(1 / alpha) - 1, 700):
        assert Guarantee(n=n, false_reject_rate=rate).rank == ceil((n + 1) * (1 - alpha))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("n", [99, 100, 119, 300])
def test_above_the_threshold_is_the_same_as_p_at_most_the_rate(n: int, rate: float) -> None:
    rng = np.random.default_rng(n)
    calibration = rng.integers(0, 60, n) / 7  # with ties
    scores = np.concatenate([rng.integers(-1, 62, 200) / 7, rng.uniform(0, 9, 200)])
    above = scores > conformal_threshold(calibration, rate)
    np.testing.assert_array_equal(above, p_values(calibration, scores) <= rate)


@pytest.mark.parametrize(
    ("rate", "fewest"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.07, 14), (1 / 3, 2), (0.5, 1), (0.9, 1)]
)
def test_the_fewest_images_have_a_threshold_and_one_less_has_none(rate: float, fewest: int) -> None:
    assert needed(rate) == fewest
    if rate <= 0.5:
        assert conformal_threshold(np.arange(fewest), rate) == fewest - 1
    if fewest > 1:
        with pytest.raises(CalibrationError):
            conformal_threshold(np.arange(fewest - 1), rate)


def test_the_refusal_says_what_there_is_what_can_be_promised_and_what_is_needed() -> None:
    with pytest.raises(CalibrationError) as refusal:
        conformal_threshold(np.arange(12), 0.05)
    line = str(refusal.value)
    assert "12 calibration images" in line
    assert "0.077" in line
    assert "19 or more" in line
    assert "\n" not in line
    conformal_threshold(np.arange(12), 0.077)


@pytest.mark.parametrize(("rate", "n"), [(0.05, 59), (0.01, 299), (0.1, 29)])
def test_needed_with_confidence_is_the_smallest_set_whose_largest_score_keeps_the_rate(
    rate: float, n: int
) -> None:
    assert needed(rate, confidence=0.95) == n
    assert stats.beta.cdf(rate, 1, n) >= 0.95 > stats.beta.cdf(rate, 1, n - 1)


def test_p_values_by_counting() -> None:
    rng = np.random.default_rng(0)
    calibration, scores = rng.integers(0, 9, 30), rng.integers(-1, 10, (4, 5))
    counted = [[(1 + sum(c >= s for c in calibration)) / 31 for s in row] for row in scores]
    np.testing.assert_array_equal(p_values(calibration, scores), counted)


def test_realised_false_reject_rate_stays_within_the_bound_and_the_interval() -> None:
    rng = np.random.default_rng(1)
    n, tests, rate = 59, 40, 0.1
    promise = Guarantee(n=n, false_reject_rate=rate)
    low, high = promise.interval(tests)
    ratios = np.array(
        [
            np.mean(rng.lognormal(size=tests) > conformal_threshold(rng.lognormal(size=n), rate))
            for _ in range(4000)
        ]
    )
    assert ratios.mean() == pytest.approx(promise.bound, abs=0.004)
    assert np.mean((ratios < low) | (ratios > high)) <= 0.06
    assert np.mean(ratios >= high) > 0.02  # so no smaller upper end would do


def test_upper_is_the_quantile_of_the_rate_of_one_calibration_set() -> None:
    rng = np.random.default_rng(2)
    promise = Guarantee(n=39, false_reject_rate=0.1)
    # Of uniform scores, the share above a threshold t is 1 - t.
    rates = 1 - np.array([conformal_threshold(rng.random(39), 0.1) for _ in range(20000)])
    assert np.mean(rates <= promise.upper(0.9)) == pytest.approx(0.9, abs=0.01)
    assert promise.upper() == pytest.approx(stats.beta.ppf(0.95, 4, 36), rel=1e-12)


def test_the_guarantee_states_its_numbers_and_survives_json() -> None:
    promise = Guarantee(n=99, false_reject_rate=0.05)
    words = promise.in_words()
    for figure in ("5 %", "95 of 99", "9.01 %", "95 % confidence"):
        assert figure in words
    assert Guarantee.model_validate_json(promise.model_dump_json()) == promise
    assert promise.model_dump()["rank"] == 95


def test_the_promised_bound_is_below_the_rate_when_the_count_does_not_fit() -> None:
    promise = Guarantee(n=50, false_reject_rate=0.05)
    assert promise.rank == 49
    assert promise.bound == 2 / 51 < 0.05


def test_train_mean() -> None:
    assert train_mean_threshold([0.5, 1.5, 4.0]) == 2.0


def test_benjamini_hochberg_agrees_with_adjusted_p_values() -> None:
    rng = np.random.default_rng(3)
    p = np.concatenate([rng.uniform(size=40), rng.uniform(0, 0.01, 20)])
    for q in (0.01, 0.05, 0.2):
        np.testing.assert_array_equal(benjamini_hochberg(p, q), stats.false_discovery_control(p) <= q)


def test_benjamini_hochberg_steps_up_over_a_larger_p_value() -> None:
    # 0.04 is above its own line, 0.025, but 0.05 is on its line, so both go.
    assert benjamini_hochberg([0.04, 0.05], q=0.05).tolist() == [True, True]
    assert benjamini_hochberg([0.04, 0.06], q=0.05).tolist() == [False, False]
    assert benjamini_hochberg([], q=0.05).shape == (0,)


def test_false_discovery_rate_is_controlled_for_conformal_p_values() -> None:
    rng = np.random.default_rng(4)
    shares = []
    for _ in range(400):
        p = p_values(rng.normal(size=200), np.concatenate([rng.normal(size=40), rng.normal(4, 1, 10)]))
        called = benjamini_hochberg(p, q=0.2)
        shares.append(called[:40].sum() / max(called.sum(), 1))
    assert 0.08 < np.mean(shares) < 0.2


@pytest.mark.parametrize("rate", [0, 1, -0.1, 5, float("nan")])
def test_rates_that_make_no_sense_are_refused(rate: float) -> None:
    for call in (
        lambda: conformal_threshold([1.0, 2.0], rate),
        lambda: needed(rate),
        lambda: needed(0.05, confidence=rate),
        lambda: Guarantee(n=99, false_reject_rate=rate),
        lambda: Guarantee(n=99, false_reject_rate=0.05).upper(rate),
        lambda: benjamini_hochberg([0.1], rate),
    ):
        with pytest.raises(UsageError, match="out of range"):
            call()


def test_scores_that_cannot_be_ordered_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        conformal_threshold([*range(30), np.nan], 0.05)
    with pytest.raises(ValueError, match="shape"):
        p_values(np.ones((3, 3)), [1.0])
    with pytest.raises(CalibrationError, match="no scores"):
        train_mean_threshold([])
    with pytest.raises(ValueError, match="between 0 and 1"):
        benjamini_hochberg([0.5, 1.5], 0.05)
    with pytest.raises(UsageError, match="test image"):
        Guarantee(n=99, false_reject_rate=0.05).interval(0)


def test_the_outlying_stand_out_on_a_logarithmic_scale_and_are_at_most_a_quarter() -> None:
    rng = np.random.default_rng(0)
    good = np.exp(rng.normal(size=4000))
    # Of a normal distribution a share of 1 - Φ(2.24) = 0.0125 lies above 2.24 standard deviations.
    assert 0.009 < len(outlying(good)) / 4000 < 0.017
    assert outlying(7 * good) == outlying(good)
    defective = np.exp(rng.normal(5, 0.5, size=400))
    found = outlying(np.concatenate([good, defective]))
    assert set(range(4000, 4400)) <= set(found)
    assert len(found) < 400 + 0.02 * 4000
    assert len(outlying([*range(1, 51), *[1e6] * 40])) == 22  # a quarter of 90
    assert outlying([1.0, 1.0, 1.0]) == outlying([0.0]) == ()


def test_trimming_is_by_a_share_or_by_what_stands_out() -> None:
    scores = [1.0, 1.1, 0.9, 1.2, 0.8, 3.0]
    assert trimmed(scores, 0.0) == ()
    assert trimmed(scores, 0.4) == largest(scores, 0.4) == (3, 5)
    assert trimmed(scores, "auto") == outlying(scores) == (5,)
    assert at_most(0.1) == 0.1
    assert at_most("auto") == 0.25


def test_the_largest_are_a_share_rounded_down_and_of_equal_ones_the_first() -> None:
    assert largest([0.2, 0.5, 0.5, 0.5], 0.5) == (1, 2)
    assert largest(range(100), 0.29) == tuple(range(71, 100))  # 0.29 * 100 is a hair less than 29
    assert largest(range(9), 0.1) == ()
    rng = np.random.default_rng(8)
    scores = rng.normal(size=37)
    left_out = list(largest(scores, 0.2))
    assert len(left_out) == 7
    assert scores[left_out].min() > np.delete(scores, left_out).max()


@pytest.mark.parametrize("are_good", [False, True])
def test_the_guarantee_with_the_largest_scores_left_out(are_good: bool) -> None:
    rng = np.random.default_rng(9)
    promise = Guarantee(n=36, false_reject_rate=0.1, left_out=4)
    rejected = []
    for _ in range(8000):
        scores = rng.random(40) if are_good else np.append(rng.random(36), [7.0, 8, 9, 10])
        kept = np.delete(scores, largest(scores, 0.1))
        rejected.append(rng.random() > conformal_threshold(kept, 0.1))
    expected = promise.bound_if_good if are_good else promise.bound
    assert np.mean(rejected) == pytest.approx(expected, abs=0.015)
    assert promise.bound_if_good > 0.1 >= promise.bound


def test_the_assumption_is_stated_when_scores_were_left_out() -> None:
    words = Guarantee(n=36, false_reject_rate=0.1, left_out=4).in_words()
    assert "assumption: the 4 highest of 40 held-out scores" in words
    assert f"{100 * 7 / 41:.3g} %" in words
    one = Guarantee(n=39, false_reject_rate=0.1, left_out=1).in_words()
    assert "assumption: the highest of 40 held-out scores was" in one
    assert "assumption" not in Guarantee(n=36, false_reject_rate=0.1).in_words()
