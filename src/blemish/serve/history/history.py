"""The history of decisions: what was decided, what operators say of it, and what sinks still owe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, func, insert, select, update

from blemish.errors import DecisionNotFoundError, printable
from blemish.serve.contracts import Delivery, NewDecision, NewVerdict, StoredDecision, Verdict, utc_now
from blemish.serve.history import outbox, views
from blemish.serve.history.database import Database
from blemish.serve.history.rows import (
    Stream,
    decision_row,
    image_key,
    stored_decision,
    stream_of,
    verdict_of,
    verdict_row,
)
from blemish.serve.history.selection import HistoryFilter, Selection
from blemish.serve.history.sums import add_up
from blemish.serve.history.tables import counters, decisions, kept_images, streams, verdicts
from blemish.serve.history.views import HourSum, ScorePoint, Tally, in_chunks
from blemish.serve.history.what_if import WhatIf, changed

EVERYTHING = HistoryFilter()


class History:
    """History of decisions in SQLite or PostgreSQL; thread-safe, durable, in the order of storage.

    Use :meth:`open`, and close it at the end; it is its own context manager.

    Parameters
    ----------
    database: an open one.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._streams: dict[int, Stream] = {}

    @classmethod
    def open(cls, where: str | Path, *, exclusive: bool = True) -> History:
        """Open a history, or make it where there is none.

        Parameters
        ----------
        where: folder of the SQLite file, that file, or a URL ``postgresql://USER@HOST/DATABASE``.
        exclusive: whether to be its one server. Programs that read, export or remove old images beside a server say
            False; for them it must exist.

        Raises
        ------
        HistoryError
            When it cannot be opened, is damaged, is of a newer version of Blemish, or another server has it.
        MissingExtraError
            When the driver of PostgreSQL is not installed.
        """
        return cls(Database(where, exclusive=exclusive))

    def close(self) -> None:
        """Close the history, so that another server may open it."""
        self.database.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, new: Sequence[NewDecision], sinks: outbox.Wishes | None = None) -> list[StoredDecision]:
        """Store decisions, durably when this returns, and what sinks owe of them; all or none.

        A decision whose ``request`` is in the history already is not stored again: the first is returned.

        Parameters
        ----------
        sinks: names of sinks, each with the decisions that it wants; or what gives them for a decision.

        Raises
        ------
        HistoryError
            When they cannot be stored; then none is, and it may be tried again.
        """
        if not new:
            return []
        numbers, found = self.database.write(lambda connection: self._add(connection, new, sinks or {}))
        former = sorted({number for number in numbers if number not in found})
        if former:
            with self.database.reading() as connection:
                found |= self._load(connection, former)
        return [found[number] for number in numbers]

    def decision(self, number: int) -> StoredDecision:
        """One decision.

        Raises
        ------
        DecisionNotFoundError
            When there is none of this number.
        """
        with self.database.reading() as connection:
            found = self._load(connection, [number])
        if number not in found:
            raise _not_found(number)
        return found[number]

    def page(
        self, wanted: HistoryFilter = EVERYTHING, before: int | None = None, limit: int = 50
    ) -> list[StoredDecision]:
        """The newest decisions of a filter whose numbers are below ``before``, the newest first."""
        with self.database.reading() as connection:
            numbers = views.newest(self._select(connection, wanted), before, limit)
            found = self._load(connection, numbers)
        return [found[number] for number in numbers if number in found]

    def all(self, wanted: HistoryFilter = EVERYTHING, *, at_once: int = 500) -> Iterator[StoredDecision]:
        """Every decision of a filter that is there when this begins, the oldest first; ``at_once`` are in memory."""
        with self.database.reading() as connection:
            last = self._select(connection, wanted).last
        after = -1
        while True:
            with self.database.reading() as connection:
                numbers = views.oldest(self._select(connection, wanted), after, at_once)
                found = self._load(connection, [number for number in numbers if number <= last])
            yield from (found[number] for number in numbers if number in found)
            if len(numbers) < at_once or numbers[-1] >= last:
                return
            after = numbers[-1]

    def count(self, wanted: HistoryFilter = EVERYTHING, *, at_most: int | None = None) -> int:
        """How many decisions there are.

        Parameters
        ----------
        at_most: the count ends here. Of a text or a score that many decisions have, counting all takes long.
        """
        with self.database.reading() as connection:
            selection = self._select(connection, wanted)
            all_verdicts = self._select(connection, selection.without_verdict())
            return views.count(selection, all_verdicts, at_most)

    def scores(self, wanted: HistoryFilter = EVERYTHING, points: int = 1000) -> list[ScorePoint]:
        """At most ``points`` decisions for a chart, the oldest first, rejected and accepted ones evenly thinned.

        Rejected ones take up to half of the points, so that few among many stay visible.
        """
        with self.database.reading() as connection:
            return views.scores(self._select(connection, wanted), points)

    def hourly(self, wanted: HistoryFilter = EVERYTHING) -> list[HourSum]:
        """Counts and mean scores of each hour, in the order of time, of a filter of models, sources, kinds and times.

        Hours are whole ones of UTC, also where the filter begins or ends within one.
        """
        with self.database.reading() as connection:
            return views.hourly(self._select(connection, wanted), self._known(connection))

    def tallies(self, wanted: HistoryFilter = EVERYTHING) -> list[Tally]:
        """Counts by model, source, threshold and kind; takes seconds for a million decisions."""
        with self.database.reading() as connection:
            return views.tallies(self._select(connection, wanted), self._known(connection))

    def what_if(self, wanted: HistoryFilter, threshold: float, limit: int = 50) -> WhatIf:
        """What ``threshold`` would have decided, with the newest ``limit`` decisions that would have been others."""
        with self.database.reading() as connection:
            selection = self._select(connection, wanted)
            newly_rejected, newly_accepted, numbers = changed(selection, threshold, limit)
            shown = self._load(connection, numbers)
            counts = {kind: self._count_kind(connection, wanted, kind) for kind in (False, True)}
        return WhatIf(
            threshold=threshold,
            decisions=counts[False] + counts[True],
            rejected=counts[True],
            newly_rejected=newly_rejected,
            newly_accepted=newly_accepted,
            changed=tuple(shown[number] for number in numbers if number in shown),
        )

    def add_verdict(self, number: int, verdict: NewVerdict, now: datetime | None = None) -> Verdict:
        """Store a verdict on a decision; earlier ones stay, the newest counts.

        Raises
        ------
        DecisionNotFoundError
            When there is no such decision.
        HistoryError
            When it cannot be stored.
        """
        row = verdict_row(number, verdict, now or utc_now())

        def store(connection: Connection) -> int | None:
            if connection.execute(select(decisions.c.id).where(decisions.c.id == number)).first() is None:
                return None
            return int(connection.execute(insert(verdicts).returning(verdicts.c.id), row).scalar_one())

        stored = self.database.write(store)
        if stored is None:
            raise _not_found(number)
        return verdict_of({**row, "id": stored})

    def verdicts(self, number: int) -> list[Verdict]:
        """All verdicts on a decision, the oldest first.

        Raises
        ------
        DecisionNotFoundError
            When there is no such decision.
        """
        self.decision(number)
        query = select(verdicts).where(verdicts.c.decision == number).order_by(verdicts.c.id)
        with self.database.reading() as connection:
            return [verdict_of(row) for row in connection.execute(query).mappings()]

    def due(self, sink: str, now: datetime | None = None, limit: int = 100) -> list[Delivery]:
        """The first decisions that a sink owes, in order; none behind one that is to wait for its next attempt."""
        with self.database.reading() as connection:
            owed = outbox.first_due(connection, sink, now or utc_now(), limit)
            found = self._load(connection, [one.decision for one in owed])
        return [
            Delivery(id=one.id, sink=sink, decision=found[one.decision], attempts=one.attempts)
            for one in owed
            if one.decision in found
        ]

    def delivered(self, *deliveries: int, now: datetime | None = None) -> None:
        """Note that deliveries have arrived; noting it again changes nothing."""
        time = now or utc_now()
        self.database.write(lambda connection: outbox.note_delivered(connection, deliveries, time))

    def failed(self, delivery: int, error: str, next_try: datetime, now: datetime | None = None) -> None:
        """Note that a delivery did not arrive, why, and when the next attempt may be made: within an hour at most."""
        time = now or utc_now()
        self.database.write(
            lambda connection: outbox.note_failed(connection, delivery, error, next_try, time)
        )

    def owed(self) -> list[outbox.OutboxState]:
        """What each sink owes, by name; none of a sink that owes nothing."""
        with self.database.reading() as connection:
            return outbox.states(connection)

    def forget_first(self, sink: str) -> int | None:
        """Remove the first decision that a sink owes, as of one that its receiver never takes; its number, if there is one."""
        return self.database.write(lambda connection: outbox.forget_first(connection, sink))

    def forget_sink(self, sink: str) -> int:
        """Remove what a sink owes, as of one that is no longer on the line; how many decisions that were."""
        return self.database.write(lambda connection: outbox.forget(connection, sink))

    def streams(self) -> list[Stream]:
        """Models and sources that the history knows, in the order in which they came."""
        with self.database.reading() as connection:
            return list(self._known(connection).values())

    def _add(
        self, connection: Connection, new: Sequence[NewDecision], sinks: outbox.Wishes
    ) -> tuple[list[int], dict[int, StoredDecision]]:
        """Numbers of the decisions, the former one of each that is in the history already; and those that were stored."""
        requests = [printable(decision.request) for decision in new]
        known = dict[str, int]()
        for some in in_chunks(requests):
            query = select(decisions.c.request, decisions.c.id).where(decisions.c.request.in_(some))
            known.update((request, number) for request, number in connection.execute(query))
        fresh = dict[str, NewDecision]()
        for request, decision in zip(requests, new, strict=True):
            if request not in known:
                fresh.setdefault(request, decision)
        stored = dict[int, StoredDecision]()
        if fresh:
            last = _take_numbers(connection, "decisions", len(fresh))
            numbered = dict(zip(range(last - len(fresh) + 1, last + 1), fresh.values(), strict=True))
            stored = self._insert(connection, numbered)
            outbox.enter(connection, numbered.items(), sinks, utc_now())
            known.update(zip(fresh, numbered, strict=True))
        return [known[request] for request in requests], stored

    def _insert(self, connection: Connection, numbered: dict[int, NewDecision]) -> dict[int, StoredDecision]:
        of_stream = {
            stream: self._stream(connection, stream) for stream in set(map(stream_of, numbered.values()))
        }
        rows, kept, stored = [], [], dict[int, StoredDecision]()
        for number, decision in numbered.items():
            stream = stream_of(decision)
            row = decision_row(decision, number, of_stream[stream])
            files = (decision.kept_bytes, decision.until_delivered) if decision.kept else None
            rows.append(row)
            stored[number] = stored_decision(row, stream, files, None)
            if files is not None:
                key = {"decision": number, "key": image_key(decision)}
                kept.append({**key, "bytes": files[0], "until_delivered": files[1]})
        connection.execute(insert(decisions), rows)
        add_up(connection, rows)
        if kept:
            connection.execute(insert(kept_images), kept)
        return stored

    def _stream(self, connection: Connection, stream: Stream) -> int:
        # Not from memory: a transaction that was undone may have taken its streams with it.
        query = select(streams.c.id).where(
            *(streams.c[name] == value for name, value in stream._asdict().items())
        )
        found = connection.execute(query).scalar()
        if found is None:
            found = connection.execute(insert(streams).returning(streams.c.id), stream._asdict()).scalar_one()
        return int(found)

    def _known(self, connection: Connection) -> dict[int, Stream]:
        """All streams; they are few, and never changed."""
        count = connection.execute(select(func.count()).select_from(streams)).scalar() or 0
        if count != len(self._streams):
            rows = connection.execute(select(streams).order_by(streams.c.id)).mappings()
            self._streams = {
                row["id"]: Stream(row["model"], row["model_sha256"], row["source"]) for row in rows
            }
        return self._streams

    def _select(self, connection: Connection, wanted: HistoryFilter) -> Selection:
        return Selection(connection, wanted, self._known(connection))

    def _count_kind(self, connection: Connection, wanted: HistoryFilter, is_anomalous: bool) -> int:
        if wanted.is_anomalous is not None and wanted.is_anomalous != is_anomalous:
            return 0
        selection = self._select(connection, wanted.model_copy(update={"is_anomalous": is_anomalous}))
        return views.count(selection, self._select(connection, selection.without_verdict()))

    def _load(self, connection: Connection, numbers: Sequence[int]) -> dict[int, StoredDecision]:
        """Decisions by their numbers, with the newest verdict on each; those that are no longer there are left out."""
        known, found = self._known(connection), dict[int, StoredDecision]()
        for some in in_chunks(numbers):
            of_verdicts = select(verdicts).where(verdicts.c.decision.in_(some)).order_by(verdicts.c.id)
            newest = {row["decision"]: row for row in connection.execute(of_verdicts).mappings()}
            columns = kept_images.c.decision, kept_images.c.bytes, kept_images.c.until_delivered
            of_images = select(*columns).where(kept_images.c.decision.in_(some))
            kept = {
                number: (size, until_delivered)
                for number, size, until_delivered in connection.execute(of_images)
            }
            for row in connection.execute(select(decisions).where(decisions.c.id.in_(some))).mappings():
                verdict = verdict_of(newest[row["id"]]) if row["id"] in newest else None
                found[row["id"]] = stored_decision(row, known[row["stream"]], kept.get(row["id"]), verdict)
        return found


def _take_numbers(connection: Connection, name: str, count: int) -> int:
    """The last of ``count`` numbers that were never given before."""
    taken = update(counters).where(counters.c.name == name).values(last=counters.c.last + count)
    last = connection.execute(taken.returning(counters.c.last)).scalar()
    if last is None:
        connection.execute(insert(counters).values(name=name, last=count))
        last = count
    return int(last)


def _not_found(number: int) -> DecisionNotFoundError:
    return DecisionNotFoundError(f"there is no decision {number} in the history")
