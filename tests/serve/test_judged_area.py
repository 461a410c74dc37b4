"""The judged area of a served model: drawn, applied before the score, calibrated on the stored good images."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.data.image import read_image
from blemish.errors import FileError, ServeError, Stopped, UsageError
from blemish.inspection.detector import Detector
from blemish.serve.judged_area import MASK_FILE, AreaDrawing, ServedMask, area_of_image, drawing_of, with_area
from blemish.serve.served_model import ServedModel, ThresholdChoice
from tests.conftest import RATE, Draw, Recorder
from tests.serve.serving import Serve, png

LEFT: list[Any] = [(0, 0), (16, 0), (16, 39), (0, 39)]
"""Polygon of the left third of the images, 48 × 40 pixels; their dot lies to the right of it."""


def left() -> AreaDrawing:
    return AreaDrawing(width=48, height=40, judge=[LEFT])


@pytest.fixture
def stored(good: Path, tmp_path: Path) -> Path:
    """Good images of the fit under names of the server's, and four that no model has seen."""
    folder = tmp_path / "good" / "waves"
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted(good.iterdir())):
        shutil.copy(path, folder / f"{number:040x}.png")
    return folder


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come about in time"
        time.sleep(0.02)


# -- drawn ---------------------------------------------------------------------------------------------


def test_what_is_judged_and_not_ignored_is_the_area() -> None:
    box: list[Any] = [(2, 1), (8, 1), (8, 6), (2, 6)]
    hole: list[Any] = [(4, 3), (5, 3), (5, 4), (4, 4)]
    expected = np.zeros((10, 12), bool)
    expected[1:7, 2:9] = True
    expected[3:5, 4:6] = False
    drawn = AreaDrawing(width=12, height=10, judge=[box], ignore=[hole]).area()
    assert np.array_equal(drawn.mask(10, 12), expected)
    only_ignored = AreaDrawing(width=12, height=10, ignore=[box]).area().mask(10, 12)
    assert not only_ignored[1:7, 2:9].any()
    assert only_ignored.sum() == 120 - 42


@pytest.mark.parametrize(
    ("drawing", "words"),
    [
        (AreaDrawing(width=12, height=10, judge=[[(1, 1), (2, 2)]]), "has 2 corners"),
        (AreaDrawing(width=4, height=4, ignore=[[(-1, -1), (9, -1), (9, 9), (-1, 9)]]), "leaves nothing to judge"),
        (AreaDrawing(width=32_000, height=32_000), "more than 400000000 pixels"),
    ],
)  # fmt: skip
def test_drawings_that_are_no_area_are_refused(drawing: AreaDrawing, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        drawing.area()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"width": 0, "height": 3}', b'{"width": 4, "height": 3, "x": 1}']
)
def test_json_that_is_no_drawing_is_one_line(content: bytes) -> None:
    with pytest.raises(ServeError, match="the mask is") as error:
        drawing_of(content)
    assert "\n" not in str(error.value)


def test_an_image_marks_what_is_not_black() -> None:
    marked = np.zeros((40, 48), np.uint8)
    marked[:, :17] = 255
    assert area_of_image(png(marked)).runs == left().area().runs


# -- calibrated ----------------------------------------------------------------------------------------


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


# -- served --------------------------------------------------------------------------------------------


def test_an_area_is_in_use_at_once_calibrated_then_and_there_after_a_restart(
    exported: tuple[Detector, Path], stored: Path, tmp_path: Path
) -> None:
    home, whole = tmp_path / "models" / "waves", exported[0]
    served = ServedModel(exported[1], home)
    mask = ServedMask(served, stored)
    assert mask.state().state == "none"
    mask.put(left().area(), left())
    assert served.detector.file.preprocessing.area == left().area()
    assert served.detector.threshold == whole.threshold
    assert mask.state().state == "calibrating"
    assert mask.calibrate(threading.Event())
    state = mask.state()
    assert state.state == "ready"
    assert state.promise is not None
    assert state.promise.is_recalibrated
    assert state.judge == [LEFT]
    assert state.share == pytest.approx(17 * 40 / (48 * 40))
    expected = with_area(whole, left().area(), stored)[0].threshold
    assert served.detector.threshold == expected
    assert not mask.calibrate(threading.Event()), "nothing is new"
    again = ServedModel(exported[1], home)
    assert ServedMask(again, stored).state() == state
    assert again.detector.threshold == expected
    mask.remove()
    assert served.detector.threshold == whole.threshold
    assert served.detector.file.preprocessing.area is None
    assert not (home / MASK_FILE).exists()


def test_good_images_that_come_later_calibrate_it_again(
    exported: tuple[Detector, Path], tmp_path: Path, draw: Draw
) -> None:
    served, good = ServedModel(exported[1], tmp_path / "waves"), tmp_path / "good"
    mask = ServedMask(served, good)
    mask.put(left().area(), left())
    mask.calibrate(threading.Event())
    first = mask.state()
    assert first.promise is not None
    assert not first.promise.is_recalibrated
    good.mkdir()
    for seed in range(6):
        (good / f"{seed}.png").write_bytes(png(draw(800 + seed)))
    assert mask.calibrate(threading.Event())
    second = mask.state()
    assert second.promise is not None
    assert second.promise.is_recalibrated
    assert second.promise.images == 6


def test_a_chosen_rate_that_the_images_cannot_promise_keeps_the_threshold_of_whole_images(
    exported: tuple[Detector, Path], tmp_path: Path, draw: Draw
) -> None:
    served, good = ServedModel(exported[1], tmp_path / "waves"), tmp_path / "good"
    good.mkdir()
    for seed in range(4):
        (good / f"{seed}.png").write_bytes(png(draw(800 + seed)))
    served.choose(ThresholdChoice(false_reject_rate=0.17))
    whole = served.detector.threshold
    mask = ServedMask(served, good)
    mask.put(left().area(), left())
    mask.calibrate(threading.Event())
    state = mask.state()
    assert state.promise is not None
    assert not state.promise.is_recalibrated
    assert state.promise.false_reject_rate == 0.17
    assert served.detector.threshold == whole


def test_a_mask_that_does_not_fit_leaves_the_former_one(
    exported: tuple[Detector, Path], stored: Path, tmp_path: Path
) -> None:
    served = ServedModel(exported[1], tmp_path / "waves")
    mask = ServedMask(served, stored)
    mask.put(left().area(), left())
    across = AreaDrawing(width=40, height=48, judge=[[(0, 0), (9, 0), (9, 9)]])
    with pytest.raises(UsageError, match="across"):
        mask.put(across.area(), across)
    assert mask.area == left().area()
    assert served.detector.file.preprocessing.area == left().area()


def test_a_damaged_file_is_one_line(exported: tuple[Detector, Path], stored: Path, tmp_path: Path) -> None:
    served = ServedModel(exported[1], tmp_path / "waves")
    (tmp_path / "waves" / MASK_FILE).write_text("{")
    with pytest.raises(FileError, match=r"mask\.json: is no mask that the server wrote"):
        ServedMask(served, stored)


def test_over_http_an_ignored_defect_is_accepted_until_the_mask_is_removed(
    serve: Serve, stored: Path, draw: Draw, tmp_path: Path
) -> None:
    defective = png(draw(900, dot=True))

    def rejected(served: Any) -> bool:
        return bool(served.post(defective).json()["results"][0]["record"]["is_anomalous"])

    with serve(home=tmp_path) as served:
        url = "/api/models/waves/mask"
        assert served.client.get(url).json()["state"] == "none"
        assert served.client.get(f"{url}.png").status_code == 404
        assert rejected(served)
        answer = served.client.put(url, json=left().model_dump(mode="json"))
        assert answer.status_code == 200, answer.text
        assert not rejected(served)
        until(lambda: served.client.get(url).json()["state"] == "ready")
        state = served.client.get(url).json()
        assert state["promise"]["is_recalibrated"]
        assert state["promise"]["note"].startswith(
            f"calibrated on {state['promise']['images']} stored good images"
        )
        assert state["false_reject_rate"] == RATE
        assert not rejected(served)
        shown = served.client.get(f"{url}.png")
        assert shown.headers["content-type"] == "image/png"
        assert area_of_image(shown.content).runs == left().area().runs
        wrong = served.client.put(url, content=b"nonsense")
        assert wrong.status_code == 422
        assert wrong.json()["error"].startswith("the mask is not readable JSON")
        assert served.client.put("/api/models/none/mask", json={}).status_code == 404
        whole = served.client.delete(url)
        assert whole.json()["state"] == "none"
        assert rejected(served)
        assert served.client.put(url, content=shown.content).json()["judge"] == []
        assert not rejected(served)
