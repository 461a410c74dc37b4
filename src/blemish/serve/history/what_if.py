"""What another threshold would have decided: counts of a whole history in milliseconds, and the newest that change.

Counts come from the sums by hours and bins of scores. Rows are read only of the bin in which the threshold lies, and of the
hours within which the times of the filter begin or end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, not_, select

from blemish.serve.contracts import StoredDecision
from blemish.serve.history.rows import HOUR
from blemish.serve.history.score_bins import lower_edge, score_bin
from blemish.serve.history.selection import FEW, Selection
from blemish.serve.history.sums import ACCEPTED, REJECTED
from blemish.serve.history.tables import decisions, hours, score_counts
from blemish.serve.history.views import count_rows, newest_first


class WhatIf(NamedTuple):
    """Decisions of the past by another threshold; images of another kind stay rejected whatever it is."""

    threshold: float
    decisions: int
    """Decisions in all."""
    rejected: int
    """Rejected as it was."""
    newly_rejected: int
    """Accepted as it was, rejected by this threshold."""
    newly_accepted: int
    changed: tuple[StoredDecision, ...]
    """The newest that change, the newest first."""


def changed(selection: Selection, threshold: float, limit: int) -> tuple[int, int, list[int]]:
    """Counts of newly rejected and newly accepted decisions by a threshold, and the newest numbers of both."""
    counts, numbers = [0, 0], list[int]()
    for kind in {part.is_anomalous for part in selection.parts}:
        if selection.is_plain:
            counts[kind] = _count_by_bins(selection, kind, threshold)
        else:
            conditions = [*_changes(kind, threshold), *selection.of_score_index()]
            counts[kind] = count_rows(selection.connection, conditions)
        query = _newest(selection, kind, threshold, limit, is_dense=counts[kind] > FEW)
        numbers += selection.connection.execute(query).scalars()
    return counts[0], counts[1], sorted(numbers, reverse=True)[:limit]


def _newest(selection: Selection, kind: int, threshold: float, limit: int, *, is_dense: bool) -> Select[Any]:
    if is_dense:
        # Going back finds them soon; a sum is no column, and keeps SQLite from sorting all that the index has.
        change = (
            decisions.c.score + 0.0 > threshold if kind == ACCEPTED else decisions.c.score + 0.0 <= threshold
        )
        return newest_first([*_kind(kind, is_indexed=False), change, *selection.of_all()], limit)
    # By the index of scores, then sorted: going back from the newest could pass all decisions.
    query = select(decisions.c.id).where(*_changes(kind, threshold), *selection.of_score_index())
    query = query.order_by((decisions.c.id + 0).desc()).limit(limit)
    return _by_scores(query) if selection.is_plain else query


def _count_by_bins(selection: Selection, kind: int, threshold: float) -> int:
    """Count of a plain filter: whole bins by their sums, the rows of one bin, and less what lies outside the times."""
    place = score_bin(threshold)
    is_beyond = score_counts.c.bin > place if kind == ACCEPTED else score_counts.c.bin < place
    streams = {part.stream for part in selection.parts}
    whole = select(func.sum(score_counts.c["count"])).where(
        score_counts.c.kind == kind,
        score_counts.c.stream.in_(streams),
        is_beyond,
        *selection.of_hours(score_counts),
    )
    found = int(selection.connection.execute(whole).scalar() or 0)

    low, high = lower_edge(place), lower_edge(place + 1)
    of_kind = _kind(kind)
    if kind == ACCEPTED:
        of_bin = [decisions.c.score > threshold, decisions.c.score < high]
        of_others = decisions.c.score + 0.0 >= high
    else:
        of_bin = [decisions.c.score >= low, decisions.c.score <= threshold]
        of_others = decisions.c.score + 0.0 < low
    in_bin = select(func.count()).select_from(decisions).where(*of_kind, *of_bin, *selection.of_score_index())
    found += selection.connection.execute(_by_scores(in_bin)).scalar() or 0

    for edge in selection.edges():
        bounds = select(func.min(hours.c.first_id), func.max(hours.c.last_id)).where(hours.c.hour == edge)
        first, last = selection.connection.execute(bounds).one()
        if first is not None:
            of_edge = [
                decisions.c.id.between(first, last),
                decisions.c.time.between(edge * HOUR, (edge + 1) * HOUR - 1),
                (decisions.c.stream + 0).in_(streams),
                *_kind(kind, is_indexed=False),
                of_others,
            ]
            found -= count_rows(selection.connection, [*of_edge, not_(and_(*selection.of_times()))])
    return found


def _kind(kind: int, *, is_indexed: bool = True) -> list[ColumnElement[bool]]:
    """Conditions on decisions that were accepted, or rejected by their score."""
    column = decisions.c.is_anomalous if is_indexed else decisions.c.is_anomalous + 0
    return [column == kind, *([decisions.c.other_kind.is_(None)] if kind == REJECTED else [])]


def _changes(kind: int, threshold: float) -> list[ColumnElement[bool]]:
    """Conditions under which a decision of a kind is another by a threshold."""
    return [
        *_kind(kind),
        decisions.c.score > threshold if kind == ACCEPTED else decisions.c.score <= threshold,
    ]


def _by_scores(query: Select[Any]) -> Select[Any]:
    return query.with_hint(decisions, "INDEXED BY decisions_by_score", "sqlite")
