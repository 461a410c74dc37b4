"""Views of the history: the newest decisions, counts, scores for a chart, and what another threshold would have decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    and_,
    func,
    literal,
    select,
    union_all,
)

from blemish.serve.history.rows import HOUR, Stream, from_microseconds
from blemish.serve.history.selection import FEW, Selection, StreamPart, judged
from blemish.serve.history.tables import decisions, hours

_MOST_PARTS = 100
"""Parts whose newest decisions are found one by one; SQLite joins no more than 500 queries."""
_AT_ONCE = 500
"""Numbers that one query names."""
_T = TypeVar("_T")


class ScorePoint(NamedTuple):
    """One decision on the score chart."""

    id: int
    time: datetime
    score: float
    threshold: float
    is_anomalous: bool


class HourSum(NamedTuple):
    """Decisions of one model and source in one hour, all accepted or all rejected."""

    hour: datetime
    """Its beginning, in UTC."""
    stream: Stream
    is_anomalous: bool
    decisions: int
    mean: float
    """Of the scores."""


class Tally(NamedTuple):
    """Decisions of one model, source and threshold, of one kind."""

    stream: Stream
    threshold: float
    is_anomalous: bool
    is_of_other_kind: bool
    decisions: int


def newest(selection: Selection, before: int | None, limit: int) -> list[int]:
    """Numbers of the newest decisions below ``before``, the newest first."""
    last = selection.last if before is None else min(selection.last, before - 1)
    if last < selection.first or limit < 1:
        return []
    restricts = not selection.is_of_all_streams or selection.wanted.is_anomalous is not None
    if not restricts or selection.is_rare or len(selection.parts) > _MOST_PARTS:
        query = newest_first(selection.of_all(most=last), limit)
    else:
        found = [
            newest_first([*part.of_stream(), *selection.of_rows(), part.numbers(most=last)], limit).subquery()
            for part in selection.parts
        ]
        together = union_all(*(select(part.c.id) for part in found)).subquery()
        query = select(together.c.id).order_by(together.c.id.desc()).limit(limit)
    return list(selection.connection.execute(query).scalars())


def newest_first(conditions: Iterable[ColumnElement[bool]], limit: int) -> Select[Any]:
    """Query of the newest numbers for which the conditions hold, going back from the newest."""
    return select(decisions.c.id).where(*conditions).order_by(decisions.c.id.desc()).limit(limit)


def oldest(selection: Selection, after: int, limit: int) -> list[int]:
    """Numbers of the oldest decisions above ``after``, the oldest first."""
    query = select(decisions.c.id).where(*selection.of_all(least=after + 1))
    query = query.order_by(decisions.c.id).limit(limit)
    return list(selection.connection.execute(query).scalars()) if selection.parts else []


def count(selection: Selection, all_verdicts: Selection, at_most: int | None = None) -> int:
    """How many decisions there are, counted no further than ``at_most``.

    Parameters
    ----------
    all_verdicts: the selection without its condition on verdicts.
    """
    if not selection.parts:
        return 0
    if selection.is_plain:
        found = _count_by_hours(selection)
        return found if at_most is None else min(found, at_most)
    if selection.wanted.verdict == "none" and all_verdicts.is_plain:
        # Verdicts are few beside decisions: those without one are all but those with one.
        found = _count_by_hours(all_verdicts) - count_rows(
            selection.connection, [*all_verdicts.of_all(), decisions.c.id.in_(judged())]
        )
        return found if at_most is None else min(found, at_most)
    query = (
        selection.by_score() if selection.is_of_scores else select(decisions.c.id).where(*selection.of_all())
    )
    some = query.limit(at_most).subquery()
    return selection.connection.execute(select(func.count()).select_from(some)).scalar() or 0


def count_rows(connection: Connection, conditions: Iterable[ColumnElement[bool]]) -> int:
    """How many rows there are for which the conditions hold, one by one."""
    query = select(func.count()).select_from(decisions).where(*conditions)
    return connection.execute(query).scalar() or 0


def _count_by_hours(selection: Selection) -> int:
    """Count of a plain filter: whole hours by their sums, the rows of the first and the last hour one by one."""
    found = sum(part.many for part in selection.parts)
    for edge in selection.edges():
        of_edge = and_(
            hours.c.hour == edge,
            hours.c.stream.in_({part.stream for part in selection.parts}),
            hours.c.is_anomalous.in_({part.is_anomalous for part in selection.parts}),
        )
        sums = select(func.sum(hours.c["count"]), func.min(hours.c.first_id), func.max(hours.c.last_id))
        within, first, last = selection.connection.execute(sums.where(of_edge)).one()
        if within:
            inside = count_rows(
                selection.connection,
                [
                    *selection.of_all(first, last),
                    decisions.c.time.between(edge * HOUR, (edge + 1) * HOUR - 1),
                ],
            )
            found += inside - int(within)
    return found


def scores(selection: Selection, points: int) -> list[ScorePoint]:
    """At most ``points`` decisions for a chart, evenly thinned in the order of storage, the oldest first.

    Rejected ones are thinned by themselves and take up to half of the points, so that few among many stay visible.
    """
    if selection.is_rare:
        chosen = _thinned_numbers(newest(selection, None, FEW)[::-1], points)
    else:
        chosen = _thinned_parts(selection, points)
    found = []
    columns = [decisions.c[name] for name in ("id", "time", "score", "threshold", "is_anomalous")]
    for some in in_chunks(chosen):
        rows = selection.connection.execute(select(*columns).where(decisions.c.id.in_(some)))
        found += [
            ScorePoint(number, from_microseconds(time), score, threshold, bool(bad))
            for number, time, score, threshold, bad in rows
        ]
    return sorted(found)


def hourly(selection: Selection, known: Mapping[int, Stream]) -> list[HourSum]:
    """Sums of the hours of a plain filter, in the order of time; whole hours, also where the filter begins within one."""
    columns = (hours.c[name] for name in ("hour", "stream", "is_anomalous", "count", "score_sum"))
    query = select(*columns).where(
        hours.c.stream.in_({part.stream for part in selection.parts}),
        hours.c.is_anomalous.in_({part.is_anomalous for part in selection.parts}),
        *selection.of_hours(),
    )
    return [
        HourSum(from_microseconds(hour * HOUR), known[stream], bool(bad), many, score_sum / many)
        for hour, stream, bad, many, score_sum in selection.connection.execute(query.order_by(hours.c.hour))
    ]


def tallies(selection: Selection, known: Mapping[int, Stream]) -> list[Tally]:
    """Counts by model, source, threshold and kind; reads every decision of the filter."""
    of_other_kind = decisions.c.other_kind.is_not(None)
    group = (decisions.c.stream, decisions.c.threshold, decisions.c.is_anomalous, of_other_kind)
    query = select(*group, func.count()).where(*selection.of_all()).group_by(*group)
    found = [
        Tally(known[stream], threshold, bool(bad), bool(other), many)
        for stream, threshold, bad, other, many in selection.connection.execute(query)
    ]
    return sorted(found)


def _thinned_parts(selection: Selection, points: int) -> list[int]:
    rejected = [part for part in selection.parts if part.is_anomalous]
    accepted = [part for part in selection.parts if not part.is_anomalous]
    every_rejected = sum(part.many for part in rejected)
    every_accepted = sum(part.many for part in accepted)
    room = min(every_rejected, max(points // 2, points - every_accepted))
    chosen = []
    for parts, many, share in ((rejected, every_rejected, room), (accepted, every_accepted, points - room)):
        for part in parts:
            chosen += _thinned_part(selection, part, max(1, share * part.many // many))
    return chosen


def _thinned_part(selection: Selection, part: StreamPart, points: int) -> list[int]:
    """The first decision of a part in each of equal ranges of numbers."""
    conditions = [*part.of_stream(), *selection.of_rows()]
    if part.many <= points:
        query = select(decisions.c.id).where(*conditions, part.numbers())
        return list(selection.connection.execute(query).scalars())
    # The ranges are counted by the database: a thousand of them in the query would take longer than their answer.
    places = select(literal(0, BigInteger).label("place")).cte("places", recursive=True)
    places = places.union_all(select(places.c.place + 1).where(places.c.place < points - 1))
    width = literal(part.last - part.first + 1, BigInteger)
    low, high = (part.first + width * (places.c.place + step) // points for step in (0, 1))
    first = (
        select(decisions.c.id)
        .where(*conditions, decisions.c.id >= low, decisions.c.id < high)
        .order_by(decisions.c.id)
        .limit(1)
        .correlate(places)
        .scalar_subquery()
    )
    numbers = selection.connection.execute(select(first).select_from(places)).scalars()
    return [number for number in numbers if number is not None]


def _thinned_numbers(numbers: Sequence[int], points: int) -> list[int]:
    if len(numbers) <= points:
        return list(numbers)
    return [numbers[len(numbers) * place // points] for place in range(points)]


def in_chunks(numbers: Sequence[_T]) -> Iterable[Sequence[_T]]:
    """Parts that one query may name."""
    return (numbers[begin : begin + _AT_ONCE] for begin in range(0, len(numbers), _AT_ONCE))
