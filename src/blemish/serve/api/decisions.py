"""Routes of the history: decisions, their verdicts, scores over time, and what another threshold would have decided."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, FiniteFloat

from blemish.serve.api.problems import answers
from blemish.serve.contracts import NewVerdict, StoredDecision, Verdict
from blemish.serve.history import HistoryFilter
from blemish.serve.server import Server

router = APIRouter(tags=["history"], responses=answers(401, 422))

LARGEST = 2**53
"""Number of a decision that JavaScript still holds."""
Number = Annotated[int, Query(ge=0, le=LARGEST)]


def wanted(
    model: Annotated[str | None, Query(max_length=200)] = None,
    model_sha256: Annotated[
        str | None,
        Query(max_length=64, description="Of the weights: scores of other versions are on other scales."),
    ] = None,
    source: Annotated[str | None, Query(max_length=200)] = None,
    decision: Annotated[Literal["rejected", "accepted"] | None, Query()] = None,
    verdict: Annotated[Literal["none", "right", "wrong"] | None, Query()] = None,
    text: Annotated[str | None, Query(max_length=200, description="Part of the image's name.")] = None,
    since: Annotated[datetime | None, Query(description="From this time on, ISO 8601.")] = None,
    until: Annotated[datetime | None, Query(description="Before this time, ISO 8601.")] = None,
    least_score: Annotated[FiniteFloat | None, Query()] = None,
    most_score: Annotated[FiniteFloat | None, Query()] = None,
) -> HistoryFilter:
    """Filter of decisions by the parameters of a request."""
    return HistoryFilter(
        model=model,
        model_sha256=model_sha256,
        source=source,
        is_anomalous=None if decision is None else decision == "rejected",
        verdict=verdict,
        text=text,
        since=since,
        until=until,
        least_score=least_score,
        most_score=most_score,
    )


Wanted = Annotated[HistoryFilter, Depends(wanted)]


class DecisionPage(BaseModel):
    """Decisions, the newest first."""

    decisions: list[StoredDecision]
    next: int | None
    """``before`` of the next page; None on the last one."""


class ScoreSeries(BaseModel):
    """Scores over time, evenly thinned, the oldest first; lists of equal length."""

    id: list[int]
    time: list[datetime]
    score: list[float]
    threshold: list[float]
    is_anomalous: list[bool]


class WhatIfResult(BaseModel):
    """Decisions of the past by another threshold; images of another kind stay rejected."""

    threshold: float
    decisions: int
    rejected: int
    """Rejected as it was."""
    newly_rejected: int
    newly_accepted: int
    changed: list[StoredDecision]
    """The newest that change."""


class VerdictList(BaseModel):
    """Verdicts on one decision, the oldest first."""

    verdicts: list[Verdict]


@router.get("/api/decisions")
def decisions(
    request: Request,
    which: Wanted,
    before: Annotated[int | None, Query(ge=0, le=LARGEST)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> DecisionPage:
    """Decisions of the history, the newest first."""
    found = _server(request).history.page(which, before, limit)
    return DecisionPage(decisions=found, next=found[-1].id if len(found) == limit else None)


@router.get("/api/decisions/{number}", responses=answers(404))
def decision(request: Request, number: int) -> StoredDecision:
    """One decision."""
    return _server(request).history.decision(_known(number))


@router.get("/api/decisions/{number}/verdicts", responses=answers(404))
def verdicts(request: Request, number: int) -> VerdictList:
    """All verdicts on a decision."""
    return VerdictList(verdicts=_server(request).history.verdicts(_known(number)))


@router.post("/api/decisions/{number}/verdict", status_code=201, responses=answers(403, 404, 503, 507))
def add_verdict(request: Request, number: int, given: NewVerdict) -> Verdict:
    """Judge a decision. Earlier verdicts stay in the history; the newest counts."""
    return _server(request).history.add_verdict(_known(number), given)


@router.get("/api/scores")
def scores(
    request: Request, which: Wanted, points: Annotated[int, Query(ge=2, le=10_000)] = 1000
) -> ScoreSeries:
    """Scores for a chart."""
    found = _server(request).history.scores(which, points)
    return ScoreSeries(
        id=[one.id for one in found],
        time=[one.time for one in found],
        score=[one.score for one in found],
        threshold=[one.threshold for one in found],
        is_anomalous=[one.is_anomalous for one in found],
    )


@router.get("/api/what-if")
def what_if(
    request: Request,
    which: Wanted,
    threshold: Annotated[FiniteFloat, Query()],
    limit: Annotated[int, Query(ge=0, le=500)] = 50,
) -> WhatIfResult:
    """Which past decisions another threshold would have changed."""
    found = _server(request).history.what_if(which, threshold, limit)
    return WhatIfResult(**{**found._asdict(), "changed": list(found.changed)})


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def _known(number: int) -> int:
    """``number``, or one that no decision has where databases have no room for it."""
    return number if 0 <= number <= LARGEST else -1
