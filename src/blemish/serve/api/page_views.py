"""Routes of what the page shows beside the history itself: counts, the control chart, and drawings of images and maps."""

from __future__ import annotations

import statistics
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy import select

from blemish.serve.api.decisions import LARGEST
from blemish.serve.api.problems import Refusal, answers
from blemish.serve.contracts import utc_now
from blemish.serve.control_chart import ControlChart, control_chart
from blemish.serve.drawings import draw_heat, draw_image, draw_overlay
from blemish.serve.history import HistoryFilter
from blemish.serve.history.tables import verdicts
from blemish.serve.server import Server

RATE_MINUTES = 5
"""Minutes that the rate of images is the mean of."""
LATENCIES = 50
"""Newest decisions that the latency is the median of."""
MOST_LABELS = 200

router = APIRouter(tags=["page"], responses=answers(401, 422))


class Summary(BaseModel):
    """Counts of a time, the present rate, and drift."""

    count: int
    accepted: int
    rejected: int
    per_minute: float | None
    """Images a minute in the last five; None without any."""
    seconds: float | None
    """Median latency of the newest decisions; None without any."""
    drift: list[dict[str, Any]]


class SourceList(BaseModel):
    """Sources that the history knows."""

    sources: list[str]


class LabelList(BaseModel):
    """Labels that operators have given."""

    labels: list[str]


class ChartSeries(BaseModel):
    """Scores in the order of storage, evenly thinned; lists of equal length."""

    id: list[int]
    time: list[datetime]
    score: list[float]
    threshold: list[float]
    is_anomalous: list[bool]
    mean: list[float | None] | None
    """Moving average of the accepted ones; None without control limits."""


class ChartLimits(BaseModel):
    """Control limits of the moving average."""

    centre: float
    upper: float
    lower: float
    beyond: int


class ControlChartPage(BaseModel):
    """Scores of one version of a model over time, with its threshold, control limits and drift."""

    series: ChartSeries
    chart: ChartLimits | None
    """None where the calibration images are too few."""
    threshold: float
    promised_rate: float | None
    count: int
    rejected: int
    drift: dict[str, Any]


@router.get("/api/summary")
def summary(request: Request, since: Annotated[datetime | None, Query()] = None) -> Summary:
    """Counts since a time, and the state of the line now."""
    server, history = _server(request), _server(request).history
    rejected = history.count(HistoryFilter(since=since, is_anomalous=True))
    count = history.count(HistoryFilter(since=since))
    recent = history.count(HistoryFilter(since=utc_now() - timedelta(minutes=RATE_MINUTES)))
    newest = history.page(limit=LATENCIES)
    return Summary(
        count=count,
        accepted=count - rejected,
        rejected=rejected,
        per_minute=recent / RATE_MINUTES if recent else None,
        seconds=statistics.median(one.seconds for one in newest) if newest else None,
        drift=[{"model": name, **server.service.drift.state(name)} for name in server.models],
    )


@router.get("/api/sources")
def sources(request: Request) -> SourceList:
    """Sources that decisions came from."""
    return SourceList(sources=sorted({one.source for one in _server(request).history.streams()}))


@router.get("/api/labels")
def labels(request: Request) -> LabelList:
    """Labels of verdicts, for suggestions."""
    query = select(verdicts.c.label).where(verdicts.c.label.is_not(None)).distinct().limit(MOST_LABELS)
    with _server(request).history.database.reading() as connection:
        return LabelList(labels=sorted(connection.execute(query).scalars()))


@router.get("/api/control-chart", responses=answers(404))
def chart(
    request: Request,
    model: Annotated[str | None, Query(max_length=200)] = None,
    since: Annotated[datetime | None, Query()] = None,
    points: Annotated[int, Query(ge=2, le=10_000)] = 1000,
) -> ControlChartPage:
    """Score chart of the running version of a model. Scores of other versions are on other scales and left out."""
    server = _server(request)
    served = server.models.named(model)
    decision = served.detector.decision
    wanted = HistoryFilter(model=served.name, model_sha256=served.detector.file.weights_sha256, since=since)
    found = server.history.scores(wanted, points)
    limits: ControlChart | None = control_chart(
        decision.calibration.scores,
        decision.threshold,
        [one.score for one in found],
        [not one.is_anomalous for one in found],
    )
    series = ChartSeries(
        id=[one.id for one in found],
        time=[one.time for one in found],
        score=[one.score for one in found],
        threshold=[one.threshold for one in found],
        is_anomalous=[one.is_anomalous for one in found],
        mean=None if limits is None else limits.mean,
    )
    return ControlChartPage(
        series=series,
        chart=None
        if limits is None
        else ChartLimits(centre=limits.centre, upper=limits.upper, lower=limits.lower, beyond=limits.beyond),
        threshold=decision.threshold,
        promised_rate=decision.promised_rate,
        count=server.history.count(wanted),
        rejected=server.history.count(wanted.model_copy(update={"is_anomalous": True})),
        drift=server.service.drift.state(served.name),
    )


@router.get("/api/decisions/{number}/drawing/{what}", response_class=Response, responses=answers(404))
def drawing(
    request: Request,
    number: Annotated[int, Path(ge=1, le=LARGEST)],
    what: Literal["image", "heat", "overlay"],
    side: Annotated[int, Query(ge=16, le=4096)] = 1024,
) -> Response:
    """The image, its heat map with clear places, or both with boxes, as PNG with a longer side of at most ``side``."""
    server = _server(request)
    decision = server.history.decision(number)
    found = server.images.find(decision)
    if found is None:
        raise Refusal(
            404, f"the image of decision {number} is not kept", "keep more by the rule of the history"
        )
    if what == "image":
        content = draw_image(server.images.shown(decision, found.frame), side)
    elif what == "heat":
        content = draw_heat(found.map, decision.pixel_threshold, side)
    else:
        content = draw_overlay(
            server.images.decoded(found.frame).pixels,
            found.map,
            decision.pixel_threshold,
            decision.regions,
            side,
        )
    # A decision never changes; its image may be removed, which a page that was open needs not notice.
    return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server
