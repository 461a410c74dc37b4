"""Database under the history: SQLite in a folder or PostgreSQL by a URL, one writer at a time, errors in words."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from platform import node
from threading import RLock
from typing import Any, TypeVar

from filelock import BaseFileLock, FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from blemish.errors import HistoryError, UsageError
from blemish.extras import explain_missing, one_line
from blemish.serve.history.schema import bring_up_to_date, newest_version, version
from blemish.storage.atomic import write_error
from blemish.storage.run_lock import holder, sign

DATABASE_FILE, LOCK_FILE = "history.sqlite3", "history.lock"
SECONDS_BUSY = 20
"""How long a writer waits for another one, such as a clean-up beside the server."""
MOST_READERS = 50
"""Connections at one time; those beyond a few are closed after use."""
_LOCK = 0x626C656D
"""Number of the advisory lock in PostgreSQL: "blem"."""

_T = TypeVar("_T")


class Database:
    """Connections to one history; thread-safe: readers beside each other, one writer at a time.

    Parameters
    ----------
    where: folder in which the SQLite file lies, that file itself, or a URL ``postgresql://…``.
    exclusive: whether to hold the history as its one server; otherwise it must exist.

    Raises
    ------
    HistoryError
        When it cannot be opened, is damaged or newer, does not exist, or another server holds it.
    """

    def __init__(self, where: str | Path, *, exclusive: bool = True) -> None:
        self.url = _url(where)
        self.file = Path(str(self.url.database)) if self.is_sqlite else None
        self.place = str(self.file) if self.file else self.url.render_as_string()
        self._write_lock = RLock()
        self._file_lock: BaseFileLock | None = None
        self._writer: Connection | None = None
        self._is_closed = False
        self._exclusive = exclusive
        if self.file is not None:
            self._prepare_folder(self.file)
        with explain_missing():
            self.engine = _engine(self.url, exclusive=exclusive)
        try:
            self._open()
        except BaseException:  # Ctrl-C while it opens must not leave the file locked, either
            self.close()
            raise

    @property
    def is_sqlite(self) -> bool:
        """Whether it is SQLite, not PostgreSQL."""
        return bool(self.url.get_backend_name() == "sqlite")

    @contextmanager
    def reading(self, *, of_one_moment: bool = False) -> Iterator[Connection]:
        """Give a connection to read by, also while others write.

        Parameters
        ----------
        of_one_moment: whether all queries see the same; in SQLite they do in any case.

        Raises
        ------
        HistoryError
            When the database cannot be read.
        """
        with self._in_words(), self.engine.connect() as connection:
            if of_one_moment and not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    def write(self, work: Callable[[Connection], _T]) -> _T:
        """Result of ``work`` done in one transaction that is durable when this returns, or not done at all.

        Raises
        ------
        HistoryError
            When it cannot be stored, as on a full disk; then nothing of it is.
        """
        with self._write_lock, self._in_words():
            connection = self._live_writer()
            try:
                with connection.begin():
                    return work(connection)
            except DBAPIError as error:
                if error.connection_invalidated:
                    self._drop_writer()
                raise

    def close(self) -> None:
        """Close all connections and give up the hold on the history."""
        with self._write_lock:
            self._is_closed = True
            self._drop_writer()
            self.engine.dispose()
            if self._file_lock is not None:
                self._file_lock.release()

    def _prepare_folder(self, file: Path) -> None:
        if not self._exclusive:
            if not file.is_file():
                raise HistoryError(f"{file}: there is no history; name the folder that blemish serve wrote")
            return
        lock = FileLock(file.parent / LOCK_FILE, timeout=0, thread_local=False)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise HistoryError(
                f"{file.parent}: its history is in use by {holder(Path(lock.lock_file))}; stop that server, or "
                "choose another --home"
            ) from None
        except OSError as error:
            raise HistoryError(str(write_error(file.parent, error))) from None
        sign(Path(lock.lock_file))
        self._file_lock = lock

    def _open(self) -> None:
        with self._in_words():
            with self.engine.connect() as connection:
                found = version(connection)
            if found is None and not self._exclusive:
                raise HistoryError(f"{self.place}: there is no history; name one that blemish serve wrote")
            if found != newest_version():
                if not self._exclusive:
                    # Only the one server may change the tables; where there is none this is it for the moment.
                    Database(self.url.render_as_string(hide_password=False)).close()
                self.write(lambda writer: bring_up_to_date(writer, self.place))
            elif self._exclusive:
                self.write(lambda _: None)

    def _live_writer(self) -> Connection:
        if self._writer is not None and not self.is_sqlite:
            # The lock is the connection's: with a restart of PostgreSQL both are gone, and both are had anew.
            try:
                self._writer.execute(text("SELECT 1"))
                self._writer.rollback()
            except DBAPIError:
                self._drop_writer()
        if self._writer is None:
            writer = self.engine.connect().execution_options(history_writer=True)
            if self._exclusive and not self.is_sqlite:
                self._hold(writer)
            self._writer = writer
        return self._writer

    def _hold(self, writer: Connection) -> None:
        key = {"key": _LOCK}
        place = "classid = :key AND objid::bigint = hashtext(current_schema())::bit(32)::bigint"
        held = writer.execute(
            text("SELECT pg_try_advisory_lock(:key, hashtext(current_schema()))"), key
        ).scalar()
        if held:
            writer.commit()
            return
        who = writer.execute(
            text(
                "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) "
                f"WHERE locktype = 'advisory' AND granted AND {place}"
            ),
            key,
        ).scalar()
        writer.close()
        raise HistoryError(
            f"{self.place}: this history is in use by {who or 'another server'}; stop that server, or choose "
            "another database"
        )

    def _drop_writer(self) -> None:
        if self._writer is not None:
            with suppress(DBAPIError):
                self._writer.invalidate()  # closes the connection itself, and with it the lock of PostgreSQL
            with suppress(DBAPIError):
                self._writer.close()
            self._writer = None

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        if self._is_closed:
            raise HistoryError(f"{self.place}: the history is closed; open it again")
        try:
            yield
        except NoConnectionError:
            raise HistoryError(
                f"{self.place}: {MOST_READERS} readers are at work already; try again"
            ) from None
        except (IntegrityError, ProgrammingError, DataError):
            raise  # a fault of the program, not of the database
        except DBAPIError as error:
            raise HistoryError(f"{self.place}: {_words(error)}") from error


def _url(where: str | Path) -> URL:
    if isinstance(where, str) and "://" in where:
        try:
            url = make_url(where)
        except (ArgumentError, ValueError):
            raise UsageError(
                "the URL of the history is none; write postgresql://USER@HOST/DATABASE"
            ) from None
        backend = url.get_backend_name()
        if backend in ("postgresql", "postgres"):
            return url.set(drivername="postgresql+psycopg")
        if backend == "sqlite" and url.database:
            return url
        raise UsageError(f"a history is kept in a folder or by postgresql://…, not by {backend}://…")
    path = Path(where)
    file = path if path.suffix == ".sqlite3" or path.is_file() else path / DATABASE_FILE
    return URL.create("sqlite", database=str(file))


_POOL: dict[str, Any] = {"pool_size": 5, "max_overflow": MOST_READERS - 5, "pool_timeout": 30}


def _engine(url: URL, *, exclusive: bool) -> Engine:
    if url.get_backend_name() == "postgresql":
        name = f"{Path(sys.argv[0]).name} (process {os.getpid()} on {node()})"
        return create_engine(
            url,
            pool_pre_ping=True,
            **_POOL,
            connect_args={"application_name": name[:60], "connect_timeout": 10},
        )
    engine = create_engine(url, connect_args={"timeout": SECONDS_BUSY, "check_same_thread": False}, **_POOL)
    event.listen(engine, "connect", _set_up_sqlite)
    if exclusive:
        # Not beside a server, which has set it, nor for a backup, which stays one file.
        event.listen(engine, "connect", _keep_a_journal)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver's own idea of transactions leaves out reads
    cursor = connection.cursor()
    for setting in (
        "synchronous = FULL",  # a commit is on the disk when it returns, also when the power fails
        "foreign_keys = ON",
        "temp_store = MEMORY",
        "cache_size = -8192",
        "journal_size_limit = 67108864",
    ):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _keep_a_journal(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("history_writer", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _words(error: DBAPIError) -> str:
    """Problem and remedy of an error of the database."""
    found = one_line(error.orig if isinstance(error.orig, Exception) else error)
    for sign_of, words in _SQLITE_WORDS.items():
        if sign_of in found:
            return words
    return f"the database answers: {found}; check that it runs and that it may be written"


_SQLITE_WORDS = {
    "disk is full": "the disk is full, so nothing more is stored; free some space (blemish history prune removes old "
    "images), then go on",
    "malformed": "the history is damaged; restore a backup (blemish history restore), or move the file away",
    "not a database": "is no history, or is damaged; restore a backup (blemish history restore), or move the file away",
    "disk I/O error": "the disk gives errors; free some space and check the disk, then start again",
    "database is locked": "another program holds the history; close it, then try again",
    "readonly database": "no permission to write the history; change its permissions, or choose another --home",
    "unable to open": "cannot be opened; check the path and its permissions",
    "No space left": "the disk of the database is full, so nothing more is stored; free some space, then go on",
}
