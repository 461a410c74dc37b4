"""Triggers: when a source is to give an image."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from blemish.errors import ServeError, printable
from blemish.serve.contracts import StoredDecision, utc_now
from blemish.serve.line.mqtt_client import Connection, make_client
from blemish.serve.line.source_settings import EachTrigger, HttpTrigger, IntervalTrigger, MqttTrigger

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage

MOST_WAITING = 32
"""Triggers that wait for their image; more are refused, because they come faster than images can be taken."""
NAME_CHARACTERS = 200


class TriggerError(ServeError):
    """A trigger that gave no decision."""


@dataclass
class Fired:
    """One trigger."""

    at: datetime | None = None
    """Frames of a camera count from this time on; None takes any new one."""
    name: str | None = None
    """Name of the image, such as a serial number."""
    timeout: float | None = None
    """Seconds to wait for an image; None waits as long as it takes."""
    result: Future[StoredDecision] = field(default_factory=Future)

    def fail(self, error: Exception) -> None:
        """Tell whoever waits for the decision that there will be none."""
        with suppress(InvalidStateError):
            self.result.set_exception(error)

    def succeed(self, decision: StoredDecision) -> None:
        """Give the decision to whoever waits for it."""
        with suppress(InvalidStateError):
            self.result.set_result(decision)


class TriggerPart(Protocol):
    """Fires for a source."""

    def open(self) -> None:
        """Begin to connect, where there is something to connect to."""

    def wait(self, seconds: float) -> Fired | None:
        """The next trigger; None where none came within ``seconds``."""

    def problem(self) -> str:
        """Why triggers cannot come, or nothing."""

    def close(self) -> None:
        """Let go of connections, and fail the triggers that wait."""


class AlwaysTrigger:
    """Fires as often as it is asked."""

    def open(self) -> None:
        """Nothing to connect to."""

    def wait(self, seconds: float) -> Fired | None:
        """A trigger, at once."""
        return Fired()

    def problem(self) -> str:
        """Nothing can be wrong."""
        return ""

    def close(self) -> None:
        """Nothing is held."""


class Clock:
    """Fires at even intervals by the clock that only goes forward; those that passed while one was at work are left out."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._next = time.monotonic()
        self._closed = threading.Event()

    def open(self) -> None:
        """Begin to count."""
        self._next = time.monotonic()

    def wait(self, seconds: float) -> Fired | None:
        """A trigger when its time has come."""
        left = self._next - time.monotonic()
        if left > seconds:
            self._closed.wait(seconds)
            return None
        if self._closed.wait(max(0.0, left)):
            return None
        passed = (time.monotonic() - self._next) // self._every
        self._next += (1 + passed) * self._every
        return Fired(at=utc_now(), timeout=self._every)

    def problem(self) -> str:
        """Nothing can be wrong."""
        return ""

    def close(self) -> None:
        """End a wait."""
        self._closed.set()


class Requests:
    """Fires for each request."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._fired: queue.Queue[Fired] = queue.Queue(MOST_WAITING)
        self._is_closed = False

    def open(self) -> None:
        """Nothing to connect to."""

    def fire(self, name: str | None = None) -> Future[StoredDecision]:
        """Ask for one image; its decision comes with the future, or a TriggerError.

        Raises
        ------
        TriggerError
            When too many wait already, or the line has ended.
        """
        fired = Fired(utc_now(), _plain(name), self._timeout)
        if self._is_closed:
            raise TriggerError("the source has ended; start it again")
        try:
            self._fired.put_nowait(fired)
        except queue.Full:
            raise TriggerError(
                f"{MOST_WAITING} triggers wait already; trigger more slowly than images can be taken and inspected"
            ) from None
        return fired.result

    def wait(self, seconds: float) -> Fired | None:
        """The oldest request."""
        try:
            return self._fired.get(timeout=seconds)
        except queue.Empty:
            return None

    def problem(self) -> str:
        """Nothing can be wrong."""
        return ""

    def close(self) -> None:
        """Fail the requests that wait."""
        self._is_closed = True
        with suppress(queue.Empty):
            while True:
                self._fired.get_nowait().fail(TriggerError("the source was stopped; trigger it again"))


class Messages(Requests):
    """Fires for each message under a topic; a text in it names the image.

    Raises
    ------
    ServeError
        When a secret is not set.
    MissingExtraError
        Without paho-mqtt.
    """

    def __init__(self, settings: MqttTrigger, key: str, base: Path) -> None:
        super().__init__(settings.timeout)
        self.dropped = 0
        client = make_client(settings, key, base)
        client.on_message = self._received
        self._connection = Connection(client, settings)
        self._connection.subscribe(settings.topic)

    def open(self) -> None:
        """Begin to connect to the broker."""
        self._connection.start()

    def _received(self, _: object, __: object, message: MQTTMessage) -> None:
        if message.retain:  # of an earlier time; no part is there now
            return
        try:
            self.fire(message.payload.decode("utf-8", "replace").strip() or None)
        except TriggerError:
            self.dropped += 1

    def problem(self) -> str:
        """What is wrong with the broker, or how many triggers were left out."""
        if self.dropped and not self._connection.problem:
            return f"{self.dropped} triggers came while {MOST_WAITING} waited, and were left out"
        return self._connection.problem

    def close(self) -> None:
        """Disconnect, and fail the triggers that wait."""
        self._connection.close()
        super().close()


def make_trigger(
    settings: EachTrigger | IntervalTrigger | HttpTrigger | MqttTrigger, key: str, base: Path
) -> TriggerPart:
    """The trigger of a description.

    Parameters
    ----------
    key: of the description, for errors.
    base: folder at which relative paths begin.
    """
    if isinstance(settings, IntervalTrigger):
        return Clock(settings.every)
    if isinstance(settings, HttpTrigger):
        return Requests(settings.timeout)
    if isinstance(settings, MqttTrigger):
        return Messages(settings, key, base)
    return AlwaysTrigger()


def _plain(name: str | None) -> str | None:
    return None if name is None else printable(name)[:NAME_CHARACTERS] or None
