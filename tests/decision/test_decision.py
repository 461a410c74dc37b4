from __future__ import annotations

import numpy as np
import pytest

from blemish.decision import (
    Calibration,
    Decision,
    GroupedImages,
    Guarantee,
    IndependentImages,
    SceneSquares,
    conformal_threshold,
    p_values,
)
from blemish.errors import CalibrationError, UsageError

SCORES = tuple(np.random.default_rng(0).random(40).tolist())
MAXIMA = tuple(np.random.default_rng(1).random(40).tolist())


def decision(**changes: object) -> Decision:
    calibration = Calibration(scores=SCORES, map_maxima=MAXIMA, training_scores=(1.0, 2.0, 6.0))
    return Decision.model_validate({"calibration": calibration, "false_reject_rate": 0.1, **changes})


def test_conformal_thresholds_of_scores_and_of_map_maxima() -> None:
    assert decision().threshold == conformal_threshold(SCORES, 0.1)
    assert decision().pixel_threshold == conformal_threshold(MAXIMA, 0.1)


def test_with_too_few_maxima_the_pixel_threshold_is_the_largest() -> None:
    few = Calibration(scores=SCORES[:5], map_maxima=MAXIMA[:5])
    assert Decision(calibration=few, rule="fixed", value=1.0).pixel_threshold == max(MAXIMA[:5])


def test_p_values_agree_with_the_threshold_at_every_rate() -> None:
    scores = [*SCORES, 0.0, 2.0]
    for rate in (0.05, 0.1, 0.33, 0.9):
        at = decision().with_false_reject_rate(rate)
        np.testing.assert_array_equal(at.p_values(scores), p_values(SCORES, scores))
        for score in scores:
            assert (score > at.threshold) == (at.p_value(score) <= rate)


def test_rules_without_a_promise() -> None:
    fixed, mean = decision().with_threshold(0.25), decision(rule="train-mean")
    assert (fixed.threshold, mean.threshold) == (0.25, 3.0)
    assert "0.25 was set by hand; it carries no promise" in fixed.guarantee
    assert "mean score of the training images" in mean.guarantee
    for one in (fixed, mean):
        assert (one.promise, one.promised_rate) == (None, None)
    assert decision().promised_rate == 0.1


def test_invalid_rates_and_thresholds_are_refused() -> None:
    with pytest.raises(CalibrationError, match="calibrate on 99 or more"):
        decision().with_false_reject_rate(0.01)
    for rate in (0, 1, -0.1, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            decision().with_false_reject_rate(rate)
    for value in (float("nan"), float("inf")):
        with pytest.raises(UsageError, match="choose a finite number, such as"):
            decision().with_threshold(value)


def test_the_guarantee_says_what_the_scores_are_measured_on() -> None:
    promise = Guarantee(n=40, false_reject_rate=0.1)
    guarantees = {
        unit.kind: decision(calibration=Calibration(scores=SCORES, map_maxima=MAXIMA, unit=unit)).guarantee
        for unit in (IndependentImages(), GroupedImages(groups=7), SceneSquares(side=96))
    }
    assert guarantees["images"] == promise.in_words()
    assert "of the scores of 40 held-out images of 7 groups, ordered" in guarantees["grouped images"]
    assert "Images of one group resemble each other" in guarantees["grouped images"]
    assert "of the scores of 40 held-out squares of 96 × 96 pixels, ordered" in guarantees["squares"]
    assert "Squares of one scene resemble each other" in guarantees["squares"]
    for guide in (guarantees["grouped images"], guarantees["squares"]):
        assert f"number {promise.rank} " in guide
        assert "no promise" in guide


def test_scores_left_out_are_an_assumption_of_the_promise() -> None:
    calibration = Calibration(scores=SCORES, map_maxima=MAXIMA, left_out={"a.png": 2.0})
    found = decision(calibration=calibration)
    assert found.promise == Guarantee(n=40, false_reject_rate=0.1, left_out=1)
    assert "It rests on an assumption" in found.guarantee


def test_a_decision_survives_json() -> None:
    calibration = Calibration(scores=SCORES, map_maxima=MAXIMA, unit=SceneSquares(side=64))
    before = decision(calibration=calibration)
    assert Decision.model_validate_json(before.model_dump_json()) == before
