"""Routes of fits from the page, and of the good images that they learn from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from blemish.errors import ImageError
from blemish.serve.api.problems import answers, problem_of
from blemish.serve.api.uploads import BODY, Upload, read_uploads
from blemish.serve.candidates import Candidates
from blemish.serve.confirmed_defects import DefectCount
from blemish.serve.fits import FitAvailability, FitRequest, FitState, availability, recipes
from blemish.serve.good_images import GoodImageFolder, Selection, collect
from blemish.serve.problem_texts import ProblemText
from blemish.serve.server import Server

router = APIRouter(tags=["fits"], responses=answers(401))

Number = Annotated[int, Path(ge=1, le=2**31)]
ModelName = Annotated[
    str | None, Query(max_length=100, description="Model on the line; the first one without.")
]


class FitList(BaseModel):
    """All fits, the newest first, and whether this machine can fit."""

    fits: list[FitState]
    available: FitAvailability
    recipes: list[str]
    """Recipes of the package that fit images."""


class GoodCount(BaseModel):
    """Good images of a model."""

    model: str
    count: int


class GoodResult(BaseModel):
    """Whether an image was taken."""

    name: str
    is_new: bool = False
    error: str | None = None
    remedy: str | None = None
    error_text: ProblemText | None = None
    remedy_text: ProblemText | None = None


class GoodResults(GoodCount):
    """Results in the order of the images, and how many there are now."""

    results: list[GoodResult]


class CollectRequest(BaseModel):
    """Images to take from the history."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=100)
    kind: Selection = "confirmed"
    count: int = Field(100, ge=1, le=10_000)


class Collected(GoodCount):
    """What was taken from the history."""

    added: int
    known: int
    """Images that were there already."""
    to_test: int
    """Images that stay unseen, for tests."""


@router.get("/api/fits")
def fits(request: Request) -> FitList:
    """All fits."""
    return FitList(fits=_candidates(request).fits.all(), available=availability(), recipes=list(recipes()))


@router.post("/api/fits", status_code=201, responses=answers(403, 404, 409, 422, 501, 507))
def start(request: Request, asked: FitRequest) -> FitState:
    """Begin a fit on the good images of a model; the result becomes a version of it that does not run yet."""
    _server(request).models.named(asked.model)
    return _candidates(request).fits.start(asked)


@router.get("/api/fits/{number}", responses=answers(404))
def fit(request: Request, number: Number) -> FitState:
    """One fit with its progress."""
    return _candidates(request).fits.fit(number)


@router.delete("/api/fits/{number}", responses=answers(403, 404, 409))
def stop(request: Request, number: Number) -> FitState:
    """Ask a fit to stop; it can be resumed."""
    return _candidates(request).fits.stop(number)


@router.post("/api/fits/{number}/resume", responses=answers(403, 404, 409, 501))
def resume(request: Request, number: Number) -> FitState:
    """Go on with a fit that was stopped, or that ended with its server."""
    return _candidates(request).fits.resume(number)


@router.get("/api/good-images", responses=answers(404))
def good_images(request: Request, model: ModelName = None) -> GoodCount:
    """Number of good images that are collected for a model."""
    name = _server(request).models.named(model).name
    return GoodCount(model=name, count=len(_candidates(request).good_of(name)))


@router.get("/api/defects", responses=answers(404))
def defects(request: Request, model: ModelName = None) -> DefectCount:
    """Numbers of confirmed defects that may choose the weights in a fit, and of those that are kept for tests."""
    name = _server(request).models.named(model).name
    return _candidates(request).judged_of(name).counted(name)


@router.post("/api/good-images", openapi_extra=BODY, responses=answers(400, 403, 404, 413, 415, 507))
async def add_good_images(request: Request, model: ModelName = None) -> GoodResults:
    """Take good images in, each once."""
    server = _server(request)
    name = server.models.named(model).name
    good = _candidates(request).good_of(name)
    uploads = await read_uploads(request, server.settings.limits, None)
    results = await run_in_threadpool(lambda: [_add(good, one) for one in uploads])
    return GoodResults(model=name, count=len(good), results=results)


def _add(good: GoodImageFolder, upload: Upload) -> GoodResult:
    try:
        return GoodResult(name=upload.name, is_new=good.add(upload.content, upload.name))
    except ImageError as error:
        return GoodResult(name=upload.name, **dict(problem_of(error)))


@router.delete("/api/good-images", responses=answers(403, 404))
def remove_good_images(request: Request, model: ModelName = None) -> GoodCount:
    """Remove the good images that are collected for a model; fits have copies of their own."""
    name = _server(request).models.named(model).name
    good = _candidates(request).good_of(name)
    good.clear()
    return GoodCount(model=name, count=len(good))


@router.post("/api/good-images/collect", responses=answers(403, 404, 422, 507))
def collect_good_images(request: Request, asked: CollectRequest) -> Collected:
    """Take images of the history whose decision an operator confirmed as good, or all that were accepted."""
    name = _server(request).models.named(asked.model).name
    candidates = _candidates(request)
    good = candidates.good_of(name)
    found = collect(
        good, candidates.kept(name), candidates.images.content, wanted=asked.kind, count=asked.count
    )
    return Collected(model=name, count=len(good), **found._asdict())


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def _candidates(request: Request) -> Candidates:
    return _server(request).candidates
