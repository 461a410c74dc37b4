"""Deliveries from the outbox of the history: a thread for each sink, in order, again and again until they arrive."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from blemish.errors import BlemishError, DeliveryError
from blemish.serve.contracts import Delivery, Sink, StoredDecision, utc_now

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds after the first failure and at most; doubled each time, and drawn between half of it and all of it, so that
many lines do not come back to a receiver at one moment."""
AT_ONCE = 50
"""Deliveries that are read from the history at one time."""
NOTE = 0.1
"""Seconds for which deliveries are collected before they are taken out of the outbox in one transaction."""
LOOK = 0.5
"""Seconds between looks at the outbox where nobody says that there is something."""

Files = Callable[[StoredDecision], tuple[bytes | None, bytes | None]]
"""Kept image and overlay of a decision, as far as they are still there."""


class Outbox(Protocol):
    """The part of the history that a worker needs."""

    def due(self, sink: str, now: datetime, limit: int) -> Sequence[Delivery]:
        """Deliveries whose time has come, in the order of their decisions."""

    def delivered(self, *deliveries: int) -> None:
        """Take deliveries out of the outbox."""

    def failed(self, delivery: int, error: str, next_try: datetime) -> None:
        """Note why a delivery failed, and when to try again."""

    def forget_first(self, sink: str) -> int | None:
        """Remove the first decision that a sink owes; its number, if there is one."""


class OutboxWorker:
    """Delivers decisions to one sink: at least once, in their order.

    A decision that does not arrive holds up those after it, since a receiver would otherwise see them in another order;
    it is tried until it arrives. What was delivered is taken out of the outbox after that, several at a time, so that a
    kill in between repeats them.

    Parameters
    ----------
    files: see :data:`Files`; asked only for sinks with ``needs_images``.
    """

    def __init__(self, sink: Sink, outbox: Outbox, files: Files) -> None:
        self.sink = sink
        self._outbox, self._files = outbox, files
        self._wake = threading.Event()
        self._stopping, self._hurried = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {"is_ready": True, "message": "", "delivered": 0, "attempts": 0}
        self._thread = threading.Thread(target=self._run, name=f"sink-{sink.name}", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there may be something new."""
        self._wake.set()

    def hurry(self) -> None:
        """End a wait after a failure: what held up the deliveries is gone."""
        self._hurried.set()
        self._wake.set()

    def state(self) -> dict[str, Any]:
        """For the page: whether the last delivery arrived, or why not; and how many have since the start."""
        with self._lock:
            return dict(self._state)

    def stop(self, seconds: float = 10.0) -> None:
        """Finish the delivery that is under way, and close the sink; what is left stays in the outbox."""
        self._stopping.set()
        self.hurry()
        if self._thread.is_alive():
            self._thread.join(seconds)
        self.sink.close()

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = 0.0
        self.sink.open()
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                pause = self._deliver_all()
            except BlemishError as error:  # of the history, as on a full disk
                self._note(str(error))
                pause = LOOK
            except Exception as error:  # a defect of a sink must not end its deliveries
                self._note(f"unexpected {type(error).__name__}: {error}")
                pause = LONGEST_WAIT
            if pause > LOOK:
                self._hurried.wait(pause)
                self._hurried.clear()
            else:
                self._wake.wait(LOOK)

    def _deliver_all(self) -> float:
        """Deliver what is due; seconds to wait after a failure, 0 without one."""
        while not self._stopping.is_set():
            deliveries = self._outbox.due(self.sink.name, utc_now(), AT_ONCE)
            if not deliveries:
                return 0.0
            arrived: list[int] = []
            since = time.monotonic()
            try:
                for delivery in deliveries:
                    if self._stopping.is_set():
                        return 0.0
                    if wait := self._deliver(delivery):
                        return wait
                    arrived.append(delivery.id)
                    if time.monotonic() - since > NOTE:
                        self._outbox.delivered(*arrived)
                        arrived, since = [], time.monotonic()
            finally:
                if arrived:
                    self._outbox.delivered(*arrived)
        return 0.0

    def _deliver(self, delivery: Delivery) -> float:
        """Deliver one decision; seconds to wait after a failure, 0 without one."""
        decision = delivery.decision
        image, overlay = self._files(decision) if self.sink.needs_images else (None, None)
        try:
            self.sink.deliver(decision, image, overlay)
        except DeliveryError as error:
            wait = max(getattr(error, "seconds", 0.0), backoff(delivery.attempts))
            self._note(str(error), delivery.attempts + 1)
            self._outbox.failed(delivery.id, str(error), utc_now() + timedelta(seconds=wait))
            return wait
        with self._lock:
            self._state |= {"is_ready": True, "message": "", "attempts": 0}
            self._state["delivered"] += 1
        return 0.0

    def _note(self, message: str, attempts: int = 1) -> None:
        with self._lock:
            self._state |= {"is_ready": False, "message": message, "attempts": attempts, "since": time.time()}


def backoff(attempts: int, draw: Callable[[], float] = random.random) -> float:
    """Seconds to wait after a failure that follows ``attempts`` others.

    >>> [backoff(attempts, lambda: 1.0) for attempts in (0, 1, 5, 6, 1000)]
    [1.0, 2.0, 32.0, 60.0, 60.0]
    """
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempts, 10))
    return longest * (0.5 + 0.5 * draw())
