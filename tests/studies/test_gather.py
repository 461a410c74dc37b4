"""Gathering of tables row by row: the order, what is passed over, and the clock."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.detection import __main__ as detection
from blemish.errors import FileError, Stopped, UsageError
from blemish.observer import Observer
from studies import STUDIES
from studies.gather import PLAN, Clock, Committing, Planned, PlannedTable, gather, read_plan


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
    studies = [planned for planned in plan if isinstance(planned, Planned)]
    assert {planned.study for planned in studies} <= set(STUDIES)
    places = [(planned.study, planned.data, planned.out) for planned in studies]
    assert len(set(places)) == len(places)
    tables = [planned for planned in plan if isinstance(planned, PlannedTable)]
    assert len({(planned.table, planned.budget) for planned in tables}) == len(tables) > 1
    assert all(planned.rows(Path(), Path("benchmarks/results"))[1] > 20 for planned in tables)


def test_rows_of_a_table_of_the_detection_benchmark_are_those_that_it_lacks(
    tmp_path: Path, recorder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "screw").mkdir()
    path = tmp_path / "detection-table-screw-1h.json"
    source = {"kind": "measured here", "budget": "1h"}
    document: dict[str, Any] = {
        "budget": "1h",
        "rows": [
            {"dataset": "screw", "name": "l2-ae", "source": source, "seeds": [0]},
            {"dataset": "screw", "name": "vae", "source": source | {"budget": "5m"}, "seeds": [0, 1]},
        ],
    }
    path.write_text(json.dumps(document))
    fitted = []

    def run(words: Sequence[str], observer: Observer) -> None:
        options = detection.parsed(words)
        assert (options.keep, options.budget, options.out) == (True, "1h", tmp_path)
        fitted.append((options.recipes, options.seeds))
        document["rows"].append(
            {"dataset": "screw", "name": options.recipes[0], "source": source, "seeds": options.seeds}
        )
        path.write_text(json.dumps(document))

    monkeypatch.setattr(detection, "run", run)
    plan = [PlannedTable(table="screw", recipes="l2-ae,vae", budget="1h", seeds=(0, 1))]
    recorded, steps = recorder(), []
    gather(
        plan,
        tmp_path,
        tmp_path / "studies",
        observer=recorded,
        tables=tmp_path,
        done=lambda words, folder: steps.append((words, folder)),
    )
    assert fitted == [(["vae"], [0]), (["l2-ae"], [1]), (["vae"], [1])]
    assert recorded.stages[0] == "l2-ae,vae on screw, 1h each: 3 of 4 rows are missing"
    assert steps[-1] == ("l2-ae,vae on screw, 1h each: 0 of 4 rows are missing", tmp_path)


def _git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True
    ).stdout


def test_each_step_is_committed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@b")
    out = tmp_path / "results"
    with pytest.raises(UsageError, match=r"--commit: git status in .* failed .*not a git repository"):
        Committing([out])
    _git(tmp_path, "init")
    (tmp_path / ".gitignore").write_text("*-work/\n")
    _git(tmp_path, "add", ".gitignore")
    (tmp_path / "code.py").write_text("begun = True\n")
    committing = Committing([out])
    (out / "table.json").write_text("{}")
    (out / "table-work").mkdir()
    (out / "table-work" / "weights").write_text("…")
    committing("kumar2025 on screw: 3 of 5 rows are missing", out)
    committing("kumar2025 on screw: 3 of 5 rows are missing", out)  # nothing has changed
    assert _git(tmp_path, "log", "--format=%s").splitlines() == [
        "Kumar2025 on screw: 3 of 5 rows are missing"
    ]
    assert _git(tmp_path, "show", "--format=", "--name-only").split() == ["results/table.json"]
    assert _git(tmp_path, "status", "--porcelain").splitlines() == ["A  .gitignore", "?? code.py"]
    (out / "table.json").write_text("[]")
    with pytest.raises(UsageError, match="has changes that are not committed"):
        Committing([out])


@pytest.mark.parametrize("text", ["- {studies: kumar2025}", "5", "- [", "- {study: 3, data: 4}"])
def test_a_file_that_is_no_plan_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(FileError, match="is no plan of studies") as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)
