"""Drift on the line: raised once, begun anew with another threshold, and blind to images of another kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blemish.inspection.detector import Detector
from blemish.serve.contracts import StoredDecision, utc_now
from blemish.serve.drift_watch import DriftWatch

Decide = Callable[..., StoredDecision]


@pytest.fixture
def decide(exported: tuple[Detector, Path]) -> Decide:
    def made(number: int, score: float, threshold: float, other_kind: str | None = None) -> StoredDecision:
        return StoredDecision(
            id=number,
            request=str(number),
            time=utc_now(),
            model="waves",
            model_sha256=exported[0].file.weights_sha256,
            source="camera",
            name="x",
            image_sha256="0",
            size=(1, 1),
            score=score,
            threshold=threshold,
            pixel_threshold=1.0,
            p_value=0.5,
            is_anomalous=False,
            other_kind=other_kind,
            seconds=0.1,
        )

    return made


def test_drift_is_raised_once_and_anew_after_another_threshold(
    exported: tuple[Detector, Path], decide: Decide
) -> None:
    detector = exported[0]
    scores = np.array(detector.decision.calibration.scores)
    threshold = float(scores.max()) + 1
    high = np.linspace(
        scores.max() + 0.1, scores.max() + 0.9, 200
    )  # accepted, and each higher than any before
    watch = DriftWatch()
    raised = [
        number
        for number in range(1, 200)
        if watch.update(decide(number, float(high[number]), threshold), detector)
    ]
    assert len(raised) == 1
    state = watch.state("waves")
    assert (state["is_drifting"], state["raised_at"], state["images"], state["since"]) == (
        True,
        raised[0],
        199,
        1,
    )
    watch.update(decide(200, float(high[0]), threshold + 1), detector)
    assert watch.state("waves")["is_drifting"] is False
    assert watch.state("other") == {
        "is_drifting": False,
        "images": 0,
        "since": None,
        "raised_at": None,
        "capital": 1.0,
    }


def test_good_images_and_those_of_another_kind_raise_nothing(
    exported: tuple[Detector, Path], decide: Decide
) -> None:
    detector = exported[0]
    scores = detector.decision.calibration.scores
    threshold, rng, watch = max(scores) + 1, np.random.default_rng(0), DriftWatch()
    for number in range(300):
        assert not watch.update(decide(number, float(rng.choice(scores)), threshold), detector)
        assert not watch.update(decide(number, threshold - 0.1, threshold, "too dark"), detector)
    assert watch.state("waves")["images"] == 300
