"""The judged area of a served model: in use at once, calibrated then, kept over restarts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blemish.errors import FileError, UsageError
from blemish.inspection.detector import Detector
from blemish.serve.area_drawing import AreaDrawing, area_of_image
from blemish.serve.judged_area import with_area
from blemish.serve.served_mask import MASK_FILE, ServedMask
from blemish.serve.served_model import ServedModel, ThresholdChoice
from tests.conftest import RATE, Draw
from tests.serve.areas import LEFT, left, store
from tests.serve.serving import Serve, png


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come about in time"
        time.sleep(0.02)


@pytest.fixture
def stored(good: Path, tmp_path: Path) -> Path:
    return store(good, tmp_path / "good" / "waves")


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
