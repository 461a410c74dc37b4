"""The outbox: owed in order, at least once, until it has arrived."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from blemish.serve.contracts import utc_now
from blemish.serve.history import History
from blemish.serve.history.tables import deliveries
from tests.serve.history.made import many


def test_sinks_are_owed_what_they_want_in_order(tmp_path: Path) -> None:
    with History.open(tmp_path) as history:
        history.add(many(10), {"hook": "all", "rejects": "rejected"})
        assert [one.decision.id for one in history.due("hook")] == list(range(1, 11))
        assert [one.decision.id for one in history.due("rejects")] == [5, 10]
        assert [one.decision.id for one in history.due("hook", limit=3)] == [1, 2, 3]
        assert history.due("other") == []
        assert [(state.sink, state.owed, state.error) for state in history.owed()] == [
            ("hook", 10, None),
            ("rejects", 2, None),
        ]


def test_what_has_arrived_is_owed_no_more_and_recorded(tmp_path: Path) -> None:
    with History.open(tmp_path) as history:
        history.add(many(3), {"hook": "all"})
        first, second, third = history.due("hook")
        history.delivered(first.id, second.id)
        history.delivered(first.id)
    with History.open(tmp_path) as history:
        assert history.due("hook") == [third]
        with history.database.reading() as connection:
            rows = connection.execute(select(deliveries.c.decision, deliveries.c.attempts)).all()
        assert [tuple(row) for row in rows] == [(1, 1), (2, 1)]


def test_a_failure_holds_up_those_behind_it_until_its_next_try(tmp_path: Path) -> None:
    with History.open(tmp_path) as history:
        history.add(many(3), {"hook": "all"})
        now = utc_now()
        first = history.due("hook", now)[0]
        history.failed(first.id, "no answer\nat all", now + timedelta(minutes=1), now)
        assert history.due("hook", now + timedelta(seconds=59)) == []
        again = history.due("hook", now + timedelta(seconds=60))
        assert [(one.decision.id, one.attempts) for one in again] == [(1, 1), (2, 0), (3, 0)]
        [state] = history.owed()
        assert (state.owed, state.attempts, state.error) == (3, 1, "no answer\\nat all")


@pytest.mark.parametrize("jump", [timedelta(days=-30), timedelta(days=30)])
def test_a_clock_that_jumps_does_not_hold_up_deliveries(tmp_path: Path, jump: timedelta) -> None:
    with History.open(tmp_path) as history:
        history.add(many(1), {"hook": "all"})
        now = utc_now()
        history.failed(history.due("hook")[0].id, "no answer", now + timedelta(days=2), now)
        assert history.due("hook", now + timedelta(minutes=59)) == []  # an hour at most
        assert len(history.due("hook", now + jump)) == 1


def test_a_sink_that_is_gone_can_be_forgotten(tmp_path: Path) -> None:
    with History.open(tmp_path) as history:
        history.add(many(5), {"gone": "all", "hook": "all"})
        assert history.forget_sink("gone") == 5
        assert [state.sink for state in history.owed()] == ["hook"]
