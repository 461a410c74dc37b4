"""Classes of regions: one promise for the image, a threshold for each class."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.decision import Calibration, Decision, find_regions, needed, region_threshold
from blemish.decision.classes import (
    MeasuredClass,
    class_scores,
    class_threshold,
    rejecting_peak,
    usual_scores,
    with_classes,
)


def test_the_promise_is_of_the_whole_image_with_no_more_images_than_without_classes() -> None:
    # Three classes of unlike level and spread that depend on each other; the least number of images for the promise.
    rate, rng = 0.1, np.random.default_rng(0)
    rejected = []
    for _ in range(400):
        own = rng.normal(size=(6 + needed(rate) + 50, 1))
        scores = np.exp(0.3 * own + rng.normal(size=(len(own), 3)) * [0.1, 0.4, 0.8]) * [1, 10, 0.01]
        usual = usual_scores(scores[:6].tolist())
        whole = (scores / usual).max(1)
        held_out = tuple(whole[6 : 6 + needed(rate)].tolist())
        decision = Decision(
            calibration=Calibration(scores=held_out, map_maxima=held_out), false_reject_rate=rate
        )
        rejected.append((whole[6 + needed(rate) :] > decision.threshold).mean())
    deviation = np.std(rejected) / np.sqrt(len(rejected))
    assert rate - 4 * deviation < np.mean(rejected) < rate + 4 * deviation


@pytest.mark.parametrize("seed", range(200))
def test_a_class_is_above_its_threshold_exactly_when_it_rejects_the_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    threshold, scale = float(rng.lognormal(0, 3)), float(rng.lognormal(0, 3))
    own = class_threshold(threshold, scale)
    assert own == pytest.approx(threshold * scale, rel=1e-12)
    assert own / scale <= threshold < np.nextafter(own, np.inf) / scale


@pytest.mark.parametrize("threshold", [0.0, -1.5])
def test_thresholds_that_are_not_above_zero(threshold: float) -> None:
    assert class_threshold(threshold, 0.3) == pytest.approx(threshold * 0.3, abs=1e-300)


def test_a_class_without_deviation_in_good_images_has_a_usual_score_above_zero() -> None:
    assert usual_scores([[0.0, 2.0]] * 3) == (0.002, 2.0)
    assert usual_scores([[0.0, 0.0]]) == (1.0, 1.0)


def test_a_rejected_image_shows_the_strongest_place_of_each_class_that_rejects_it() -> None:
    anomaly_map = np.zeros((4, 8), np.float32)
    anomaly_map[1, 1], anomaly_map[2, 6] = 1.0, 5.0
    labels = np.repeat(np.array([[1] * 4 + [2] * 4], np.uint8), 4, 0)
    measured = [MeasuredClass("quiet", 3.0, 1.0, 1.0), MeasuredClass("noisy", 1.0, 1.0, 5.0)]
    classes = class_scores(measured, 2.0)
    assert [one.name for one in classes if one.is_above] == ["quiet"]
    level = region_threshold(anomaly_map, 4.0, is_anomalous=True, peak=rejecting_peak(classes))
    regions = with_classes(find_regions(anomaly_map, level), anomaly_map, labels, ["quiet", "noisy"])
    assert [(one.x, one.y, one.region_class) for one in regions] == [(6, 2, "noisy"), (1, 1, "quiet")]


def test_a_region_is_of_the_class_of_its_strongest_pixel() -> None:
    anomaly_map = np.array([[0, 2, 3, 4, 0]], np.float32)
    (region,) = with_classes(
        find_regions(anomaly_map, 1), anomaly_map, np.array([[1, 1, 1, 2, 2]], np.uint8), "ab"
    )
    assert region.region_class == "b"
