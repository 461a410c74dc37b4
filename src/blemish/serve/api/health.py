"""Routes of health, readiness and metrics, for whatever watches the server."""

from __future__ import annotations

import shutil

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel

from blemish._version import __version__
from blemish.serve.api.problems import answers
from blemish.serve.server import Server

LEAST_FREE_BYTES = 64 * 2**20
"""Of the disk of the history, below which the server is not ready."""

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """The process runs and answers."""

    status: str = "ok"
    version: str = __version__


class Readiness(BaseModel):
    """Whether images would be decided now, and what is in the way."""

    is_ready: bool
    checks: dict[str, str]
    """Of each part ``ok``, or what is wrong."""


@router.get("/healthz")
def health() -> Health:
    """Say that the process runs; restart it where this fails."""
    return Health()


@router.get("/readyz", response_model=Readiness, responses=answers(503))
def readiness(request: Request) -> JSONResponse:
    """Say whether images would be decided now; send none where this is 503."""
    server: Server = request.app.state.server
    checks = {"workers": "ok" if server.service.is_ready else "stopping"}
    waiting, places = len(server.service), server.settings.limits.queue
    checks["queue"] = "ok" if waiting < places else "full"
    try:
        server.history.page(limit=1)
        checks["history"] = "ok"
    except Exception as error:  # whatever is wrong with it, no decision would be stored
        checks["history"] = f"cannot be read ({type(error).__name__})"
    if server.settings.history is None:
        try:
            free = shutil.disk_usage(server.settings.home).free
            checks["disk"] = "ok" if free >= LEAST_FREE_BYTES else f"{free / 2**20:.0f} MB free"
        except OSError as error:
            checks["disk"] = f"cannot be read ({error.strerror})"
    is_ready = all(one == "ok" for one in checks.values())
    found = Readiness(is_ready=is_ready, checks=checks)
    return JSONResponse(found.model_dump(), 200 if is_ready else 503)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> PlainTextResponse:
    """Metrics in the text format of Prometheus."""
    server: Server = request.app.state.server
    return PlainTextResponse(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
