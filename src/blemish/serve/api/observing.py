"""Metrics and a line of the log of every request, and headers that keep browsers from loading anything from outside."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blemish.errors import printable
from blemish.serve.api.problems import CLIENT_GONE
from blemish.serve.logs import LOGGER
from blemish.serve.metrics import Metrics

QUIET = ("/healthz", "/readyz", "/metrics")
"""Paths that are asked for all the time, and logged only where they fail."""
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
        b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Observing:
    """ASGI middleware around all others."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), CLIENT_GONE

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            self._note(scope, status, time.monotonic() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # By the route and not the path, which anybody can make up: each would be a time series for good.
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.requests.labels(route, method, status).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        level = logging.INFO
        if status >= 500:
            level = logging.WARNING
        elif scope["path"] in QUIET:
            level = logging.DEBUG
        client = scope.get("client")
        fields = {
            "method": method,
            "path": printable(scope["path"])[:500],
            "status": status,
            "seconds": round(seconds, 6),
            "client": client[0] if client else None,
        }
        LOGGER.log(level, "request", extra={"fields": fields})


METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
