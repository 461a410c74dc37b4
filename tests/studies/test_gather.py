"""Gathering of tables row by row: the order, what is passed over, and the clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blemish.errors import FileError, Stopped
from blemish.observer import Observer
from studies import STUDIES
from studies.gather import PLAN, Clock, Planned, gather, read_plan


class Tables:
    """Stands in for ``run_study``: tables of so many rows, kept between calls."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.there: dict[Path, int] = {}
        self.calls: list[tuple[str, Path, int]] = []

    def __call__(self, name: str, out: Path, *, data: Path, rows: int, **options: Any) -> Any:
        self.calls.append((name, out, rows))
        self.there[out / data.name] = min(self.rows, self.there.get(out / data.name, 0) + rows)
        missing = [str(number) for number in range(self.there[out / data.name], self.rows)]
        return SimpleNamespace(figures={"missing": missing, "planned": self.rows})


def test_rows_are_fitted_in_the_order_of_the_plan_until_none_is_missing(
    tmp_path: Path, recorder: Callable[..., Any]
) -> None:
    (tmp_path / "screw").mkdir()
    (tmp_path / "tile").mkdir()
    plan = [
        Planned(study="kumar2025", data="screw"),
        Planned(study="kumar2025", data="absent"),
        Planned(study="radli2022", data="tile", out="large"),
    ]
    tables, recorded = Tables(5), recorder()
    out = tmp_path / "out"
    gather(plan, tmp_path, out, observer=recorded, run=tables, step=2)
    assert [(name, where) for name, where, _ in tables.calls] == [
        ("kumar2025", out / ".") if number < 3 else ("radli2022", out / "large") for number in range(6)
    ]
    assert recorded.stages[2] == "kumar2025 on screw: 0 of 5 rows are missing"
    assert "Passed over" in recorded.stages[3]
    again = recorder()
    gather(plan, tmp_path, out, observer=again, run=tables, step=2)
    assert len(tables.calls) == 8  # one look at each, and nothing to fit


def test_a_row_that_cannot_be_made_is_not_tried_for_ever(tmp_path: Path) -> None:
    (tmp_path / "screw").mkdir()
    tables = Tables(5)
    gather(
        [Planned(study="kumar2025", data="screw")],
        tmp_path,
        tmp_path,
        observer=Observer(),
        run=tables,
        step=0,
    )
    assert len(tables.calls) == 2


def test_the_clock_stops_between_two_rows(tmp_path: Path, recorder: Callable[..., Any]) -> None:
    (tmp_path / "screw").mkdir()
    tables, recorded = Tables(5), recorder()
    clock = Clock(recorded, seconds=-1)
    with pytest.raises(Stopped, match="between two rows"):
        gather(
            [Planned(study="kumar2025", data="screw")], tmp_path, tmp_path, observer=clock, run=tables, step=2
        )
    assert tables.there == {tmp_path / "screw": 2}
    assert recorded.stages == ["kumar2025 on screw: 3 of 5 rows are missing"]
    assert not Clock(recorder(), seconds=60).should_stop()
    assert Clock(recorder(0), seconds=60).should_stop()


def test_the_plan_names_studies_that_are_gathered() -> None:
    plan = read_plan(PLAN)
    assert len(plan) > 5
    assert {planned.study for planned in plan} <= set(STUDIES)
    places = [(planned.study, planned.data, planned.out) for planned in plan]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("text", ["- {studies: kumar2025}", "5", "- [", "- {study: 3, data: 4}"])
def test_a_file_that_is_no_plan_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(FileError, match="is no plan of studies") as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)
