"""A source at work: pauses, triggers, faults of the service, and what is told to the source."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from blemish.errors import BlemishError, HistoryError, ImageError, ServeError
from blemish.serve.contracts import Frame, StoredDecision, utc_now
from blemish.serve.line import source_runner
from blemish.serve.line.source_runner import SourceRunner
from blemish.serve.line.triggers import AlwaysTrigger, Clock, Requests, TriggerError, TriggerPart
from blemish.serve.service import Outcome

AHEAD = 4
MakeDecision = Callable[..., StoredDecision]


class FileSource:
    """Gives its names in order; what is done does not come again."""

    is_live = False

    def __init__(self, names: list[str]) -> None:
        self.name = "in"
        self.names = names
        self.done_names: list[str] = []
        self.refused_names: dict[str, str] = {}
        self.is_closed = False
        self.given = 0
        self.cannot_finish: set[str] = set()

    def frames(self) -> Iterator[Frame | None]:
        while self.names and not self.is_closed:
            name = self.names.pop(0)
            self.given += 1
            yield Frame(b"image", name, self.name, request=name)
        while not self.is_closed:
            time.sleep(0.01)
            yield None

    def fire(self) -> None:
        pass

    def done(self, frame: Frame) -> None:
        if frame.name in self.cannot_finish:
            raise BlemishError(f"{frame.name}: cannot be moved")
        self.done_names.append(frame.request)

    def refused(self, frame: Frame, reason: str) -> None:
        self.refused_names[frame.name] = reason

    def state(self) -> dict[str, Any]:
        return {"is_ready": True, "message": ""}

    def close(self) -> None:
        self.is_closed = True


class LiveSource(FileSource):
    """A camera with a frame each 20 ms."""

    is_live = True

    def __init__(self) -> None:
        super().__init__([])
        self.fires = 0
        self.is_dark = False

    def frames(self) -> Iterator[Frame | None]:
        while not self.is_closed:
            taken = utc_now()
            time.sleep(0.02)
            if self.is_dark:
                yield None
                continue
            self.given += 1
            yield Frame(np.zeros((4, 4), np.uint8), f"frame-{self.given}", self.name, taken)

    def fire(self) -> None:
        self.fires += 1


class FakeService:
    """Decides each frame at once, or fails as it is told to; ``held`` keeps decisions back."""

    def __init__(self, make: MakeDecision) -> None:
        self._make = make
        self.frames: list[Frame] = []
        self.models: list[str | None] = []
        self.faults: dict[str, list[Exception]] = {}
        self.busy = 0
        self.held: threading.Event | None = None
        self.under_way = self.most_under_way = 0

    def submit(self, frame: Frame, model: str | None) -> Future[Outcome]:
        if self.busy:
            self.busy -= 1
            raise ServeError("all places in the queue are taken")
        self.frames.append(frame)
        self.models.append(model)
        future: Future[Outcome] = Future()
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)

        def finish() -> None:
            if self.held is not None:
                self.held.wait(5)
            self.under_way -= 1
            if self.faults.get(frame.name):
                future.set_exception(self.faults[frame.name].pop(0))
            else:
                decision = self._make(len(self.frames), name=frame.name, request=frame.request)
                future.set_result(cast(Outcome, SimpleNamespace(decision=decision)))

        threading.Thread(target=finish).start()
        return future


@pytest.fixture
def service(make_decision: MakeDecision, monkeypatch: pytest.MonkeyPatch) -> FakeService:
    monkeypatch.setattr(source_runner, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(source_runner, "LOOK", 0.02)
    return FakeService(make_decision)


def run(
    source: FileSource, service: FakeService, trigger: TriggerPart | None = None, **more: Any
) -> SourceRunner:
    runner = SourceRunner(source, trigger or AlwaysTrigger(), service.submit, **more)
    runner.start()
    return runner


def until(condition: Callable[[], object], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come about in time"
        time.sleep(0.005)


def test_every_file_is_decided_and_done_once_in_order(service: FakeService) -> None:
    names = [f"{number}.png" for number in range(20)]
    source = FileSource(list(names))
    runner = run(source, service, model="bolts")
    until(lambda: len(source.done_names) == 20)
    runner.stop()
    assert source.done_names == names
    assert set(service.models) == {"bolts"}
    assert runner.state()["decisions"] == 20
    assert source.is_closed


def test_several_files_are_under_way_at_a_time_but_not_all(service: FakeService) -> None:
    service.held = threading.Event()
    source = FileSource([f"{number}.png" for number in range(20)])
    runner = run(source, service)
    until(lambda: service.under_way == AHEAD)
    time.sleep(0.1)
    assert service.most_under_way == AHEAD
    assert source.done_names == [], "nothing is done before it is stored"
    service.held.set()
    until(lambda: len(source.done_names) == 20)
    runner.stop()


def test_a_pause_takes_no_more_files_and_loses_none(service: FakeService) -> None:
    names = [f"{number}.png" for number in range(200)]
    source = FileSource(list(names))
    runner = run(source, service)
    until(lambda: len(source.done_names) > 5)
    runner.pause()
    until(lambda: service.under_way == 0)
    time.sleep(0.1)
    count = len(source.done_names)
    time.sleep(0.2)
    assert len(source.done_names) == count == source.given < 200
    assert runner.state()["is_paused"]
    assert not source.is_closed, "the source stays open"
    runner.resume()
    until(lambda: len(source.done_names) == 200)
    runner.stop()
    assert source.done_names == names


def test_a_camera_goes_on_after_a_pause_with_what_is_there_then(service: FakeService) -> None:
    source = LiveSource()
    runner = run(source, service)
    until(lambda: len(service.frames) > 2)
    runner.pause()
    until(lambda: service.under_way == 0)
    time.sleep(0.1)
    count = len(service.frames)
    resumed = utc_now()
    runner.resume()
    until(lambda: len(service.frames) > count)
    runner.stop()
    assert service.frames[count].taken >= resumed


def test_a_file_that_could_not_be_stored_is_submitted_again_with_its_number(service: FakeService) -> None:
    service.faults = {"1.png": [HistoryError("the disk is full; free some space")] * 3}
    source = FileSource(["0.png", "1.png", "2.png"])
    runner = run(source, service)
    until(lambda: len(source.done_names) == 3)
    runner.stop()
    assert sorted(source.done_names) == ["0.png", "1.png", "2.png"]
    assert len([frame for frame in service.frames if frame.request == "1.png"]) == 4
    assert runner.state()["message"] == ""


def test_a_full_queue_is_waited_for(service: FakeService) -> None:
    service.busy = 5
    source = FileSource(["0.png", "1.png"])
    runner = run(source, service)
    until(lambda: len(source.done_names) == 2)
    runner.stop()


def test_a_file_that_is_no_image_is_refused_once_and_the_rest_goes_on(service: FakeService) -> None:
    service.faults = {"1.png": [ImageError(Path("1.png"), "is no image", "remove it")]}
    source = FileSource(["0.png", "1.png", "2.png"])
    runner = run(source, service)
    until(lambda: len(source.done_names) == 2)
    runner.stop()
    assert source.refused_names == {"1.png": "1.png: is no image; remove it"}
    assert source.done_names == ["0.png", "2.png"]
    assert runner.state()["refused"] == 1


def test_a_file_that_cannot_be_moved_is_said_and_the_rest_goes_on(service: FakeService) -> None:
    source = FileSource(["0.png", "1.png"])
    source.cannot_finish = {"1.png"}
    runner = run(source, service)
    until(lambda: runner.state()["decisions"] == 2)
    until(lambda: runner.state()["message"] == "1.png: cannot be moved")
    runner.stop()


def test_what_is_under_way_at_a_stop_is_finished(service: FakeService) -> None:
    service.held = threading.Event()
    source = FileSource([f"{number}.png" for number in range(20)])
    runner = run(source, service)
    until(lambda: service.under_way == AHEAD)
    stopper = threading.Thread(target=runner.stop)
    stopper.start()
    time.sleep(0.1)
    service.held.set()
    stopper.join(5)
    assert source.done_names == [frame.request for frame in service.frames]
    assert len(source.names) == 20 - len(source.done_names) > 0


def test_a_stop_does_not_wait_for_a_disk_that_stays_full(service: FakeService) -> None:
    service.faults = {"0.png": [HistoryError("the disk is full")] * 10_000}
    source = FileSource(["0.png"])
    runner = run(source, service)
    until(lambda: runner.state()["message"] == "the disk is full")
    begun = time.monotonic()
    runner.stop()
    assert time.monotonic() - begun < 5
    assert source.done_names == []


# -- triggers ------------------------------------------------------------------------------------------


def test_each_request_gives_the_decision_on_a_frame_that_is_taken_after_it(service: FakeService) -> None:
    source = LiveSource()
    trigger = Requests(timeout=2)
    runner = run(source, service, trigger)
    time.sleep(0.1)
    assert service.frames == [], "no frame without a trigger"
    for number in range(3):
        asked = utc_now()
        decision = runner.fire(f"part-{number}").result(5)
        assert decision.name == f"part-{number}"
        assert service.frames[-1].taken >= asked
    runner.stop()
    assert len(service.frames) == source.fires == 3


def test_a_trigger_takes_one_file(service: FakeService) -> None:
    source = FileSource(["0.png", "1.png"])
    runner = run(source, service, Requests(timeout=0.2))
    assert runner.fire().result(5).name == "0.png"
    time.sleep(0.1)
    assert source.done_names == ["0.png"]
    assert runner.fire("serial 7").result(5).name == "serial 7"
    with pytest.raises(TriggerError, match=r"'in' gave no image within 0\.2 s"):
        runner.fire().result(5)
    runner.stop()
    assert source.done_names == ["0.png", "1.png"], "a file is done by its own number, whatever it is called"


def test_a_camera_that_is_dark_fails_the_trigger_in_time(service: FakeService) -> None:
    source = LiveSource()
    source.is_dark = True
    runner = run(source, service, Requests(timeout=0.2))
    with pytest.raises(TriggerError, match=r"gave no image within 0\.2 s"):
        runner.fire().result(5)
    assert runner.state()["triggers_failed"] == 1
    source.is_dark = False
    assert runner.fire().result(5)
    runner.stop()


def test_whoever_triggers_hears_of_faults(service: FakeService) -> None:
    source = LiveSource()
    runner = run(source, service, Requests(timeout=2))
    service.faults = {f"frame-{number}": [HistoryError("the disk is full")] for number in range(1000)}
    with pytest.raises(HistoryError, match="the disk is full"):
        runner.fire().result(5)
    service.faults = {}
    assert runner.fire().result(5)
    assert runner.state()["message"] == ""
    runner.stop()


def test_a_source_that_is_paused_or_without_such_a_trigger_cannot_be_triggered(service: FakeService) -> None:
    runner = run(LiveSource(), service, Requests(timeout=2))
    runner.pause()
    with pytest.raises(TriggerError, match="'in' is paused; resume it"):
        runner.fire()
    runner.stop()
    other = run(FileSource([]), service)
    with pytest.raises(TriggerError, match="has no trigger 'http'"):
        other.fire()
    other.stop()


def test_triggers_that_wait_fail_at_the_end(service: FakeService) -> None:
    source = LiveSource()
    source.is_dark = True
    runner = run(source, service, Requests(timeout=30))
    waiting = [runner.fire() for _ in range(3)]
    runner.stop()
    for future in waiting:
        with pytest.raises(TriggerError, match="stopped"):
            future.result(5)


def test_too_many_triggers_are_refused(service: FakeService) -> None:
    trigger = Requests(timeout=30)
    for _ in range(32):
        trigger.fire()
    with pytest.raises(TriggerError, match="32 triggers wait already"):
        trigger.fire()


def test_an_interval_takes_new_frames_evenly_and_leaves_out_what_it_missed(service: FakeService) -> None:
    source = LiveSource()
    runner = run(source, service, Clock(0.2))
    time.sleep(1.1)
    runner.stop()
    taken = [frame.taken for frame in service.frames]
    assert 2 <= len(taken) <= 7
    gaps = [later - earlier for earlier, later in itertools.pairwise(taken)]
    assert all(timedelta(seconds=0.05) < gap for gap in gaps), gaps
    slow = Clock(0.1)
    assert slow.wait(1) is not None
    time.sleep(0.55)
    assert slow.wait(1) is not None
    begun = time.monotonic()
    assert slow.wait(1) is not None
    assert time.monotonic() - begun > 0.01, "intervals that passed are left out"


def test_a_source_that_ends_says_so(service: FakeService) -> None:
    class Short(FileSource):
        def frames(self) -> Iterator[Frame | None]:
            yield Frame(b"", "only.png", self.name, request="only.png")

    source = Short([])
    runner = run(source, service)
    until(lambda: runner.has_ended)
    assert source.done_names == ["only.png"]
    assert not runner.state()["is_ready"]
    runner.stop()


def test_a_source_that_can_never_work_says_why(service: FakeService) -> None:
    class Broken(FileSource):
        def frames(self) -> Iterator[Frame | None]:
            raise ServeError("video.mp4: is no video; convert it")
            yield

    runner = run(Broken([]), service)
    until(lambda: runner.has_ended)
    assert runner.state()["message"] == "video.mp4: is no video; convert it"
    runner.stop()
