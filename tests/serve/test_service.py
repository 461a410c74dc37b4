"""The inspection service: one queue, several workers, decisions stored in groups before they are given."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.errors import HistoryError, ImageError
from blemish.inspection.detector import Detector
from blemish.serve.contracts import Frame, NewDecision, StoredDecision
from blemish.serve.served_model import ServedModels, UnknownModelError
from blemish.serve.service import BusyError, Service, StoppingError, TooLateError
from blemish.serve.settings import RequestLimits
from tests.serve.serving import png

Draw = Callable[..., NDArray[np.uint8]]


class Memory:
    """A store in memory that can be held up, and that fails for names that it is given."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.open = threading.Event()
        self.open.set()
        self.bad: dict[str, Exception] = {}
        self._stored: dict[str, StoredDecision] = {}

    def __call__(self, decisions: Sequence[NewDecision]) -> list[StoredDecision]:
        assert self.open.wait(30)
        for one in decisions:
            if one.name in self.bad:
                raise self.bad[one.name]
        self.groups.append([one.name for one in decisions])
        for one in decisions:
            self._stored.setdefault(one.request, StoredDecision(**one.model_dump(), id=len(self._stored) + 1))
        return [self._stored[one.request] for one in decisions]


Run = Callable[..., Any]


@pytest.fixture(scope="module")
def models(exported: tuple[Detector, Path], tmp_path_factory: pytest.TempPathFactory) -> ServedModels:
    return ServedModels({"waves": exported[1]}, tmp_path_factory.mktemp("home"))


@pytest.fixture
def run(models: ServedModels) -> Run:
    @contextmanager
    def started(memory: Memory, workers: int = 2, **limits: Any) -> Iterator[Service]:
        found = Service(
            models,
            memory,
            lambda _frame, _found, decision: decision,
            limits=RequestLimits(**limits),
            workers=workers,
        )
        with found as service:
            yield service

    return started


def frame(draw: Draw, seed: int, **named: Any) -> Frame:
    return Frame(png(draw(seed)), f"{seed}.png", **named)


def test_decisions_that_are_ready_together_are_stored_together(run: Run, draw: Draw) -> None:
    memory = Memory()
    with run(memory) as service:
        memory.open.clear()
        futures = [service.submit(frame(draw, seed)) for seed in range(6)]
        time.sleep(0.5)
        memory.open.set()
        outcomes = [future.result(30) for future in futures]
    assert sorted(name for group in memory.groups for name in group) == [f"{seed}.png" for seed in range(6)]
    assert max(map(len, memory.groups)) > 1
    assert sorted(one.decision.id for one in outcomes) == [1, 2, 3, 4, 5, 6]
    assert [one.decision.name for one in outcomes] == [f"{seed}.png" for seed in range(6)]


def test_nothing_is_given_before_it_is_stored(run: Run, draw: Draw) -> None:
    memory = Memory()
    with run(memory) as service:
        memory.open.clear()
        future = service.submit(frame(draw, 1))
        time.sleep(0.5)
        assert not future.done()
        memory.open.set()
        assert future.result(30).decision.name == "1.png"


def test_a_decision_that_cannot_be_stored_is_not_given(run: Run, draw: Draw) -> None:
    memory = Memory()
    memory.bad["1.png"] = HistoryError("the disk is full")
    with run(memory) as service:
        with pytest.raises(HistoryError, match="disk is full"):
            service.submit(frame(draw, 1)).result(30)
        assert service.submit(frame(draw, 2)).result(30).decision.id == 1
        assert service.recent.get(1) is not None
        assert len(service.recent) == 1


def test_an_unexpected_error_of_one_decision_is_not_that_of_its_group(run: Run, draw: Draw) -> None:
    memory = Memory()
    memory.bad["3.png"] = RuntimeError("of this one")
    with run(memory) as service:
        memory.open.clear()
        futures = [service.submit(frame(draw, seed)) for seed in range(6)]
        time.sleep(0.5)
        memory.open.set()
        errors = [future.exception(30) for future in futures]
    assert [type(error).__name__ for error in errors] == ["NoneType"] * 3 + ["RuntimeError"] + [
        "NoneType"
    ] * 2


def test_frames_of_cameras_are_arrays(
    run: Run, exported: tuple[Detector, Path], draw: Draw, tmp_path: Path
) -> None:
    pixels = draw(5, dot=True)
    (tmp_path / "5.png").write_bytes(png(pixels))
    with run(Memory()) as service:
        found = service.inspect(Frame(pixels, "camera 1", source="camera"))
    assert found.decision.score == exported[0].inspect(tmp_path / "5.png").score
    assert found.decision.source == "camera"
    assert found.decision.image_sha256 == Frame(pixels, "other").sha256()


def test_a_full_queue_refuses_or_lets_wait(run: Run, draw: Draw) -> None:
    memory = Memory()
    with run(memory, workers=1, queue=1) as service:
        memory.open.clear()
        futures: list[Any] = []

        def fill() -> None:
            while len(futures) < 100:
                futures.append(service.submit(frame(draw, len(futures)), wait=0.5))

        with pytest.raises(BusyError) as refused:
            fill()
        assert 1 <= refused.value.retry_after <= 60
        with pytest.raises(BusyError):
            service.submit(frame(draw, 98))
        begun = time.monotonic()
        with pytest.raises(BusyError):
            service.submit(frame(draw, 99), wait=0.3)
        assert time.monotonic() - begun >= 0.3
        threading.Timer(0.2, memory.open.set).start()
        futures.append(service.submit(frame(draw, 100), wait=30))
        assert all(future.result(30) for future in futures)


def test_images_that_nobody_waits_for_any_more_are_not_inspected(run: Run, draw: Draw) -> None:
    memory = Memory()
    with run(memory, workers=1, request_seconds=0.2) as service:
        memory.open.clear()
        futures = [service.submit(frame(draw, seed)) for seed in range(12)]
        late = service.submit(frame(draw, 50))
        camera = service.submit(frame(draw, 51, source="camera"))
        gone = service.submit(frame(draw, 52))
        assert gone.cancel()
        time.sleep(0.5)
        memory.open.set()
        with pytest.raises(TooLateError):
            late.result(30)
        assert camera.result(30).decision.name == "51.png"  # a camera cannot send its frame again
        for future in futures:
            future.exception(30)
    stored = {name for group in memory.groups for name in group}
    assert "52.png" not in stored
    assert "50.png" not in stored


def test_images_of_clients_that_have_gone_take_no_memory(run: Run, draw: Draw) -> None:
    memory = Memory()
    with run(memory, workers=1) as service:
        memory.open.clear()
        ahead = [service.submit(frame(draw, seed)) for seed in range(8)]
        content = bytes(10**6)
        waiting = weakref.WeakSet[Any]()
        for _ in range(5):
            one = Frame(content, "large.png")
            waiting.add(one)
            assert service.submit(one).cancel()
        del one
        gc.collect()
        assert len(waiting) == 0
        memory.open.set()
        assert all(future.result(30) for future in ahead)


def test_a_stop_finishes_what_was_accepted_and_takes_no_more(run: Run, draw: Draw) -> None:
    memory = Memory()
    with run(memory) as service:
        futures = [service.submit(frame(draw, seed)) for seed in range(6)]
        assert service.stop() == 0
        assert all(future.done() and future.exception() is None for future in futures)
        assert not service.is_ready
        with pytest.raises(StoppingError):
            service.submit(frame(draw, 9))
        assert service.stop() == 0


def test_a_stop_with_little_time_gives_up_what_has_not_begun(run: Run, draw: Draw) -> None:
    memory = Memory()
    with run(memory, workers=1) as service:
        memory.open.clear()
        futures = [service.submit(frame(draw, seed)) for seed in range(15)]
        threading.Timer(0.5, memory.open.set).start()
        left = service.stop(seconds=0.1)
        assert left > 0
        ended = [future.exception(1) for future in futures]
    assert sum(isinstance(error, StoppingError) for error in ended) == left
    assert sum(error is None for error in ended) == 15 - left == sum(map(len, memory.groups))


def test_bad_images_and_unknown_models_are_told_apart(run: Run, draw: Draw) -> None:
    with run(Memory()) as service:
        with pytest.raises(ImageError, match=r"a\.png: is not a PNG"):
            service.submit(Frame(b"text", "a.png")).result(30)
        with pytest.raises(UnknownModelError):
            service.submit(frame(draw, 1), "other")
