"""Schema of the history: made new, brought up to date, and refused where it is newer than this version of Blemish."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import Connection, func, insert, inspect, select
from sqlalchemy.exc import DBAPIError

from blemish import __version__
from blemish.errors import HistoryError
from blemish.serve.contracts import utc_now
from blemish.serve.history.rows import to_microseconds
from blemish.serve.history.tables import metadata, schema

MIGRATIONS: tuple[Callable[[Connection], None], ...] = ()
"""Steps from version 1 on: the first makes version 2 of version 1."""

_SQLITE = (
    """CREATE TRIGGER decisions_are_final BEFORE UPDATE ON decisions
       BEGIN SELECT RAISE(ABORT, 'a decision of the history is never changed'); END""",
    """CREATE TRIGGER verdicts_are_final BEFORE UPDATE ON verdicts
       BEGIN SELECT RAISE(ABORT, 'a verdict of the history is never changed'); END""",
)
_SQLITE_NAMES = (
    """CREATE VIRTUAL TABLE decision_names USING fts5(
       name, content='decisions', content_rowid='id', tokenize='trigram', detail='none')""",
    """CREATE TRIGGER name_of_new_decision AFTER INSERT ON decisions
       BEGIN INSERT INTO decision_names(rowid, name) VALUES (new.id, new.name); END""",
    """CREATE TRIGGER name_of_removed_decision AFTER DELETE ON decisions
       BEGIN INSERT INTO decision_names(decision_names, rowid, name) VALUES ('delete', old.id, old.name); END""",
)
"""Index of the letters of names by threes, for the search; SQLite has it from 3.34 on."""
_POSTGRESQL = (
    """CREATE FUNCTION history_is_final() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN RAISE EXCEPTION 'the history is never changed'; END $$""",
    """CREATE TRIGGER decisions_are_final BEFORE UPDATE ON decisions
       FOR EACH ROW EXECUTE FUNCTION history_is_final()""",
    """CREATE TRIGGER verdicts_are_final BEFORE UPDATE ON verdicts
       FOR EACH ROW EXECUTE FUNCTION history_is_final()""",
)
_POSTGRESQL_NAMES = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    "CREATE INDEX decisions_by_name ON decisions USING gin (name gin_trgm_ops)",
)


def newest_version() -> int:
    """Version of the schema that this version of Blemish writes."""
    return 1 + len(MIGRATIONS)


def bring_up_to_date(connection: Connection, place: str) -> None:
    """Make the tables, or bring those of an earlier version up to date, within one transaction.

    Raises
    ------
    HistoryError
        When the history is of a newer version of Blemish.
    """
    found = version(connection)
    if found is None:
        _make(connection)
    elif found > newest_version():
        raise HistoryError(
            f"{place}: was written by a newer version of Blemish (schema {found}, here {newest_version()}); "
            "update Blemish, or restore a backup made by this version"
        )
    else:
        for step in range(found, newest_version()):
            MIGRATIONS[step - 1](connection)
            _stamp(connection, step + 1)


def version(connection: Connection) -> int | None:
    """Version of the schema; None of a database without a history."""
    if not inspect(connection).has_table(schema.name):
        return None
    found: int | None = connection.execute(select(func.max(schema.c.version))).scalar()
    return found


def _make(connection: Connection) -> None:
    metadata.create_all(connection)
    is_sqlite = connection.dialect.name == "sqlite"
    for statement in _SQLITE if is_sqlite else _POSTGRESQL:
        connection.exec_driver_sql(statement)
    # The search works without the index of names as well, and reads all names then.
    with suppress(DBAPIError), connection.begin_nested():
        for statement in _SQLITE_NAMES if is_sqlite else _POSTGRESQL_NAMES:
            connection.exec_driver_sql(statement)
    _stamp(connection, newest_version())


def _stamp(connection: Connection, number: int) -> None:
    connection.execute(
        insert(schema).values(version=number, time=to_microseconds(utc_now()), written_by=__version__)
    )
