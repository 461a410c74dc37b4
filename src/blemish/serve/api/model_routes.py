"""Routes of the versions of models: promote, roll back, compare with the running one, rates that can be promised."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from blemish.decision.conformal import needed
from blemish.errors import CalibrationError
from blemish.serve.api.problems import answers
from blemish.serve.candidates import Candidates, ComparisonState
from blemish.serve.model_versions import ModelVersion
from blemish.serve.server import Server

RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)

router = APIRouter(tags=["models"], responses=answers(401, 404))

Name = Annotated[str, Path(max_length=100)]


class VersionChoice(BaseModel):
    """A version of a model."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1, le=2**31)


class VersionList(BaseModel):
    """Versions of a model by rising number, the one that runs, and those that ran before, the newest last."""

    versions: list[ModelVersion]
    running: int
    before: list[int]


class PromisedRate(BaseModel):
    """A false-reject rate, and the threshold that promises it."""

    rate: float
    threshold: float | None
    """None where the calibration images are too few."""
    needed: int
    """Calibration images that it needs."""


class RateList(BaseModel):
    """Usual rates with their thresholds."""

    rates: list[PromisedRate]


@router.get("/api/models/{name}/versions")
def versions(request: Request, name: Name) -> VersionList:
    """Versions of a model on the line."""
    return _list(request, name)


@router.post("/api/models/{name}/promote", responses=answers(403, 409, 422, 507))
def promote(request: Request, name: Name, choice: VersionChoice) -> VersionList:
    """Decide by another version from the next image on, after a restart too."""
    server = _server(request)
    version = server.models.named(name).promote(choice.version)
    server.live.publish("model", {"model": name, "version": version.number})
    return _list(request, name)


@router.post("/api/models/{name}/roll-back", responses=answers(403, 409, 507))
def roll_back(request: Request, name: Name) -> VersionList:
    """Decide by the version that ran before."""
    server = _server(request)
    version = server.models.named(name).roll_back()
    server.live.publish("model", {"model": name, "version": version.number})
    return _list(request, name)


@router.get("/api/models/{name}/rates")
def rates(request: Request, name: Name) -> RateList:
    """Thresholds of usual false-reject rates."""
    decision = _server(request).models.named(name).detector.decision
    found = []
    for rate in RATES:
        try:
            threshold = decision.with_false_reject_rate(rate).threshold
        except CalibrationError:
            threshold = None
        found.append(PromisedRate(rate=rate, threshold=threshold, needed=needed(rate)))
    return RateList(rates=found)


@router.post("/api/models/{name}/compare", status_code=202, responses=answers(403, 409, 422))
def compare(request: Request, name: Name, choice: VersionChoice) -> ComparisonState:
    """Begin to compare a version with the running one on the kept images of the history."""
    model = _server(request).models.named(name)
    return _candidates(request).compare(name, choice.version, model.detector, model.version.number)


@router.get("/api/models/{name}/comparison")
def comparison(request: Request, name: Name) -> ComparisonState | None:
    """The newest comparison since the start of the server; null where there was none."""
    _server(request).models.named(name)
    return _candidates(request).comparison(name)


def _list(request: Request, name: str) -> VersionList:
    model = _server(request).models.named(name)
    pointer = model.versions.pointer()
    return VersionList(
        versions=model.versions.all(),
        running=model.version.number,
        before=[] if pointer is None else list(pointer.before),
    )


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def _candidates(request: Request) -> Candidates:
    return _server(request).candidates
