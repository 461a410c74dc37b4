"""The history against a plain list of the same decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection

from blemish.decision.classes import ClassScore
from blemish.decision.regions import Region
from blemish.errors import DecisionNotFoundError, HistoryError
from blemish.serve.contracts import NewDecision, NewVerdict, Shape, StoredDecision
from blemish.serve.history import History, HistoryFilter
from tests.serve.history.filled import FILTERS, as_filter, check_filters, check_what_if, expected, fill
from tests.serve.history.made import BEGIN, decision, many


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History.open(tmp_path) as opened:
        yield opened


def test_a_decision_comes_back_as_it_was_stored(history: History) -> None:
    new = decision(
        1,
        regions=(Region(x=1, y=2, width=3, height=4, area=9, peak=0.1 + 0.2, mean=1e-300),),
        classes=(ClassScore(name="Deckel", score=1.5, threshold=1.0, is_above=True, peak=2.0),),
        other_kind="too dark",
        is_anomalous=True,
        kept=True,
        kept_bytes=123,
    )
    [stored] = history.add([new])
    assert stored == StoredDecision(id=1, **new.model_dump())
    assert history.decision(1) == stored


def test_numbers_rise_whatever_the_clock_does(history: History) -> None:
    times = [BEGIN, BEGIN - timedelta(days=400), BEGIN + timedelta(days=5), BEGIN - timedelta(hours=1)]
    stored = [history.add([decision(place, time=time)])[0] for place, time in enumerate(times)]
    assert [one.id for one in stored] == [1, 2, 3, 4]
    assert [one.time for one in stored] == times
    assert [one.id for one in history.page()] == [4, 3, 2, 1]
    # Times are searched by what the clock said.
    before = history.page(HistoryFilter(until=BEGIN))
    assert [one.id for one in before] == [4, 2]
    assert history.count(HistoryFilter(since=BEGIN)) == 2


def test_a_request_is_stored_once(history: History) -> None:
    first = history.add([decision(1), decision(2), decision(1, score=9.0)])
    assert [one.id for one in first] == [1, 2, 1]
    again = history.add([decision(2, score=5.0), decision(3)], {"hook": "all"})
    assert [one.id for one in again] == [2, 3]
    assert again[0] == first[1]
    assert history.count() == 3
    assert [one.decision.id for one in history.due("hook")] == [3]  # not owed anew


def test_all_of_a_batch_is_stored_or_none(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    history.add([decision(1)])

    def fail(*_: object) -> None:
        raise HistoryError("the last step fails")

    with monkeypatch.context() as patch:
        patch.setattr(import_module("blemish.serve.history.outbox"), "enter", fail)
        with pytest.raises(HistoryError, match="the last step fails"):
            history.add([decision(2, source="new"), decision(3)], {"hook": "all"})
    assert history.count() == 1
    assert history.due("hook") == []
    assert [stream.source for stream in history.streams()] == ["folder"]
    assert [one.id for one in history.add([decision(2)])] == [2]


def test_hours_and_tallies_sum_up_the_rows(filled: tuple[History, list[StoredDecision]]) -> None:
    history, stored = filled
    hours = history.hourly()
    assert sum(one.decisions for one in hours) == len(stored)
    assert [one.hour for one in hours] == sorted(one.hour for one in hours)
    for found in hours:
        of_hour = [
            one.score
            for one in stored
            if found.hour <= one.time < found.hour + timedelta(hours=1)
            and (one.model, one.source) == (found.stream.model, found.stream.source)
            and one.is_anomalous == found.is_anomalous
        ]
        assert found.decisions == len(of_hour)
        assert found.mean == pytest.approx(np.mean(of_hour))
    one_hour = HistoryFilter(model="b", since=hours[3].hour, until=hours[3].hour + timedelta(hours=1))
    assert {one.hour for one in history.hourly(one_hour)} == {hours[3].hour}
    assert {one.stream.model for one in history.hourly(one_hour)} == {"b"}

    wanted = HistoryFilter(model="b", since=BEGIN + timedelta(minutes=130))
    counted = Counter(
        (one.model, one.source, one.threshold, one.is_anomalous, one.other_kind is not None)
        for one in history.all(wanted)
    )
    tallied = {
        (
            one.stream.model,
            one.stream.source,
            one.threshold,
            one.is_anomalous,
            one.is_of_other_kind,
        ): one.decisions
        for one in history.tallies(wanted)
    }
    assert tallied == counted


def test_names_with_characters_that_no_database_takes_are_escaped(history: History) -> None:
    [stored] = history.add([decision(1, name="a\x00b\udcff\n.png", source="\x00", request="\ud800")])
    assert stored.name == "a\\x00b\\udcff\\n.png"
    assert history.page(HistoryFilter(source="\\x00")) == [stored]
    verdict = history.add_verdict(1, NewVerdict(is_right=True, operator="\x00", note="two\nlines\x00"))
    assert history.verdicts(1) == [verdict]
    assert verdict.note == "two\nlines\\x00"


def test_the_newest_verdict_counts_and_all_stay(history: History) -> None:
    history.add(many(3))
    box = Shape(kind="box", points=((1.5, 2.0), (7.25, 9.0)))
    first = history.add_verdict(2, NewVerdict(is_right=False, label="scratch", shapes=(box,), operator="Ana"))
    assert history.decision(2).verdict == first
    second = history.add_verdict(2, NewVerdict(is_right=True), BEGIN - timedelta(days=1))
    assert history.verdicts(2) == [first, second]
    assert history.decision(2).verdict == second
    assert [one.id for one in history.page(HistoryFilter(verdict="right"))] == [2]
    assert history.page(HistoryFilter(verdict="wrong")) == []
    with pytest.raises(DecisionNotFoundError, match="no decision 9 in the history"):
        history.add_verdict(9, NewVerdict(is_right=True))
    with pytest.raises(DecisionNotFoundError):
        history.verdicts(9)


def test_decisions_and_verdicts_cannot_be_changed(history: History) -> None:
    history.add([decision(1)])
    history.add_verdict(1, NewVerdict(is_right=True))

    def change(table: str, column: str, connection: Connection) -> None:
        connection.exec_driver_sql(f"UPDATE {table} SET {column} = 0")

    for table, column in (("decisions", "score"), ("verdicts", "is_right")):
        with pytest.raises(Exception, match="never changed"):
            history.database.write(partial(change, table, column))


def test_decisions_survive_a_reopening(tmp_path: Path) -> None:
    with History.open(tmp_path) as history:
        stored = history.add(many(20), {"hook": "rejected"})
    with History.open(tmp_path) as history:
        assert history.page()[::-1] == stored
        assert history.add([decision(100)])[0].id == 21


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[History, list[StoredDecision]]]:
    with History.open(tmp_path_factory.mktemp("filled")) as history:
        yield history, fill(history)


@pytest.mark.parametrize("few", [20_000, 10], ids=["rare", "dense"])
def test_every_filter_finds_what_a_list_finds(
    filled: tuple[History, list[StoredDecision]], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("blemish.serve.history.selection"), "FEW", few)
    assert check_filters(*filled, FILTERS[::19]) > 8


@pytest.mark.parametrize("few", [20_000, 10], ids=["rare", "dense"])
def test_what_if_counts_the_changes_and_shows_the_newest(
    filled: tuple[History, list[StoredDecision]], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("blemish.serve.history.what_if"), "FEW", few)
    check_what_if(*filled, FILTERS[::37])


def test_scores_for_a_chart_are_thinned_evenly_and_rejected_ones_stay(
    filled: tuple[History, list[StoredDecision]],
) -> None:
    history, stored = filled
    everything = history.scores(points=1000)
    assert [point.id for point in everything] == list(range(1, 401))
    assert [(point.time, point.score, point.is_anomalous) for point in everything] == [
        (one.time, one.score, one.is_anomalous) for one in stored
    ]
    few = history.scores(points=80)
    assert 60 <= len(few) <= 80
    assert 30 <= sum(point.is_anomalous for point in few) <= 40
    assert set(few) <= set(everything)
    gaps = np.diff([point.id for point in few if not point.is_anomalous])
    assert gaps.max() < 50
    for given in FILTERS[::11]:
        right = expected(stored, given)
        found = history.scores(as_filter(given), points=1000)
        assert [point.id for point in found] == [one.id for one in reversed(right)], given
        assert len(history.scores(as_filter(given), points=9)) <= max(9, 12), given


def test_few_rejected_ones_are_all_on_the_chart(history: History) -> None:
    history.add([decision(place, is_anomalous=place in (7, 300)) for place in range(500)])
    found = history.scores(points=20)
    assert len(found) == 20
    assert [point.id for point in found if point.is_anomalous] == [8, 301]


def test_an_empty_history_has_empty_views(history: History) -> None:
    assert history.page() == history.scores() == history.owed() == history.streams() == []
    assert history.count() == history.count(HistoryFilter(verdict="none", text="frame")) == 0
    assert history.what_if(HistoryFilter(), 1.0)[1:] == (0, 0, 0, 0, ())
    with pytest.raises(DecisionNotFoundError):
        history.decision(1)


def test_text_takes_no_pattern(history: History) -> None:
    names = ["50%_a.png", "50x_a.png", "back\\slash.png", "Ünder.png", "50%xa.png"]
    history.add([decision(place, name=name) for place, name in enumerate(names)])

    def found(text: str) -> list[str]:
        return [one.name for one in history.page(HistoryFilter(text=text))][::-1]

    assert found("50%_a") == ["50%_a.png"]
    assert found("%") == ["50%_a.png", "50%xa.png"]
    assert found("k\\s") == ["back\\slash.png"]
    assert found("nder.PNG") == ["Ünder.png"]
    assert found("'; DROP TABLE decisions; --") == []


def test_a_second_server_is_refused_and_the_first_named(tmp_path: Path) -> None:
    with History.open(tmp_path) as history:
        history.add([decision(1)])
        with pytest.raises(
            HistoryError, match=r"its history is in use by .*process \d+.*; stop that server, or choose"
        ):
            History.open(tmp_path)
        with History.open(tmp_path, exclusive=False) as beside:
            assert beside.count() == 1
            history.add([decision(2)])
            assert beside.count() == 2
    with History.open(tmp_path) as history:
        assert history.count() == 2


def test_a_history_that_must_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="there is no history; name the folder that blemish serve wrote"):
        History.open(tmp_path / "none", exclusive=False)
    assert list(tmp_path.iterdir()) == []


def test_times_without_a_zone_are_of_utc(history: History) -> None:
    history.add([decision(1, time=datetime(2026, 1, 1, 12))])
    assert history.decision(1).time == datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
    assert (
        history.count(HistoryFilter(since=datetime(2026, 1, 1, 12), until=datetime(2026, 1, 1, 12, 0, 1)))
        == 1
    )


def test_what_is_stored_is_validated(history: History) -> None:
    with pytest.raises(ValueError, match="finite"):
        NewDecision(**{**decision(1).model_dump(), "score": float("nan")})
