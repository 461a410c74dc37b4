"""Sums of the decisions of each hour, kept in step with the rows: counts, bounds of the numbers, scores by bins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

from sqlalchemy import Connection, Executable, Table, bindparam, delete, update
from sqlalchemy.dialects import postgresql, sqlite

from blemish.serve.history.rows import HOUR, Row
from blemish.serve.history.score_bins import score_bin
from blemish.serve.history.tables import hours, score_counts

ACCEPTED, REJECTED, OTHER_KIND = 0, 1, 2
"""Kinds of decisions in the counts of scores; images of another kind are rejected whatever they score."""

_Sums = dict[tuple[int, ...], dict[str, Any]]


def add_up(connection: Connection, rows: Iterable[Row]) -> None:
    """Take new rows of the table of decisions into the sums."""
    of_hours, of_scores = _sums(rows)
    _upsert(connection, hours, of_hours, ("hour", "stream", "is_anomalous"), ("count", "score_sum"))
    _upsert(connection, score_counts, of_scores, ("hour", "stream", "kind", "bin"), ("count",))


def take_out(connection: Connection, rows: Iterable[Row]) -> None:
    """Take rows that are removed out of the sums; bounds of the numbers stay, and hold all that is left."""
    of_hours, of_scores = _sums(rows)
    _subtract(connection, hours, of_hours, ("hour", "stream", "is_anomalous"), ("count", "score_sum"))
    _subtract(connection, score_counts, of_scores, ("hour", "stream", "kind", "bin"), ("count",))


def _sums(rows: Iterable[Row]) -> tuple[_Sums, _Sums]:
    of_hours: _Sums = {}
    of_scores: _Sums = defaultdict(lambda: {"count": 0})
    for row in rows:
        hour, stream, bad = row["time"] // HOUR, row["stream"], row["is_anomalous"]
        kind = ACCEPTED if not bad else REJECTED if row["other_kind"] is None else OTHER_KIND
        new = {"count": 0, "score_sum": 0.0, "first_id": row["id"], "last_id": row["id"]}
        sums = of_hours.setdefault((hour, stream, bad), new)
        sums["count"] += 1
        sums["score_sum"] += row["score"]
        sums["last_id"] = max(sums["last_id"], row["id"])
        of_scores[hour, stream, kind, score_bin(row["score"])]["count"] += 1
    return of_hours, of_scores


def _upsert(
    connection: Connection, table: Table, sums: _Sums, key: tuple[str, ...], added: tuple[str, ...]
) -> None:
    connection.execute(
        _adding(table, connection.dialect.name, key, added),
        [{**dict(zip(key, place, strict=True)), **values} for place, values in sums.items()],
    )


@cache
def _adding(table: Table, dialect: str, key: tuple[str, ...], added: tuple[str, ...]) -> Executable:
    """Statement that adds to a row, or makes it; made once, as it takes longer than its execution."""
    new = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    changes = {name: table.c[name] + new.excluded[name] for name in added}
    if "last_id" in table.c:
        changes["last_id"] = new.excluded.last_id
    adding: Executable = new.on_conflict_do_update(index_elements=key, set_=changes)
    return adding


def _subtract(
    connection: Connection, table: Table, sums: _Sums, key: tuple[str, ...], added: tuple[str, ...]
) -> None:
    of_key = [table.c[name] == bindparam(f"its_{name}") for name in key]
    changes = {name: table.c[name] - bindparam(f"less_{name}") for name in added}
    places = [{f"its_{name}": value for name, value in zip(key, place, strict=True)} for place in sums]
    less = [{f"less_{name}": values[name] for name in added} for values in sums.values()]
    if places:
        connection.execute(
            update(table).where(*of_key).values(changes),
            [{**place, **values} for place, values in zip(places, less, strict=True)],
        )
        connection.execute(delete(table).where(*of_key, table.c["count"] == 0), places)
