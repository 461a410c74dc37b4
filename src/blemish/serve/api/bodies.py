"""Bodies of requests within limits of size, time and memory, for every route."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blemish.serve.api.problems import Problem, Refusal, answer
from blemish.serve.metrics import Metrics
from blemish.serve.settings import RequestLimits


class HeldBytes:
    """Bytes of all bodies in memory, with a bound."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        self.most, self.now = most, 0
        metrics.measure("blemish_held_bytes", "Bytes of requests that are in memory.", lambda: self.now)


class BodyLimits:
    """ASGI middleware: refuses bodies that are too large, too slow, or more than memory has room for.

    Parameters
    ----------
    held: shared by all requests.
    """

    def __init__(self, app: ASGIApp, limits: RequestLimits, held: HeldBytes) -> None:
        self._app, self._limits, self._held = app, limits, held
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits = self._limits
        if _declared(scope) > limits.body_bytes:
            await self._refuse(_too_large(limits), scope, receive, send)
            return
        if self._requests >= limits.connections:
            await self._refuse(
                Refusal(503, f"more than {limits.connections} requests at one time", "try again", _LATER),
                scope, receive, send,
            )  # fmt: skip
            return
        body = _Body(receive, limits, self._held)
        self._requests += 1
        try:
            await self._app(scope, body.receive, send)
        finally:
            self._requests -= 1
            body.release()

    @staticmethod
    async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        problem = Problem(error=str(refusal.detail), remedy=refusal.remedy)
        await answer(refusal.status_code, problem, refusal.headers)(scope, receive, send)


_LATER = {"Retry-After": "2"}


class _Body:
    """Body of one request; its clock starts when it is first asked for."""

    def __init__(self, receive: Receive, limits: RequestLimits, held: HeldBytes) -> None:
        self._receive, self._limits, self._held = receive, limits, held
        self._bytes = 0
        self._begun: float | None = None
        self._is_whole = False

    async def receive(self) -> Message:
        if self._is_whole:  # what comes now is that the client has gone
            return await self._receive()
        if self._begun is None:
            self._begun = time.monotonic()
        limits = self._limits
        deadline = self._begun + limits.body_seconds + self._bytes / limits.bytes_a_second
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, deadline - time.monotonic()))
        except asyncio.TimeoutError:
            raise Refusal(
                408,
                f"the body came more slowly than {limits.bytes_a_second} bytes a second, and {limits.body_seconds:g} s",
                "send it again over a faster connection",
            ) from None
        self._count(message)
        return message

    def _count(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] != "http.request":
            self._is_whole = True
            return
        size = len(message.get("body", b""))
        self._bytes += size
        self._held.now += size
        self._is_whole = not message.get("more_body", False)
        if self._bytes > self._limits.body_bytes:
            raise _too_large(self._limits)
        if self._held.now > self._held.most:
            raise Refusal(
                503, "the requests at work hold all the memory that is set aside", "try again", _LATER
            )

    def release(self) -> None:
        self._held.now -= self._bytes
        self._bytes = 0


def _too_large(limits: RequestLimits) -> Refusal:
    return Refusal(
        413,
        f"the body has more than the {limits.body_bytes} bytes allowed",
        "send fewer or smaller images, or raise limits.body_bytes",
    )


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
