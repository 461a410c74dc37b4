"""The judged area, calibrated on good images without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.data.image import read_image
from blemish.errors import Stopped, UsageError
from blemish.inspection.detector import Detector
from blemish.serve.area_drawing import AreaDrawing
from blemish.serve.judged_area import with_area
from tests.conftest import RATE, Draw, Recorder
from tests.serve.areas import left, store
from tests.serve.serving import png


@pytest.fixture
def stored(good: Path, tmp_path: Path) -> Path:
    return store(good, tmp_path / "good" / "waves")


def test_the_images_that_calibrated_before_calibrate_the_area_with_its_own_scores(
    exported: tuple[Detector, Path], good: Path, stored: Path
) -> None:
    detector = exported[0]
    found, promise = with_area(detector, left().area(), stored)
    masked = detector.with_judged_area(left().area())
    names = detector.file.split["calibration"]
    expected = sorted(masked.measure(read_image(good / str(name))).score for name in names)
    assert sorted(found.decision.calibration.scores) == expected
    assert promise.is_recalibrated
    assert promise.images == len(names)
    assert promise.false_reject_rate == RATE
    assert promise.least_false_reject_rate == 1 / (len(names) + 1)
    assert promise.guarantee == found.guarantee
    assert found.threshold <= detector.threshold
    assert found.file.weights_sha256 == detector.file.weights_sha256, "nothing is trained"


def test_new_good_images_calibrate_too_and_those_that_trained_never(
    exported: tuple[Detector, Path], good: Path, stored: Path, draw: Draw
) -> None:
    detector = exported[0]
    for seed in range(3):
        (stored / f"new-{seed}.png").write_bytes(png(draw(700 + seed)))
    _, promise = with_area(detector, left().area(), stored)
    assert promise.images == len(detector.file.split["calibration"]) + 3


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_with_too_few_images_the_threshold_of_whole_images_stays(
    exported: tuple[Detector, Path], tmp_path: Path, draw: Draw, kept: int
) -> None:
    detector = exported[0]
    for seed in range(kept):
        (tmp_path / f"{seed}.png").write_bytes(png(draw(700 + seed)))
    found, promise = with_area(detector, left().area(), tmp_path if kept else tmp_path / "missing")
    assert not promise.is_recalibrated
    assert found.threshold == detector.threshold
    assert found.file.preprocessing.area is not None
    assert promise.note.startswith(
        "the threshold of whole images stays, whose promise holds for any part of them: "
    )


def test_a_defect_counts_in_the_area_alone(exported: tuple[Detector, Path], stored: Path, draw: Draw) -> None:
    detector = exported[0]
    defective: NDArray[np.uint8] = draw(900, dot=True)
    moved = np.roll(defective, -18, axis=1)
    found, _ = with_area(detector, left().area(), stored)
    assert detector.inspect(defective).is_anomalous
    assert not found.inspect(defective).is_anomalous, "it lies outside"
    assert found.inspect(moved).is_anomalous, "it lies inside"


def test_a_threshold_by_hand_stays(exported: tuple[Detector, Path], stored: Path) -> None:
    detector = exported[0].with_threshold(0.5)
    found, promise = with_area(detector, left().area(), stored)
    assert found.threshold == 0.5
    assert not promise.is_recalibrated
    assert promise.false_reject_rate is None


def test_a_calibration_can_be_stopped(
    exported: tuple[Detector, Path], stored: Path, recorder: type[Recorder]
) -> None:
    with pytest.raises(Stopped):
        with_area(exported[0], left().area(), stored, recorder(stop_after=1))


def test_an_area_across_the_images_is_refused(exported: tuple[Detector, Path], stored: Path) -> None:
    with pytest.raises(UsageError, match="across the images"):
        with_area(
            exported[0], AreaDrawing(width=40, height=48, judge=[[(0, 0), (9, 0), (9, 9)]]).area(), stored
        )
