"""The database under the history when things go wrong: kills, a full disk, damage, other versions."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from blemish.errors import BlemishError, HistoryError, UsageError
from blemish.serve.contracts import NewVerdict
from blemish.serve.history import History
from blemish.serve.history import schema as schema_module
from tests.serve.history.made import decision, many

WRITER = """
import sys
from blemish.serve.history import History
from tests.serve.history.made import many
with History.open(sys.argv[1]) as history:
    begin = 0
    while True:
        stored = history.add(many(7, begin=begin), {"hook": "all"})
        print(stored[-1].id, flush=True)  # what was acknowledged
        begin += 7
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is of Unix")
def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    acknowledged = 0
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path.cwd()
        ) as process:
            assert process.stdout is not None
            for _ in range(25):
                acknowledged = max(acknowledged, int(process.stdout.readline()))
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
        acknowledged = max([acknowledged, *map(int, rest)])
        with History.open(tmp_path) as history:
            found = history.page(limit=100_000)
            # All that was acknowledged, at most the transaction under way beside it, and each whole.
            assert [one.id for one in reversed(found)] == list(range(1, len(found) + 1))
            assert acknowledged <= len(found) <= acknowledged + 7
            assert len(found) % 7 == 0
            assert history.count() == len(found)
            assert [one.decision.id for one in history.due("hook", limit=100_000)] == list(
                range(1, len(found) + 1)
            )
        with closing(sqlite3.connect(tmp_path / "history.sqlite3")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    with History.open(tmp_path) as history:
        stored = history.add(many(50), {"hook": "all"})

        def limit(connection: Connection) -> None:
            pages = connection.execute(text("PRAGMA page_count")).scalar_one()
            connection.execute(text(f"PRAGMA max_page_count = {pages + 20}"))

        history.database.write(limit)

        def fill() -> None:
            for begin in range(100, 100_000, 50):
                stored.extend(history.add(many(50, begin=begin), {"hook": "all"}))

        with pytest.raises(
            HistoryError, match=r"history\.sqlite3: the disk is full, so nothing more is stored; free"
        ):
            fill()
        assert history.page(limit=100_000) == stored[::-1]
        assert history.count() == len(history.due("hook", limit=100_000)) == len(stored)
        history.database.write(lambda connection: connection.execute(text("PRAGMA max_page_count = 100000")))
        assert history.add([decision(7_000_000)])[0].id == len(stored) + 1  # goes on once there is room


@pytest.mark.skipif(os.name == "nt", reason="limits of processes are of Unix")
def test_a_disk_that_takes_no_more_of_the_journal_loses_nothing(tmp_path: Path) -> None:
    program = f"""
import resource, signal
from blemish.errors import HistoryError
from blemish.serve.history import History
from tests.serve.history.made import many
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with History.open({str(tmp_path)!r}) as history:
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
    try:
        for begin in range(0, 100_000, 50):
            history.add(many(50, begin=begin))
            stored = begin + 50
    except HistoryError as error:
        print(error)
    print(stored, len(history.page(limit=100_000)))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    line, counts = ran.stdout.splitlines()
    assert line.startswith(f"{tmp_path / 'history.sqlite3'}: the disk ")
    stored, found = map(int, counts.split())
    assert stored == found > 0
    with History.open(tmp_path) as history:
        assert history.count() == stored


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b"no database at all, but long enough to be one" * 100,
            "is no history, or is damaged; restore a backup",
        ),
        (b"SQLite format 3\x00" + b"\xff" * 5000, "restore a backup"),
    ],
    ids=["text", "broken header"],
)
def test_a_damaged_file_is_refused_in_one_line_and_left_alone(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    file = tmp_path / "history.sqlite3"
    file.write_bytes(content)
    with pytest.raises(HistoryError, match=problem) as raised:
        History.open(tmp_path)
    assert str(raised.value).startswith(f"{file}: ")
    assert file.read_bytes() == content


def test_damage_that_shows_later_is_an_error_in_one_line(tmp_path: Path) -> None:
    with History.open(tmp_path) as history:
        history.add(many(3000))
    file = tmp_path / "history.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'decisions'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    content = bytearray(file.read_bytes())
    content[(root - 1) * size : root * size] = b"\x55" * size
    file.write_bytes(bytes(content))
    with (
        History.open(tmp_path) as history,
        pytest.raises(HistoryError, match="the history is damaged; restore"),
    ):
        history.page()


def test_a_folder_that_cannot_be_made_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match="a part of this path is a file"):
        History.open(tmp_path / "file" / "home")


def test_a_newer_history_is_refused_and_unchanged(tmp_path: Path) -> None:
    with History.open(tmp_path) as history:
        history.add([decision(1)])
        history.database.write(
            lambda connection: connection.execute(text("INSERT INTO schema_version VALUES (99, 0, '9.9')"))
        )
    for exclusive in (True, False):
        with pytest.raises(
            HistoryError, match=r"written by a newer version of Blemish \(schema 99, here 1\); update"
        ):
            History.open(tmp_path, exclusive=exclusive)


@pytest.mark.parametrize("exclusive", [True, False])
def test_an_older_history_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    with History.open(tmp_path) as history:
        stored = history.add(many(3))

    def step(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE shifts (id INTEGER PRIMARY KEY)"))

    monkeypatch.setattr(schema_module, "MIGRATIONS", (step,))
    with History.open(tmp_path, exclusive=exclusive) as history:
        assert history.page() == stored[::-1]
        with history.database.reading() as connection:
            assert schema_module.version(connection) == 2
            assert connection.execute(text("SELECT count(*) FROM shifts")).scalar() == 0
    monkeypatch.setattr(schema_module, "MIGRATIONS", ())
    with pytest.raises(HistoryError, match="schema 2, here 1"):
        History.open(tmp_path)


def test_a_step_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    History.open(tmp_path).close()

    def step(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE shifts (id INTEGER PRIMARY KEY)"))
        raise HistoryError("no room")

    monkeypatch.setattr(schema_module, "MIGRATIONS", (step,))
    with pytest.raises(HistoryError, match="no room"):
        History.open(tmp_path)
    monkeypatch.setattr(schema_module, "MIGRATIONS", ())
    with History.open(tmp_path) as history, history.database.reading() as connection:
        assert schema_module.version(connection) == 1
        tables = connection.execute(text("SELECT count(*) FROM sqlite_master WHERE name = 'shifts'"))
        assert tables.scalar() == 0


def test_a_commit_is_on_the_disk(tmp_path: Path) -> None:
    with History.open(tmp_path) as history, history.database.reading() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL


def test_threads_write_and_read_beside_each_other(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    with History.open(tmp_path) as history:

        def write(thread: int) -> None:
            try:
                for begin in range(0, 60, 3):
                    numbers = [one.id for one in history.add(many(3, begin=1000 * thread + begin))]
                    assert numbers == list(range(numbers[0], numbers[0] + 3))
                    history.add_verdict(numbers[0], NewVerdict(is_right=True))
                    assert len(history.page(limit=2)) == 2
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert [one.id for one in history.page(limit=1000)] == list(range(240, 0, -1))


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("mysql://host/line", "a history is kept in a folder or by postgresql://"),
        ("postgresql://host:port/line", "the URL of the history is none"),
        ("sqlite://", "a history is kept in a folder"),
    ],
)
def test_other_databases_are_refused(where: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        History.open(where)


def test_a_closed_history_is_not_written_behind_the_back_of_the_next_server(tmp_path: Path) -> None:
    history = History.open(tmp_path)
    history.close()
    with History.open(tmp_path) as other:
        for use in (lambda: history.add([decision(1)]), history.page):
            with pytest.raises(HistoryError, match="the history is closed; open it again"):
                use()
        assert other.count() == 0


def test_many_readers_at_once_are_served_or_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        import_module("blemish.serve.history.database"),
        "_POOL",
        {"pool_size": 1, "max_overflow": 2, "pool_timeout": 0.1},
    )
    with History.open(tmp_path) as history:
        history.add([decision(1)])  # the writer keeps one
        with history.database.reading() as first, history.database.reading() as second:
            for connection in (first, second):
                assert connection.execute(text("SELECT count(*) FROM decisions")).scalar() == 1
            with pytest.raises(HistoryError, match="readers are at work already; try again"):
                history.count()
        assert history.count() == 1


def test_a_write_beside_another_program_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("blemish.serve.history.database"), "SECONDS_BUSY", 0.2)
    with History.open(tmp_path) as history, closing(sqlite3.connect(tmp_path / "history.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(HistoryError, match="another program holds the history; close it, then try again"):
            history.add([decision(1)])
        other.rollback()
        assert history.add([decision(1)])[0].id == 1
    assert issubclass(HistoryError, BlemishError)
