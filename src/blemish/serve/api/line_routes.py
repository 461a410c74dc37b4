"""Routes of the line: its description, its state, pause and resume, triggers."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from blemish.errors import BlemishError, ServeError
from blemish.serve.api.problems import Refusal, answers
from blemish.serve.contracts import StoredDecision
from blemish.serve.line.description import parse_line
from blemish.serve.line.triggers import TriggerError
from blemish.serve.server import Server

router = APIRouter(tags=["line"], responses=answers(401))

SinkName = Annotated[str, Path(max_length=100)]

LONGEST_TRIGGER = 300.0
"""Seconds that an answer to a trigger may take, beyond the timeout of the source itself."""


class LinePart(BaseModel):
    """State of a source or a sink; further fields are of its type."""

    model_config = ConfigDict(extra="allow")

    name: str
    type: str | None
    is_ready: bool
    message: str
    """Why it is not ready, or what went wrong last; empty otherwise."""


class OwedBySink(BaseModel):
    """What a sink of the outbox still owes, also one that is no longer on the line."""

    sink: str
    owed: int
    attempts: int
    error: str | None


class LineState(BaseModel):
    """The line as it is now."""

    file: str
    """Where the description is kept."""
    is_paused: bool
    """Whether all sources are paused."""
    sources: list[LinePart]
    sinks: list[LinePart]
    outbox: list[OwedBySink]
    description: dict[str, Any]
    """As in ``line.yaml``; secrets are references to environment variables."""


class ChosenSources(BaseModel):
    """Some of the sources."""

    model_config = ConfigDict(extra="forbid")

    sources: list[str] | None = Field(None, description="names; all of them without it", max_length=64)


class Triggered(BaseModel):
    """The decision that a trigger gave."""

    id: int
    decision: StoredDecision


class Skipped(BaseModel):
    """The decision that is not delivered."""

    decision: int


class Forgotten(BaseModel):
    """How many deliveries were removed from the outbox."""

    removed: int


@router.get("/api/line")
def line(request: Request) -> LineState:
    """Sources, sinks, what is owed, and the description."""
    return _state(_server(request))


@router.put("/api/line", responses=answers(403, 422))
def put_line(request: Request, description: Annotated[dict[str, Any], Body()]) -> LineState:
    """Replace the line; sources and sinks that stay the same go on without a break."""
    server = _server(request)
    try:
        server.line.put(parse_line(description, "line"))
    except ServeError as error:
        raise _refusal(422, error) from None
    return _state(server)


@router.post("/api/line/pause", responses=answers(403, 404, 422))
def pause(request: Request, chosen: Annotated[ChosenSources | None, Body()] = None) -> LineState:
    """Pause sources: cameras stay open, models stay loaded, files wait, sinks go on."""
    server = _server(request)
    try:
        server.line.pause(None if chosen is None else chosen.sources)
    except BlemishError as error:
        raise _refusal(404, error) from None
    return _state(server)


@router.post("/api/line/resume", responses=answers(403, 404, 422))
def resume(request: Request, chosen: Annotated[ChosenSources | None, Body()] = None) -> LineState:
    """Let sources go on: files with those that wait, cameras with what is there now."""
    server = _server(request)
    try:
        server.line.resume(None if chosen is None else chosen.sources)
    except BlemishError as error:
        raise _refusal(404, error) from None
    return _state(server)


@router.post("/api/line/trigger", responses=answers(403, 404, 409, 422, 503, 504))
async def trigger(
    request: Request,
    source: Annotated[str | None, Query(max_length=100)] = None,
    name: Annotated[str | None, Query(max_length=200)] = None,
) -> Triggered:
    """Take one image and answer with its decision.

    ``source`` may be left out where one has the trigger ``http``; ``name`` becomes that of the image, such as a serial
    number.
    """
    server = _server(request)
    try:
        future = server.line.trigger(source, name)
    except TriggerError as error:
        raise _refusal(409, error) from None
    except BlemishError as error:
        raise _refusal(404, error) from None
    try:
        decision = await asyncio.wait_for(asyncio.wrap_future(future), LONGEST_TRIGGER)
    except TriggerError as error:
        raise _refusal(504, error) from None
    except asyncio.TimeoutError:
        raise Refusal(504, "the image was not decided in time", "look at the state of the line") from None
    return Triggered(id=decision.id, decision=decision)


@router.post("/api/line/outbox/{sink}/skip", responses=answers(403, 404))
def skip(request: Request, sink: SinkName) -> Skipped:
    """Give up the first decision that a sink owes, where its receiver never takes it and so holds up the others."""
    try:
        return Skipped(decision=_server(request).line.skip(sink))
    except BlemishError as error:
        raise _refusal(404, error) from None


@router.delete("/api/line/outbox/{sink}", responses=answers(403, 404, 409))
def forget(request: Request, sink: SinkName) -> Forgotten:
    """Remove what a sink that is no longer on the line still owes."""
    server = _server(request)
    if any(one.name == sink for one in server.line.description.sinks):
        raise Refusal(409, f"the sink '{sink}' is on the line", "remove it there first")
    if all(one.sink != sink for one in server.history.owed()):
        raise Refusal(404, f"the outbox holds nothing of a sink '{sink}'", "see GET /api/line")
    return Forgotten(removed=server.history.forget_sink(sink))


def _state(server: Server) -> LineState:
    state = server.line.state()
    owed = [
        OwedBySink(sink=one.sink, owed=one.owed, attempts=one.attempts, error=one.error)
        for one in server.history.owed()
    ]
    return LineState(
        file=str(server.line.file),
        outbox=owed,
        description=server.line.description.model_dump(mode="json", exclude_defaults=True),
        **state,
    )


def _refusal(status: int, error: BlemishError) -> Refusal:
    problem, _, remedy = str(error).partition("; ")
    return Refusal(status, problem, remedy or "see GET /api/line")


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server
