"""Selections of decisions: which are meant, and the queries that find them quickly among millions.

Model and source are settled by the streams that have them, times by the hours between them, so that what is left to the
rows is a range of numbers and little more. SQLite merges no ranges of an index by itself; a page is therefore the newest
of the newest few of each stream.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from sqlalchemy import ColumnElement, Connection, Select, Table, func, literal_column, select, table

from blemish.serve.history.rows import HOUR, Stream, to_microseconds
from blemish.serve.history.tables import decisions, hours, verdicts

FEW = 4000
"""Rows that are sorted in passing; more of them lie so dense that the newest are found by going back."""
SHORTEST_INDEXED = 3
"""Letters of a text that the index of names finds."""
_names = table("decision_names")


class HistoryFilter(BaseModel):
    """Decisions that are meant: those for which everything given holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    model_sha256: str | None = None
    source: str | None = None
    since: datetime | None = None
    """From this time on; without a zone, in UTC."""
    until: datetime | None = None
    """Before this time."""
    is_anomalous: bool | None = None
    verdict: Literal["none", "right", "wrong"] | None = None
    """By the newest verdict."""
    text: str | None = Field(default=None, max_length=200)
    """Part of the image's name, with letters from a to z in any case."""
    least_score: FiniteFloat | None = None
    most_score: FiniteFloat | None = None


class Selection:
    """Decisions of a filter, as one connection sees them.

    Parameters
    ----------
    known: all streams, by their number.
    """

    def __init__(self, connection: Connection, wanted: HistoryFilter, known: dict[int, Stream]) -> None:
        self.connection = connection
        self.wanted = wanted
        self.streams = tuple(number for number, stream in known.items() if _fits(wanted, stream))
        self.is_of_all_streams = len(self.streams) == len(known)
        self.is_sqlite = connection.dialect.name == "sqlite"
        self.parts = self._parts()
        self._rare = self._rare_conditions()

    @property
    def first(self) -> int:
        """Least number that a decision of the filter may have; 0 where there is none."""
        return min((part.first for part in self.parts), default=0)

    @property
    def last(self) -> int:
        """Largest number that a decision of the filter may have; −1 where there is none."""
        return max((part.last for part in self.parts), default=-1)

    @property
    def is_plain(self) -> bool:
        """Whether the filter is of models, sources, decisions and times alone."""
        wanted = self.wanted
        return (wanted.verdict, wanted.text or None, wanted.least_score, wanted.most_score) == (None,) * 4

    @property
    def is_rare(self) -> bool:
        """Whether the filter means few decisions, which an index leads to."""
        return bool(self._rare)

    def of_rows(self) -> list[ColumnElement[bool]]:
        """Conditions on a row within a part of :attr:`parts`."""
        wanted, found = self.wanted, [*self._rare, *self.of_times()]
        # A sum is no column: SQLite would take the index of scores, and sort what it finds there.
        if wanted.least_score is not None:
            found.append(decisions.c.score + 0.0 >= wanted.least_score)
        if wanted.most_score is not None:
            found.append(decisions.c.score + 0.0 <= wanted.most_score)
        if wanted.text:
            pattern = _pattern(wanted.text)
            name = decisions.c.name  # SQLite compares without case of itself
            found.append(
                name.like(pattern, escape="\\") if self.is_sqlite else name.ilike(pattern, escape="\\")
            )
        if wanted.verdict == "none":
            found.append(~select(verdicts.c.id).where(verdicts.c.decision == decisions.c.id).exists())
        return found

    def of_all(self, least: int = 0, most: int | None = None) -> list[ColumnElement[bool]]:
        """Conditions on any row whose number lies from ``least`` to ``most``."""
        # One range alone: of two that overlap SQLite takes either, and passes the rows of the other one by one.
        last = self.last if most is None else min(self.last, most)
        found = [decisions.c.id.between(max(self.first, least), last), *self.of_rows()]
        if not self.is_of_all_streams:
            found.append((decisions.c.stream + 0).in_(self.streams))
        if self.wanted.is_anomalous is not None:
            found.append(decisions.c.is_anomalous + 0 == int(self.wanted.is_anomalous))
        return found

    @property
    def is_of_scores(self) -> bool:
        """Whether the index by scores holds all that the filter asks for."""
        return self.wanted.verdict is None and not self.wanted.text

    def by_score(self) -> Select[Any]:
        """Numbers of the decisions of a filter for which :attr:`is_of_scores` holds, by the index by scores."""
        query = self._by_score().where(*self.of_times())
        if not self.is_of_all_streams:
            query = query.where(decisions.c.stream.in_(self.streams))
        return query.with_hint(decisions, "INDEXED BY decisions_by_score", "sqlite")

    def of_score_index(self) -> list[ColumnElement[bool]]:
        """Conditions on any row that the index by scores answers, and further ones of a filter that is not plain."""
        found = self.of_rows()
        if not self.is_of_all_streams:
            found.append(decisions.c.stream.in_(self.streams))
        return found

    def of_times(self) -> list[ColumnElement[bool]]:
        """Conditions on the time of a row."""
        wanted, found = self.wanted, list[ColumnElement[bool]]()
        if wanted.since is not None:
            found.append(decisions.c.time >= to_microseconds(wanted.since))
        if wanted.until is not None:
            found.append(decisions.c.time < to_microseconds(wanted.until))
        return found

    def edges(self) -> set[int]:
        """Hours within which the times of the filter begin or end."""
        times = (self.wanted.since, self.wanted.until)
        found = (to_microseconds(time) for time in times if time is not None)
        return {time // HOUR for time in found if time % HOUR}

    def of_hours(self, sums: Table = hours) -> list[ColumnElement[bool]]:
        """Conditions on an hour of a table of sums that has decisions of the filter's times."""
        wanted, found = self.wanted, list[ColumnElement[bool]]()
        if wanted.since is not None:
            found.append(sums.c.hour >= to_microseconds(wanted.since) // HOUR)
        if wanted.until is not None:
            found.append(sums.c.hour <= (to_microseconds(wanted.until) - 1) // HOUR)
        return found

    def without_verdict(self) -> HistoryFilter:
        """The filter, whatever the verdict."""
        return self.wanted.model_copy(update={"verdict": None})

    def _parts(self) -> list[StreamPart]:
        wanted = self.wanted
        query = select(
            hours.c.stream,
            hours.c.is_anomalous,
            func.sum(hours.c["count"]),
            func.min(hours.c.first_id),
            func.max(hours.c.last_id),
        ).group_by(hours.c.stream, hours.c.is_anomalous)
        query = query.where(*self.of_hours())
        if not self.is_of_all_streams:
            query = query.where(hours.c.stream.in_(self.streams))
        if wanted.is_anomalous is not None:
            query = query.where(hours.c.is_anomalous == int(wanted.is_anomalous))
        return [
            StreamPart(stream, bad, int(count), *ends)
            for stream, bad, count, *ends in self.connection.execute(query)
        ]

    def _rare_conditions(self) -> list[ColumnElement[bool]]:
        wanted, found = self.wanted, list[ColumnElement[bool]]()
        if wanted.verdict in ("right", "wrong"):
            found.append(decisions.c.id.in_(judged(is_right=wanted.verdict == "right")))
        candidates = []
        if wanted.least_score is not None or wanted.most_score is not None:
            candidates.append(self._by_score())
        if (
            wanted.text
            and self.is_sqlite
            and len(wanted.text) >= SHORTEST_INDEXED
            and has_names(self.connection)
        ):
            # The index is used for patterns without an escape alone, so it finds a little too much.
            rough = "%" + wanted.text.replace("%", "_") + "%"
            candidates.append(
                select(literal_column("rowid")).select_from(_names).where(literal_column("name").like(rough))
            )
        found.extend(decisions.c.id.in_(query) for query in candidates if self._finds_few(query))
        return found

    def _by_score(self) -> Select[Any]:
        wanted = self.wanted
        kinds = (0, 1) if wanted.is_anomalous is None else (int(wanted.is_anomalous),)
        query = select(decisions.c.id).where(decisions.c.is_anomalous.in_(kinds))
        if wanted.least_score is not None:
            query = query.where(decisions.c.score >= wanted.least_score)
        if wanted.most_score is not None:
            query = query.where(decisions.c.score <= wanted.most_score)
        return query

    def _finds_few(self, query: Select[Any]) -> bool:
        some = query.limit(FEW + 1).subquery()
        return (self.connection.execute(select(func.count()).select_from(some)).scalar() or 0) <= FEW


class StreamPart(NamedTuple):
    """Decisions of one stream, all rejected or all accepted, in the hours of a filter."""

    stream: int
    is_anomalous: int
    many: int
    first: int
    """Their least number."""
    last: int

    def of_stream(self) -> list[ColumnElement[bool]]:
        """Conditions of which the index by streams gives the rows in the order of their numbers."""
        return [decisions.c.stream == self.stream, decisions.c.is_anomalous == self.is_anomalous]

    def numbers(self, most: int | None = None) -> ColumnElement[bool]:
        """Range of the numbers, up to ``most``."""
        return decisions.c.id.between(self.first, self.last if most is None else min(self.last, most))


def judged(*, is_right: bool | None = None) -> Select[Any]:
    """Query of the decisions with a verdict, or with a newest verdict that says so."""
    if is_right is None:
        return select(verdicts.c.decision).distinct()
    newer = verdicts.alias("newer")
    is_old = select(newer.c.id).where(newer.c.decision == verdicts.c.decision, newer.c.id > verdicts.c.id)
    return select(verdicts.c.decision).where(verdicts.c.is_right == is_right, ~is_old.exists())


def has_names(connection: Connection) -> bool:
    """Whether this SQLite has the index of names."""
    found = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'decision_names'")
    return found.first() is not None


def _fits(wanted: HistoryFilter, stream: Stream) -> bool:
    pairs = (
        (wanted.model, stream.model),
        (wanted.model_sha256, stream.model_sha256),
        (wanted.source, stream.source),
    )
    return all(asked in (None, given) for asked, given in pairs)


def _pattern(text: str) -> str:
    for special in ("\\", "%", "_"):
        text = text.replace(special, f"\\{special}")
    return f"%{text}%"
