"""Route of live events, as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from blemish.serve.api.problems import answers
from blemish.serve.server import Server

SECONDS_BETWEEN = 15.0
"""After which an empty line is sent, so that a connection that is gone is noticed."""
MOST_MISSED = 200
"""Decisions that a page that comes back is given; it reads more from the history."""

router = APIRouter(tags=["line"])


@router.get("/api/live", response_class=StreamingResponse, responses=answers(401))
async def live(request: Request) -> StreamingResponse:
    """Events ``decision``, ``line``, ``fit``, ``model`` and ``drift`` as they happen (text/event-stream).

    A decision has its number as the event's id. A client that comes back with ``Last-Event-ID`` is given what it missed.
    """
    server: Server = request.app.state.server
    last = request.headers.get("last-event-id", "")
    return StreamingResponse(
        _events(server, int(last) if last.isascii() and last.isdecimal() and len(last) < 18 else None),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(server: Server, last: int | None) -> AsyncIterator[str]:
    with server.live.subscribed() as subscription:
        yield "retry: 2000\n\n"
        if last is not None:
            # A page that was away reads from the history what it missed, the newest ones at least.
            newest = await run_in_threadpool(server.history.page, limit=MOST_MISSED)
            missed = [one for one in newest if one.id > last]
            for one in reversed(missed):
                yield _line("decision", one.model_dump_json(), one.id)
            last = missed[0].id if missed else last
        async for event in subscription.events(SECONDS_BETWEEN):
            if event is None:
                yield ": still here\n\n"
            elif event.number is None or last is None or event.number > last:
                yield _line(event.kind, json.dumps(event.data), event.number)


def _line(kind: str, data: str, number: int | None) -> str:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: {data}\n\n"
