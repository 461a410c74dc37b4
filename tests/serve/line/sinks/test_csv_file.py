"""The CSV file as a sink."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import pytest

from blemish.errors import DeliveryError
from blemish.serve.contracts import StoredDecision
from blemish.serve.line.sink_settings import CsvSettings
from blemish.serve.line.sinks.csv_file import COLUMNS, CsvSink

MakeDecision = Callable[..., StoredDecision]


def sink(path: Path, rotate: Literal["never", "daily", "monthly"] = "never") -> CsvSink:
    return CsvSink(CsvSettings(name="table", type="csv", path=str(path), rotate=rotate), path)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_each_decision_is_a_row_under_one_header(tmp_path: Path, make_decision: MakeDecision) -> None:
    path = tmp_path / "out" / "decisions.csv"
    given = sink(path)
    for number in (1, 2, 3):
        given.deliver(make_decision(number, is_anomalous=number == 2), None, None)
    found = rows(path)
    assert tuple(found[0]) == COLUMNS
    assert [row["id"] for row in found] == ["1", "2", "3"]
    assert [row["decision"] for row in found] == ["accepted", "rejected", "accepted"]
    assert (found[1]["x"], found[1]["y"], found[1]["width"], found[1]["height"]) == ("4", "5", "10", "8")
    assert found[0]["x"] == ""
    assert datetime.fromisoformat(found[0]["time"]) == make_decision(1).time
    assert path.read_bytes().startswith(b"\xef\xbb\xbf"), "by which a spreadsheet knows UTF-8"


def test_a_decision_that_comes_again_is_one_row_also_after_a_restart(
    tmp_path: Path, make_decision: MakeDecision
) -> None:
    path = tmp_path / "decisions.csv"
    for _ in range(2):
        given = sink(path)
        for number in (1, 2):
            given.deliver(make_decision(number), None, None)
    given.deliver(make_decision(3), None, None)
    assert [row["id"] for row in rows(path)] == ["1", "2", "3"]


@pytest.mark.parametrize("kept", [0, 1, 20])
def test_a_row_that_a_kill_left_unfinished_is_written_again(
    tmp_path: Path, make_decision: MakeDecision, kept: int
) -> None:
    path = tmp_path / "decisions.csv"
    given = sink(path)
    given.deliver(make_decision(1), None, None)
    whole = path.stat().st_size
    given.deliver(make_decision(2), None, None)
    os.truncate(path, whole + kept)
    again = sink(path)
    again.deliver(make_decision(2), None, None)
    again.deliver(make_decision(3), None, None)
    assert [row["id"] for row in rows(path)] == ["1", "2", "3"]


def test_a_header_that_a_kill_left_unfinished_is_written_again(
    tmp_path: Path, make_decision: MakeDecision
) -> None:
    path = tmp_path / "decisions.csv"
    path.write_bytes(b"\xef\xbb\xbfid,time,so")
    sink(path).deliver(make_decision(1), None, None)
    assert [row["id"] for row in rows(path)] == ["1"]


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A1", "+1", "@x", 'a"b,c', "zeile\r\nzwei", "ä"])
def test_names_are_cells_and_no_formulas(tmp_path: Path, make_decision: MakeDecision, name: str) -> None:
    path = tmp_path / "decisions.csv"
    given = sink(path)
    given.deliver(make_decision(1, name=name), None, None)
    sink(path).deliver(make_decision(2), None, None)
    first, second = rows(path)
    assert first["name"].lstrip("'") == " ".join(name.splitlines())
    assert first["name"][0] not in "=+@"
    assert second["id"] == "2"


def test_a_new_file_begins_with_each_day_of_the_machine(tmp_path: Path, make_decision: MakeDecision) -> None:
    path = tmp_path / "decisions.csv"
    given = sink(path, "daily")
    days = [datetime(2026, 3, day, 12, tzinfo=timezone.utc) for day in (1, 1, 2)]
    for number, time in enumerate(days, start=1):
        given.deliver(make_decision(number, time=time), None, None)
    names = [f"decisions-{time.astimezone():%Y-%m-%d}.csv" for time in (days[0], days[2])]
    assert sorted(found.name for found in tmp_path.iterdir()) == names
    assert [len(rows(tmp_path / name)) for name in names] == [2, 1]


def test_a_file_that_was_removed_begins_anew(tmp_path: Path, make_decision: MakeDecision) -> None:
    path = tmp_path / "decisions.csv"
    given = sink(path)
    given.deliver(make_decision(1), None, None)
    path.unlink()
    given.deliver(make_decision(2), None, None)
    assert [row["id"] for row in rows(path)] == ["2"]


def test_a_path_that_cannot_be_written_is_a_failed_delivery(
    tmp_path: Path, make_decision: MakeDecision
) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DeliveryError, match=r"folder\.csv: cannot be written"):
        sink(tmp_path / "folder.csv").deliver(make_decision(1), None, None)
