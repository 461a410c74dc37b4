"""Errors as answers: a fitting status and one line of JSON, ``{"error": …, "remedy": …}``."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, model_validator
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from blemish.errors import (
    BlemishError,
    CalibrationError,
    DecisionNotFoundError,
    DeliveryError,
    FileError,
    HistoryError,
    ImageError,
    MissingExtraError,
    ModelError,
    ServeError,
    UsageError,
    printable,
)
from blemish.serve.candidates import ComparisonConflictError
from blemish.serve.decode import NoImageError, TooManyPixelsError
from blemish.serve.fits import FitConflictError, FitNotFoundError
from blemish.serve.logs import LOGGER
from blemish.serve.model_versions import NoEarlierVersionError, UnknownVersionError
from blemish.serve.problem_texts import ProblemText, problem_text
from blemish.serve.served_model import UnknownModelError
from blemish.serve.service import (
    BusyError,
    RequestConflictError,
    StoppingError,
    TooLateError,
)

CLIENT_GONE = 499
"""Status in the log of a request whose client hung up, as nginx has it; nobody receives it."""


class Problem(BaseModel):
    """Why a request was not answered, in one line, with the keys of the messages of other languages."""

    error: str
    remedy: str | None = None
    error_text: ProblemText | None = None
    remedy_text: ProblemText | None = None

    @model_validator(mode="after")
    def _find_texts(self) -> Problem:
        self.error_text, self.remedy_text = problem_text(self.error), problem_text(self.remedy)
        return self


class Refusal(HTTPException):
    """A request that is not answered, with its status, one line, and what helps."""

    def __init__(
        self, status: int, error: str, remedy: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, error, dict(headers or {}))
        self.remedy = remedy


STATUSES: tuple[tuple[type[BlemishError], int], ...] = (
    (NoImageError, 415),
    (TooManyPixelsError, 413),
    (ImageError, 422),
    (UnknownModelError, 404),
    (UnknownVersionError, 404),
    (FitNotFoundError, 404),
    (NoEarlierVersionError, 409),
    (FitConflictError, 409),
    (ComparisonConflictError, 409),
    (BusyError, 503),
    (StoppingError, 503),
    (TooLateError, 504),
    (RequestConflictError, 409),
    (CalibrationError, 422),
    (MissingExtraError, 501),
    (UsageError, 422),
    (ModelError, 422),
    (DecisionNotFoundError, 404),
    (DeliveryError, 502),
)
"""Statuses of errors by their class, the first that fits."""


def status_of(error: BaseException) -> int:
    """Status of an error; 500 of one that nobody foresaw."""
    for kind, status in STATUSES:
        if isinstance(error, kind):
            return status
    if isinstance(error, (FileError, HistoryError, OSError)):
        return 507 if is_of_full_disk(error) else 503
    if isinstance(error, ServeError):
        return 422
    return 503 if isinstance(error, BlemishError) else 500


def is_of_full_disk(error: BaseException) -> bool:
    """True if ``error`` comes of a disk without room, however deep."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(found, (FileError, HistoryError)) and re.search(
            r"disk[\w ]* is full|disk quota", str(found)
        ):
            return True
        found = found.__cause__
    return False


def problem_of(error: BaseException) -> Problem:
    """The line of an error; of an unexpected one nothing that is inside."""
    if isinstance(error, FileError):
        return Problem(error=printable(f"{error.path}: {error.problem}"), remedy=printable(error.remedy))
    if isinstance(error, BlemishError):
        line, _, remedy = str(error).partition("; ")
        return Problem(error=line, remedy=remedy or None)
    if isinstance(error, OSError):
        return Problem(
            error=f"the disk of the server does not work ({error.strerror or error})",
            remedy="free some space there, or check it",
        )
    return Problem(
        error="unexpected error; the log of the server has it", remedy="report it with the lines of the log"
    )


def answer(status: int, problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Answer with a problem."""
    return JSONResponse(problem.model_dump(exclude_none=True), status, dict(headers or {}))


def answer_to(error: BaseException) -> JSONResponse:
    """Answer with an error."""
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(error.retry_after)
    elif (status := status_of(error)) in (503, 507):
        headers["Retry-After"] = "10" if status == 507 else "2"
    return answer(status_of(error), problem_of(error), headers)


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Descriptions of the answers with these statuses for OpenAPI."""
    return {status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in statuses}


def handle_errors(app: FastAPI) -> None:
    """Make every error of ``app`` an answer of this form."""

    async def refusal(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        remedy = error.remedy if isinstance(error, Refusal) else None
        return answer(error.status_code, Problem(error=str(error.detail), remedy=remedy), error.headers)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body",)) or "body"
        return answer(422, Problem(error=printable(f"{where}: {first['msg']}"), remedy="see /docs"))

    async def foreseen(_: Request, error: Exception) -> Response:
        return answer_to(error)

    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)

    async def unexpected(request: Request, error: Exception) -> Response:
        LOGGER.error("unexpected error", exc_info=error, extra={"fields": {"path": request.url.path}})
        return answer_to(error)

    app.add_exception_handler(HTTPException, refusal)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(BlemishError, foreseen)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, unexpected)
