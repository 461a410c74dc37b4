"""Live events: what happens on the line, from any thread to every page that looks on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

EventKind = Literal["decision", "line", "fit", "model", "drift"]

WAITING = 64
"""Events that wait for one slow page; older ones are left out, as the history has them."""


@dataclass(frozen=True)
class LiveEvent:
    """One thing that happened; ``number`` is that of the decision, where it is one."""

    kind: EventKind
    data: dict[str, Any]
    number: int | None = None


class Subscription:
    """Events of one page, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: asyncio.Queue[LiveEvent | None] = asyncio.Queue(WAITING)

    def offer(self, event: LiveEvent | None) -> None:
        """Take one event from any thread, in place of the oldest one where too many wait; None ends the events."""
        try:
            self._loop.call_soon_threadsafe(self._put, event)
        except RuntimeError:  # the loop has ended, and the page with it
            return

    def _put(self, event: LiveEvent | None) -> None:
        if self._events.full():
            self._events.get_nowait()
        self._events.put_nowait(event)

    async def events(self, seconds: float) -> AsyncIterator[LiveEvent | None]:
        """Events as they come; None where none came for so many ``seconds``, so that the connection can be tried."""
        while True:
            try:
                event = await asyncio.wait_for(self._events.get(), seconds)
            except asyncio.TimeoutError:
                yield None
                continue
            if event is None:
                return
            yield event


class Live:
    """Publishes events to all subscriptions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: set[Subscription] = set()
        self._is_closed = False

    def publish(self, kind: EventKind, data: dict[str, Any], number: int | None = None) -> None:
        """Give an event to every subscription; never waits for one."""
        event = LiveEvent(kind, data, number)
        with self._lock:
            subscriptions = list(self._subscriptions)
        for one in subscriptions:
            one.offer(event)

    @contextmanager
    def subscribed(self) -> Iterator[Subscription]:
        """Subscription of the running event loop, for as long as the block lasts."""
        one = Subscription(asyncio.get_running_loop())
        with self._lock:
            self._subscriptions.add(one)
            if self._is_closed:
                one.offer(None)
        try:
            yield one
        finally:
            with self._lock:
                self._subscriptions.discard(one)

    def __len__(self) -> int:
        return len(self._subscriptions)

    def close(self) -> None:
        """End all subscriptions, now and later."""
        with self._lock:
            self._is_closed = True
            for one in self._subscriptions:
                one.offer(None)
