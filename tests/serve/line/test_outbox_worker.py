"""Deliveries: in order, again until they arrive, and never taken out of the outbox before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import pytest

from blemish.errors import DeliveryError, ServeError
from blemish.serve.contracts import Delivery, StoredDecision
from blemish.serve.line import outbox_worker
from blemish.serve.line.outbox_worker import OutboxWorker, backoff
from blemish.serve.line.sinks.webhook import TryLater

MakeDecision = Callable[..., StoredDecision]


class MemoryOutbox:
    """What a history does for a worker, in memory."""

    def __init__(self, decisions: Sequence[StoredDecision]) -> None:
        self.rows = [Delivery(id=10 * one.id, sink="sink", decision=one) for one in decisions]
        self.next_try: dict[int, datetime] = {}
        self.errors: list[str] = []
        self.arrived: list[int] = []
        self.broken = 0

    def due(self, sink: str, now: datetime, limit: int) -> list[Delivery]:
        if self.broken:
            self.broken -= 1
            raise ServeError("the disk is full")
        found = []
        for row in self.rows[:limit]:
            if self.next_try.get(row.id, now) > now:
                break
            found.append(row)
        return found

    def delivered(self, *deliveries: int) -> None:
        self.arrived += deliveries
        self.rows = [row for row in self.rows if row.id not in deliveries]

    def forget_first(self, sink: str) -> int | None:
        gone = self.rows.pop(0) if self.rows else None
        return None if gone is None else gone.decision.id

    def failed(self, delivery: int, error: str, next_try: datetime) -> None:
        self.errors.append(error)
        self.next_try[delivery] = next_try
        self.rows = [
            row.model_copy(update={"attempts": row.attempts + 1}) if row.id == delivery else row
            for row in self.rows
        ]


class MemorySink:
    """Fails as often as it is told to, and keeps what arrives."""

    name, needs_images = "sink", False

    def __init__(self, failures: dict[int, list[Exception]] | None = None) -> None:
        self.failures = failures or {}
        self.found: list[int] = []
        self.files: list[tuple[bytes | None, bytes | None]] = []
        self.times: list[float] = []
        self.closed = False

    def open(self) -> None:
        pass

    def deliver(self, decision: StoredDecision, image: bytes | None, overlay: bytes | None) -> None:
        self.times.append(time.monotonic())
        if self.failures.get(decision.id):
            raise self.failures[decision.id].pop(0)
        self.found.append(decision.id)
        self.files.append((image, overlay))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_worker, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(outbox_worker, "LOOK", 0.01)


def run(sink: MemorySink, outbox: MemoryOutbox, count: int, seconds: float = 10) -> OutboxWorker:
    worker = OutboxWorker(sink, outbox, lambda decision: (b"image", b"overlay"))
    worker.start()
    until = time.monotonic() + seconds
    while len(outbox.arrived) < count and time.monotonic() < until:
        time.sleep(0.01)
    return worker


def test_decisions_arrive_in_order_though_one_fails_several_times(make_decision: MakeDecision) -> None:
    outbox = MemoryOutbox([make_decision(number) for number in range(1, 6)])
    sink = MemorySink({3: [DeliveryError("away") for _ in range(3)]})
    worker = run(sink, outbox, 5)
    worker.stop()
    assert sink.found == [1, 2, 3, 4, 5], "none overtakes the one that fails"
    assert outbox.arrived == [10, 20, 30, 40, 50]
    assert outbox.errors == ["away"] * 3
    assert worker.state() == {"is_ready": True, "message": "", "delivered": 5, "attempts": 0} | {
        "since": worker.state()["since"]
    }
    assert sink.closed


def test_the_wait_grows_with_each_failure(
    make_decision: MakeDecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_worker, "backoff", lambda attempts: backoff(attempts, lambda: 1.0))
    outbox = MemoryOutbox([make_decision(1)])
    sink = MemorySink({1: [DeliveryError("away") for _ in range(4)]})
    run(sink, outbox, 1).stop()
    waits = [after - before for before, after in zip(sink.times, sink.times[1:], strict=False)]
    assert all(wait >= 0.02 * 2**number for number, wait in enumerate(waits)), waits


def test_waits_are_bounded_and_drawn() -> None:
    assert backoff(50) <= outbox_worker.LONGEST_WAIT
    assert len({backoff(3) for _ in range(10)}) > 1


def test_a_receiver_that_names_a_time_is_left_alone_so_long(make_decision: MakeDecision) -> None:
    outbox = MemoryOutbox([make_decision(1)])
    sink = MemorySink({1: [TryLater("busy", 0.3)]})
    run(sink, outbox, 1).stop()
    assert sink.times[1] - sink.times[0] >= 0.3


def test_images_are_read_only_for_sinks_that_take_them(make_decision: MakeDecision) -> None:
    for needs, files in ((False, (None, None)), (True, (b"image", b"overlay"))):
        outbox, sink = MemoryOutbox([make_decision(1)]), MemorySink()
        sink.needs_images = needs
        run(sink, outbox, 1).stop()
        assert sink.files == [files]


def test_a_history_that_cannot_be_read_for_a_while_is_asked_again(make_decision: MakeDecision) -> None:
    outbox, sink = MemoryOutbox([make_decision(1)]), MemorySink()
    outbox.broken = 3
    worker = run(sink, outbox, 1)
    worker.stop()
    assert sink.found == [1]


def test_a_defect_of_a_sink_does_not_end_its_deliveries(
    make_decision: MakeDecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_worker, "LONGEST_WAIT", 0.05)
    outbox, sink = MemoryOutbox([make_decision(1)]), MemorySink({1: [KeyError("oops")]})
    worker = run(sink, outbox, 1)
    worker.stop()
    assert sink.found == [1]


def test_a_decision_that_is_given_up_lets_the_others_go_on_at_once(
    make_decision: MakeDecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_worker, "FIRST_WAIT", 60.0)
    outbox = MemoryOutbox([make_decision(number) for number in (1, 2)])
    sink = MemorySink({1: [DeliveryError("422")] * 1000})
    worker = run(sink, outbox, 1, seconds=0.2)
    assert outbox.forget_first("sink") == 1
    worker.hurry()
    until = time.monotonic() + 5
    while not outbox.arrived and time.monotonic() < until:
        time.sleep(0.01)
    worker.stop()
    assert sink.found == [2]


def test_what_is_left_at_the_end_stays_in_the_outbox(make_decision: MakeDecision) -> None:
    outbox = MemoryOutbox([make_decision(number) for number in (1, 2)])
    sink = MemorySink({1: [DeliveryError("away")] * 1000})
    worker = run(sink, outbox, 1, seconds=0.2)
    begun = time.monotonic()
    worker.stop()
    assert time.monotonic() - begun < 2, "a wait does not hold up the end"
    assert [row.decision.id for row in outbox.rows] == [1, 2]
    assert not worker.state()["is_ready"]
    assert worker.state()["message"] == "away"


def test_what_arrived_before_a_stop_is_taken_out(make_decision: MakeDecision) -> None:
    entered, leave = threading.Event(), threading.Event()
    outbox = MemoryOutbox([make_decision(number) for number in (1, 2)])

    class Slow(MemorySink):
        def deliver(self, decision: StoredDecision, image: bytes | None, overlay: bytes | None) -> None:
            super().deliver(decision, image, overlay)
            entered.set()
            leave.wait(5)

    sink = Slow()
    worker = OutboxWorker(sink, outbox, lambda decision: (None, None))
    worker.start()
    assert entered.wait(5)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    time.sleep(0.05)
    leave.set()
    stopper.join()
    assert sink.found == [1]
    assert outbox.arrived == [10]
    assert [row.decision.id for row in outbox.rows] == [2]
