"""Route of inspection: images in, decisions out."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from blemish.errors import BlemishError
from blemish.serve.api.problems import Problem, Refusal, answer_to, answers, problem_of, status_of
from blemish.serve.api.uploads import BODY, Upload, read_uploads
from blemish.serve.contracts import Frame, StoredDecision
from blemish.serve.problem_texts import ProblemText
from blemish.serve.server import Server
from blemish.serve.service import Outcome, TooLateError

REQUEST_NUMBER = re.compile(r"[\x21-\x7e]{1,100}")

router = APIRouter(tags=["inspection"])


class Links(BaseModel):
    """Where the images of a decision are, as long as they are kept."""

    decision: str
    image: str
    map: str
    overlay: str


class ImageAnswer(BaseModel):
    """Decision on one image, or why there is none."""

    name: str
    id: int | None = None
    record: StoredDecision | None = None
    links: Links | None = None
    error: str | None = None
    remedy: str | None = None
    error_text: ProblemText | None = None
    remedy_text: ProblemText | None = None
    status: int = 200
    """Status that the image alone would have had."""


class ImageAnswers(BaseModel):
    """Results in the order of the images."""

    results: list[ImageAnswer]


@router.post(
    "/api/inspect",
    openapi_extra=BODY,
    response_model=ImageAnswers,
    responses=answers(400, 401, 404, 408, 409, 413, 415, 422, 503, 504, 507),
)
async def inspect(
    request: Request,
    model: Annotated[str | None, Query(description="Name of a model; the first one without.")] = None,
    name: Annotated[
        str | None, Query(max_length=1000, description="Name of the image where it is the body itself.")
    ] = None,
    x_request_id: Annotated[
        str | None,
        Header(
            description="Number of the request, unique. The same request sent again, as after a broken connection, is "
            "stored once.",
        ),
    ] = None,
) -> JSONResponse:
    """Inspect one image or many.

    Every decision is in the history before it is answered. Where all images fail, the status is that of the first; where
    some do, it is 200, and each result has its own.
    """
    server: Server = request.app.state.server
    if x_request_id is not None and not REQUEST_NUMBER.fullmatch(x_request_id):
        raise Refusal(400, "X-Request-ID has other characters than ASCII, or more than 100", "send a UUID")
    server.models.named(model)
    uploads = await read_uploads(request, server.settings.limits, name)
    number = x_request_id or uuid.uuid4().hex
    frames = [
        Frame(one.content, one.name, request=number if len(uploads) == 1 else f"{number}/{place}")
        for place, one in enumerate(uploads)
    ]
    futures = [_submitted(server, frame, model) for frame in frames]
    found = await _outcomes(request, futures, server.settings.limits.request_seconds)
    results = [_result(upload, one) for upload, one in zip(uploads, found, strict=True)]
    failed = [one for one in found if isinstance(one, BaseException)]
    if len(failed) == len(found):
        whole = answer_to(failed[0])
        if len(found) == 1:
            return whole
        headers = {"Retry-After": whole.headers["Retry-After"]} if "Retry-After" in whole.headers else None
        return _json(results, whole.status_code, headers, f"none of {len(found)} images was decided")
    return _json(results, 200)


def _submitted(server: Server, frame: Frame, model: str | None) -> Future[Outcome] | BlemishError:
    try:
        return server.service.submit(frame, model)
    except BlemishError as error:
        return error


async def _outcomes(
    request: Request, futures: Sequence[Future[Outcome] | BlemishError], seconds: float
) -> list[Outcome | BaseException]:
    """Outcomes or errors; what has not begun when the client hangs up is not begun."""
    waiting = [asyncio.wrap_future(one) for one in futures if isinstance(one, Future)]
    if waiting:
        together = asyncio.ensure_future(asyncio.wait(waiting))
        gone = asyncio.ensure_future(_hung_up(request))
        try:
            await asyncio.wait({together, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not together.done():
                raise ClientDisconnect
        finally:
            gone.cancel()
            together.cancel()
            for one in waiting:
                one.cancel()  # of one that is done, nothing happens
    late = TooLateError(
        f"the inspection took more than {seconds:g} s; send it again when there is less to do"
    )
    found: list[Outcome | BaseException] = []
    for future in futures:
        if isinstance(future, BlemishError):
            found.append(future)
        elif not future.done() or future.cancelled():
            found.append(late)
        else:
            error = future.exception()
            found.append(future.result() if error is None else error)
    return found


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _result(upload: Upload, found: Outcome | BaseException) -> ImageAnswer:
    if isinstance(found, BaseException):
        problem = problem_of(found)
        return ImageAnswer(name=upload.name, status=status_of(found), **dict(problem))
    decision = found.decision
    return ImageAnswer(name=upload.name, id=decision.id, record=decision, links=links_of(decision.id))


def links_of(number: int) -> Links:
    """Links of a decision."""
    own = f"/api/decisions/{number}"
    return Links(decision=own, image=f"{own}/image", map=f"{own}/map", overlay=f"{own}/overlay")


def _json(
    results: list[ImageAnswer],
    status: int,
    headers: dict[str, str] | None = None,
    error: str | None = None,
) -> JSONResponse:
    # A result has either a decision or an error; the record itself is whole, with what it has not as null.
    content: list[dict[str, Any]] = []
    for one in results:
        shown = {name for name, value in one if value is not None}
        content.append(one.model_dump(mode="json", include=shown))
    problem = {} if error is None else Problem(error=error).model_dump(exclude_none=True)
    return JSONResponse({**problem, "results": content}, status, headers)
