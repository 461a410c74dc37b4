"""Outbox of the history: decisions that sinks still owe, kept until they have arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias

from sqlalchemy import Connection, and_, delete, func, insert, select, update

from blemish.errors import printable
from blemish.serve.contracts import NewDecision
from blemish.serve.history.rows import HOUR, from_microseconds, to_microseconds
from blemish.serve.history.tables import deliveries, outbox

Wish = Literal["all", "rejected"]
"""Decisions that a sink wants."""
Wishes: TypeAlias = Mapping[str, Wish] | Callable[[NewDecision], Mapping[str, Wish]]
"""Sinks with what they want, the same for all decisions, or by the decision, as of sinks of some sources alone."""
LONGEST_WAIT = HOUR
"""Microseconds until the next attempt, at most; a longer one is due, for then the clock was put back."""


class OutboxState(NamedTuple):
    """What one sink owes, for the page."""

    sink: str
    owed: int
    attempts: int
    """Attempts to deliver the first that it owes."""
    next_try: datetime
    error: str | None
    """Why the first has not arrived, if it was tried."""


class Owed(NamedTuple):
    """Row of the outbox."""

    id: int
    decision: int
    attempts: int


def enter(
    connection: Connection,
    stored: Iterable[tuple[int, NewDecision]],
    sinks: Wishes,
    now: datetime,
) -> None:
    """Note new decisions, by their number, for the sinks that want them."""
    rows = [
        {"sink": sink, "decision": number, "attempts": 0, "next_try": to_microseconds(now)}
        for number, decision in stored
        for sink, wish in (sinks(decision) if callable(sinks) else sinks).items()
        if wish == "all" or decision.is_anomalous
    ]
    if rows:
        connection.execute(insert(outbox), rows)


def first_due(connection: Connection, sink: str, now: datetime, limit: int) -> list[Owed]:
    """The first rows of a sink, in order, up to one that is to wait."""
    query = select(outbox).where(outbox.c.sink == sink).order_by(outbox.c.decision).limit(limit)
    found, time = [], to_microseconds(now)
    for row in connection.execute(query).mappings():
        if time < row["next_try"] <= time + LONGEST_WAIT:
            break
        found.append(Owed(row["id"], row["decision"], row["attempts"]))
    return found


def note_delivered(connection: Connection, numbers: Sequence[int], now: datetime) -> None:
    """Move rows from the outbox to the deliveries; those that were moved before are passed over."""
    columns = outbox.c.id, outbox.c.sink, outbox.c.decision, outbox.c.attempts
    rows = connection.execute(select(*columns).where(outbox.c.id.in_(numbers))).mappings().all()
    if rows:
        moved = [{**row, "attempts": row["attempts"] + 1, "time": to_microseconds(now)} for row in rows]
        connection.execute(insert(deliveries), moved)
        connection.execute(delete(outbox).where(outbox.c.id.in_(numbers)))


def note_failed(connection: Connection, number: int, error: str, next_try: datetime, now: datetime) -> None:
    """Note an attempt that failed, and when the next may be made."""
    time = min(to_microseconds(next_try), to_microseconds(now) + LONGEST_WAIT)
    connection.execute(
        update(outbox)
        .where(outbox.c.id == number)
        .values(attempts=outbox.c.attempts + 1, error=printable(error), next_try=time)
    )


def states(connection: Connection) -> list[OutboxState]:
    """What each sink owes, by its name."""
    first = select(outbox.c.sink, func.count().label("owed"), func.min(outbox.c.decision).label("first"))
    grouped = first.group_by(outbox.c.sink).subquery()
    query = (
        select(grouped.c.sink, grouped.c.owed, outbox.c.attempts, outbox.c.next_try, outbox.c.error)
        .join(outbox, and_(outbox.c.sink == grouped.c.sink, outbox.c.decision == grouped.c.first))
        .order_by(grouped.c.sink)
    )
    return [
        OutboxState(sink, owed, attempts, from_microseconds(next_try), error)
        for sink, owed, attempts, next_try, error in connection.execute(query)
    ]


def forget_first(connection: Connection, sink: str) -> int | None:
    """Remove the first decision that a sink owes; its number, None where it owes nothing."""
    first = select(func.min(outbox.c.decision)).where(outbox.c.sink == sink)
    number = connection.execute(first).scalar()
    if number is not None:
        connection.execute(delete(outbox).where(outbox.c.sink == sink, outbox.c.decision == number))
    return number


def forget(connection: Connection, sink: str) -> int:
    """Remove what a sink owes, as of one that is no longer on the line; how many decisions that were."""
    return connection.execute(delete(outbox).where(outbox.c.sink == sink)).rowcount
