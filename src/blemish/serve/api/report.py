"""Routes of the weekly report, as a page and as an e-mail."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from blemish.serve.api.problems import answers
from blemish.serve.candidates import MODELS
from blemish.serve.report_texts import DEFAULT, languages
from blemish.serve.server import Server
from blemish.serve.weekly_figures import read_calibrations, week_of
from blemish.serve.weekly_report import WeeklyReport, weekly_report

router = APIRouter(tags=["history"], responses=answers(401, 422))

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"
"""The page holds its styles and images, and nothing else."""
FIRST, LAST = date(2000, 1, 1), date(2200, 1, 1)
Week = Annotated[
    date | None, Query(ge=FIRST, le=LAST, description="Any day of the week; None is the last whole one.")
]
Language = Annotated[
    str, Query(max_length=20, description="en, de, or another that there are texts in, else English.")
]


# Not response_class=HTMLResponse, by which refusals would be described as HTML as well.
@router.get(
    "/api/report.html",
    response_class=Response,
    responses={200: {"content": {"text/html": {}}, "description": "A page that opens offline."}},
)
def report_as_page(request: Request, week: Week = None, language: Language = "en") -> HTMLResponse:
    """Report of a week: rejects, overturned decisions, the false-reject rate against the promise, drift."""
    made = _report(request, week, language)
    return HTMLResponse(made.html(), headers={"Content-Security-Policy": POLICY})


@router.get("/api/report.eml", response_class=Response)
def report_as_email(request: Request, week: Week = None, language: Language = "en") -> Response:
    """The same as an e-mail without addresses."""
    made = _report(request, week, language)
    name = f"week-{made.begin.isoformat()}.eml"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(made.email().as_bytes(), media_type="message/rfc822", headers=headers)


def _report(request: Request, week: date | None, language: str) -> WeeklyReport:
    server: Server = request.app.state.server
    begin, end = week_of(date.today() - timedelta(days=7) if week is None else week)
    return weekly_report(
        server.history,
        server.kept,
        begin,
        end,
        calibrations=read_calibrations(server.settings.home / MODELS),
        language=language if language in languages() else DEFAULT,
    )
