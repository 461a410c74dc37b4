"""The history in a real PostgreSQL: the same answers, one server a history, and a database that is killed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from blemish.errors import HistoryError
from blemish.serve.contracts import Frame, NewVerdict
from blemish.serve.history import History, HistoryFilter, KeptImages, RetentionRule, prune
from blemish.serve.history.backup import back_up, restore
from tests.serve.history.filled import FILTERS, check_filters, check_what_if, fill
from tests.serve.history.made import BEGIN, decision, many
from tests.services import PostgreSQL

pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    made = PostgreSQL()
    try:
        yield made.start()
    finally:
        made.remove()


@pytest.fixture
def url(server: PostgreSQL) -> str:
    """URL of an empty schema of its own."""
    with History.open(server.url) as history, history.database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    return server.url


def test_views_are_those_of_a_list(url: str) -> None:
    with History.open(url) as history:
        stored = fill(history)
        assert check_filters(history, stored, FILTERS[::23]) > 8
        check_what_if(history, stored, FILTERS[::61])
        assert [point.id for point in history.scores(points=1000)] == list(range(1, 401))
        assert 60 <= len(history.scores(points=80)) <= 80


def test_decisions_are_final_stored_once_and_owed(url: str) -> None:
    with History.open(url) as history:
        history.add(many(10), {"hook": "rejected"})
        assert [one.id for one in history.add([decision(3), decision(20, name="\x00\udcff")])] == [4, 11]
        assert history.decision(11).name == "\\x00\\udcff"
        history.delivered(history.due("hook")[0].id)
        assert [one.decision.id for one in history.due("hook")] == [10]
        verdict = history.add_verdict(4, NewVerdict(is_right=False))
        assert history.decision(4).verdict == verdict
        with pytest.raises(Exception, match="never changed"):
            history.database.write(
                lambda connection: connection.execute(text("UPDATE decisions SET score = 0"))
            )


def test_a_second_server_is_refused_and_the_first_named(url: str) -> None:
    with History.open(url) as history:
        with pytest.raises(HistoryError, match=r"this history is in use by .*process \d+"):
            History.open(url)
        with History.open(url, exclusive=False) as beside:
            history.add([decision(1)])
            assert beside.count() == 1
    History.open(url).close()


def test_a_database_that_is_killed_loses_nothing_and_is_had_again(server: PostgreSQL, url: str) -> None:
    with History.open(url) as history:
        stored = history.add(many(5))
        server.stop()
        with pytest.raises(HistoryError, match=r"^postgresql.*; (check that it runs|.*then go on)"):
            history.add([decision(50)])
        server.start()
        assert history.add([decision(50), decision(0)])[1] == stored[0]
        assert history.page(before=6) == stored[::-1]
        with pytest.raises(HistoryError, match="in use by"):
            History.open(url)  # the hold on the history is had again as well


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(HistoryError) as raised:
        History.open("postgresql://ana:secret@127.0.0.1:9/line")
    assert str(raised.value).startswith("postgresql+psycopg://ana:***@127.0.0.1:9/line: ")
    assert "secret" not in str(raised.value)


def test_old_decisions_go_and_the_sums_follow(url: str, tmp_path: Path) -> None:
    images = KeptImages(tmp_path)
    with History.open(url) as history:
        new = [
            one.model_copy(update={"time": BEGIN + timedelta(hours=place)})
            for place, one in enumerate(many(40))
        ]
        history.add([images.keep(Frame(b"BM", "x"), np.ones((2, 2), np.float32), one) for one in new])
        removed = prune(
            history,
            images,
            RetentionRule(image_days=5 / 24, decision_days=25 / 24),
            BEGIN + timedelta(hours=40),
        )
        assert removed.decisions == 15
        assert history.count() == len(history.page()) == 25
        assert history.count(HistoryFilter(is_anomalous=True)) == 5
        assert [one.id for one in history.page() if one.kept] == [40, 39, 38, 37, 36]


def test_a_history_moves_from_sqlite_to_postgresql_and_back(url: str, tmp_path: Path) -> None:
    with History.open(tmp_path / "home") as history:
        fill(history)
        before = history.page(limit=1000)
        history.add([decision(1000)], {"hook": "all", "mqtt": "all"})
        history.delivered(history.due("hook")[0].id)
    images = tmp_path / "images"
    back_up(tmp_path / "home", images, tmp_path / "backup")
    restore(tmp_path / "backup", url, images)
    with History.open(url) as history:
        assert history.page(before=401, limit=1000) == before
        assert history.add([decision(2000)], {"hook": "all"})[0].id == 402
        history.add_verdict(7, NewVerdict(is_right=True, note="here"))
    manifest = back_up(url, images, tmp_path / "again")
    assert manifest.decisions == 402
    restore(tmp_path / "again", tmp_path / "back", images)
    with History.open(tmp_path / "back") as history:
        assert history.page(before=7, limit=1000) == before[-6:]
        assert history.decision(7).verdict is not None
        assert [one.decision.id for one in history.due("hook")] == [402]
        history.delivered(history.due("hook")[0].id, history.due("mqtt")[0].id)
        assert history.owed() == []
