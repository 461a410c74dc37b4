"""HTTP server: uvicorn with limits on slow clients, and a stop that finishes what it holds."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from blemish.errors import ServeError
from blemish.serve.api.app import create_app
from blemish.serve.server import Server
from blemish.serve.settings import RequestLimits

HEADER_BYTES = 32 * 1024
KEEP_ALIVE_SECONDS = 5


class PatientProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn that ends connections which send or read too slowly.

    uvicorn waits for a header, and for a client that reads its answer, for ever. Limits on bodies are those of the
    application (:mod:`blemish.serve.api.bodies`).
    """

    def __init__(self, *given: Any, limits: RequestLimits, **named: Any) -> None:
        super().__init__(*given, **named)
        self._limits = limits
        self._header_timer, self._end_timer = _Timer(self.loop), _Timer(self.loop)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(503, f"more than {self._limits.connections} connections", b"Retry-After: 2\r\n")
            return
        self._watch_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_timer.cancel()
        self._end_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_header()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self.conn.their_state is h11.SEND_BODY:
            # The answer came before the whole body. What follows is dropped for a while, because closing at once would
            # take the answer from a client that is still sending.
            self._end_within(self._limits.body_seconds)
        elif self.conn.trailing_data[0]:
            self._watch_header()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._end_within(self._limits.body_seconds)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_timer.cancel()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._end_within(self._limits.body_seconds)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg.rstrip("."))

    def _watch_header(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._header_timer.cancel()
        elif not self._header_timer.is_set and not self.transport.is_closing():
            self._header_timer.set(self._limits.header_seconds, self._header_is_late)

    def _header_is_late(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self._refuse(408, f"the header took more than {self._limits.header_seconds:g} s")

    def _end_within(self, seconds: float) -> None:
        self._end_timer.set(seconds, self.transport.abort)

    def _refuse(self, status: int, error: str, header: bytes = b"") -> None:
        """Answer without a request, and close."""
        if self.transport.is_closing():
            return
        body = json.dumps({"error": error}).encode()
        phrase = {400: b"Bad Request", 408: b"Request Timeout", 503: b"Service Unavailable"}[status]
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n%s"
            % (status, phrase, len(body), header, body)
        )
        self.transport.close()
        self._end_within(self._limits.body_seconds)


class _Timer:
    """One call in the future, which another one takes the place of."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        return self._handle is not None

    def set(self, seconds: float, call: Callable[[], object]) -> None:
        self.cancel()
        self._handle = self._loop.call_later(seconds, call)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class GracefulServer(uvicorn.Server):
    """Server of uvicorn that stops in order: no new work, live pages sent away, open requests answered.

    Parameters
    ----------
    started_at: called with the addresses once the server listens.
    """

    def __init__(
        self, config: uvicorn.Config, server: Server, started_at: Callable[[list[str]], None] | None = None
    ) -> None:
        super().__init__(config)
        self._server, self._started_at = server, started_at

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._started_at is not None and self.started:
            self._started_at([_address(one) for one in sockets or []])

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as requests to stop, and not pass them on afterwards: what is open is closed first."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in former.items():
                signal.signal(one, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Pages that look on would hold the server for as long as they are open.
        self._server.live.close()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Socket that listens on ``host`` and ``port``.

    Raises
    ------
    ServeError
        When the port is in use, or the host is none of this machine.
    """
    try:
        kind, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(kind, socket.SOCK_STREAM)
    except OSError as error:
        raise ServeError(f"--host {host}: is no address of this machine ({error.strerror})") from None
    try:
        if os.name == "posix":  # on Windows it would let two servers have one port
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(2048)
    except OSError as error:
        found.close()
        if error.errno in (errno.EADDRINUSE, 10048):
            raise ServeError(
                f"port {port} is in use by another program; choose one by --port, or end that program"
            ) from None
        if isinstance(error, PermissionError):
            raise ServeError(f"port {port} needs rights of an administrator; choose one above 1023") from None
        raise ServeError(
            f"--host {host}: cannot be listened on ({error.strerror}); name an address of this machine"
        ) from None
    return found


def run(server: Server, started_at: Callable[[list[str]], None] | None = None) -> None:
    """Answer requests until a signal asks to stop; open requests are answered first.

    Raises
    ------
    ServeError
        When the address cannot be listened on.
    """
    settings, limits = server.settings, server.settings.limits
    opened = listen(settings.host, settings.port)
    config = uvicorn.Config(
        create_app(server),
        http=partial(PatientProtocol, limits=limits),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, int(limits.stop_seconds)),
        h11_max_incomplete_event_size=HEADER_BYTES,
    )
    with opened:
        GracefulServer(config, server, started_at).run(sockets=[opened])


def _address(found: socket.socket) -> str:
    host, port = found.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
