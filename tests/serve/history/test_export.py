"""Export: CSV that spreadsheets read without harm, Parquet with all there is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pytest

from blemish.decision.classes import ClassScore
from blemish.decision.regions import Region
from blemish.errors import FileError
from blemish.serve.contracts import NewVerdict, Shape
from blemish.serve.history import History, HistoryFilter
from blemish.serve.history.export import COLUMNS, csv_parts, write_csv, write_parquet
from tests.serve.history.made import BEGIN, decision, many

parquet = pytest.importorskip("pyarrow.parquet")
REGIONS = tuple(
    Region(x=x, y=2, width=3, height=4, area=9, peak=peak, mean=1.0) for x, peak in ((7, 2.5), (1, 2.0))
)
LID = ClassScore(name="=lid", score=1.5, threshold=1.0, is_above=True, peak=2.0)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History.open(tmp_path / "home") as opened:
        odd = decision(
            500,
            name='=cmd|"/c calc"!A1',
            other_kind="-dark",
            is_anomalous=True,
            regions=REGIONS,
            classes=(LID,),
        )
        opened.add([*many(30), odd])
        box = Shape(kind="box", points=((0, 1), (2, 3.5)))
        note = 'two\nlines, "quoted"'
        opened.add_verdict(
            31, NewVerdict(is_right=False, label="+x", shapes=(box,), operator="@a", note=note)
        )
        yield opened


def read(content: bytes) -> list[dict[str, str]]:
    assert content.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_csv_holds_each_decision_to_the_last_bit(history: History, tmp_path: Path) -> None:
    assert write_csv(history, tmp_path / "out" / "history.csv") == 31
    rows = read((tmp_path / "out" / "history.csv").read_bytes())
    assert [int(row["id"]) for row in rows] == list(range(1, 32))
    for row, one in zip(rows, history.all(), strict=True):
        assert tuple(row) == COLUMNS
        assert (float(row["score"]), float(row["p_value"])) == (one.score, one.p_value)
        assert row["rejected"] == str(int(one.is_anomalous))
        assert row["time"] == one.time.isoformat()
    assert rows[-1]["regions"] == "2"
    assert [rows[-1][f"region_{name}"] for name in ("x", "y", "width", "height", "peak")] == [
        "7",
        "2",
        "3",
        "4",
        "2.5",
    ]
    assert rows[-1]["verdict"] == "wrong"
    assert rows[-1]["note"] == 'two lines, "quoted"'
    assert rows[0]["verdict"] == rows[0]["region_x"] == ""


def test_csv_holds_no_formula(history: History) -> None:
    history.add([decision(600, model="+m", source="@s", request="=r")])
    for row in read(b"".join(csv_parts(history))):
        for cell in row.values():
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), row
    last = read(b"".join(csv_parts(history)))[-2]
    assert [last[name] for name in ("name", "class", "label", "operator", "other_kind")] == [
        '\'=cmd|"/c calc"!A1',
        "'=lid",
        "'+x",
        "'@a",
        "'-dark",
    ]


def test_parquet_holds_all_of_each_decision(history: History, tmp_path: Path) -> None:
    assert write_parquet(history, tmp_path / "history.parquet") == 31
    rows = parquet.read_table(tmp_path / "history.parquet").to_pylist()
    for row, one in zip(rows, history.all(), strict=True):
        for name in (
            "id",
            "time",
            "model",
            "name",
            "request",
            "score",
            "p_value",
            "is_anomalous",
            "other_kind",
        ):
            assert row[name] == getattr(one, name)
        assert (row["width"], row["height"]) == one.size
        assert row["regions"] == [region.model_dump() for region in one.regions]
        assert row["classes"] == [of_class.model_dump() for of_class in one.classes]
    assert rows[0]["verdict"] is None
    assert rows[-1]["verdict"]["note"] == 'two\nlines, "quoted"'
    assert rows[-1]["verdict"]["shapes"] == [{"kind": "box", "points": [[0, 1], [2, 3.5]]}]


def test_an_export_takes_a_filter_and_many_parts(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("blemish.serve.history.export"), "_AT_ONCE", 4)
    wanted = HistoryFilter(is_anomalous=True, until=BEGIN + timedelta(seconds=20))
    assert write_csv(history, tmp_path / "a.csv", wanted) == 4
    assert write_parquet(history, tmp_path / "a.parquet", wanted) == 4
    assert parquet.read_table(tmp_path / "a.parquet")["id"].to_pylist() == [5, 10, 15, 20]
    assert write_csv(history, tmp_path / "all.csv") == 31


def test_an_export_ends_at_what_was_there_when_it_began(history: History) -> None:
    found = history.all(at_once=7)
    first = next(found)
    history.add(many(20, begin=1000))
    assert [first.id, *(one.id for one in found)] == list(range(1, 32))


def test_an_empty_history_is_exported_as_a_header(tmp_path: Path) -> None:
    with History.open(tmp_path) as empty:
        assert write_csv(empty, tmp_path / "a.csv") == 0
        assert write_parquet(empty, tmp_path / "a.parquet") == 0
    assert read((tmp_path / "a.csv").read_bytes()) == []
    assert parquet.read_table(tmp_path / "a.parquet").num_rows == 0


def test_a_file_that_cannot_be_written_leaves_nothing(history: History, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="a part of this path is a file"):
        write_csv(history, tmp_path / "file" / "history.csv")
