"""A few kills of the product's commands, and of commands with known faults."""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import fake_commands
from tests.faults.end_state import differences, read_state
from tests.faults.fork_server import Command, ForkServer
from tests.faults.kill import Bench
from tests.faults.kills import FAULTS, Counts, places, run_kills, shares, total
from tests.faults.scenarios import SCENARIOS, Scenario

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server needs pidfd_open and /proc")

QUICK = (
    "fit --overwrite, then without",
    "inspect",
    "inspect --overwrite, then without",
    "features --overwrite, then without",
    "jpeg encode --out",
    "jpeg encode --in-place",
)

OPERATIONS = 1 + 3 * len(fake_commands.NAMES)
"""File operations of a fake command: the folder is made, and for each name a file is opened, renamed, and recorded."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """For fake commands, whose server does not load the product."""
    folder = tmp_path_factory.mktemp("kills")
    with ForkServer() as server:
        yield Bench(server, folder / "inputs", folder / "worker")


def fake(name: str) -> Scenario:
    return Scenario(name, (), entry=f"tests.faults.fake_commands:{name}")


def kill_fake(bench: Bench, name: str) -> Counts:
    """Kill a fake command at each of its file operations, and as often at other times."""
    return run_kills([fake(name)], 2 * OPERATIONS, [bench])[name]


def test_kills_leave_no_fault(tmp_path: Path) -> None:
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in QUICK]
    assert len(scenarios) == len(QUICK)
    with ForkServer() as server:
        bench = Bench(server, tmp_path / "inputs", tmp_path / "worker")
        counts = run_kills(scenarios, 30, [bench], checked=False)
    examples = {name: count.examples for name, count in counts.items() if count.examples}
    assert total(counts) == {"kills": 30, "recovered": 30, **dict.fromkeys(FAULTS, 0)}, examples


def test_a_command_is_killed_before_its_nth_file_operation(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    entry = "tests.faults.fake_commands:sound"
    command = Command((), str(folder), str(tmp_path / "log"), entry=entry)
    for number, last, there in [
        (1, "os.mkdir out", []),
        (4, "open out/records.jsonl", ["a.txt"]),
        (6, "os.rename out/b.txt", ["a.txt", "records.jsonl"]),
    ]:
        shutil.rmtree(folder)
        folder.mkdir()
        ended = bench.server.run(replace(command, kill_at=number))
        assert (ended.killed, ended.operations, ended.last) == (True, number, last)
        assert sorted(path.name for path in folder.glob("out/[!.]*")) == there
    shutil.rmtree(folder)
    folder.mkdir()
    whole = bench.server.run(command)
    assert (whole.code, whole.killed, whole.operations) == (0, False, OPERATIONS)


@pytest.mark.parametrize("name", ["sound", "offering"])
def test_a_command_without_fault_recovers(bench: Bench, name: str) -> None:
    counts = kill_fake(bench, name)
    assert counts.recovered == counts.kills == 2 * OPERATIONS, counts.examples
    assert set(counts.faults.values()) == {0}


@pytest.mark.parametrize("command", fake_commands.FAULTY)
def test_each_fault_is_detected(bench: Bench, command: str) -> None:
    counts = kill_fake(bench, command)
    fault = fake_commands.FAULTY[command]
    assert counts.faults[fault] > 0
    assert counts.recovered < counts.kills
    assert {other for other, count in counts.faults.items() if count} == {fault}, counts.examples
    assert len(counts.examples[fault]) <= 3


def test_an_offered_option_is_counted(bench: Bench) -> None:
    refusals = kill_fake(bench, "offering").refusals
    assert {(offered, helped) for _, offered, helped in refusals} == {(("--resume",), "--resume")}


def test_a_command_that_fails_undisturbed_is_no_scenario(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match=r"ended with code 1 undisturbed:\n(?s:.*)no_such_command"):
        bench.undisturbed(fake("no_such_command"))


def test_kills_are_spread_evenly_over_scenarios_and_moments() -> None:
    assert shares(8, SCENARIOS[:3]) == [3, 3, 2]
    chosen = places(9, random.Random(0))
    assert Counter(place.by_operation for place in chosen) == {True: 5, False: 4}
    assert [int(5 * place.share) for place in chosen if place.by_operation] == [0, 1, 2, 3, 4]
    assert [int(4 * place.share) for place in chosen if not place.by_operation] == [0, 1, 2, 3]


def test_end_states_are_compared_without_times(tmp_path: Path) -> None:
    table = "<table><tr><th>name</th><th>seconds</th></tr><tr><td>{}</td><td>{}</td></tr></table><p>{} s</p>"
    for number, folder in enumerate([tmp_path / "a", tmp_path / "b"]):
        folder.mkdir()
        (folder / "records.jsonl").write_text(f'{{"path": "x", "score": 0.5, "seconds": {number}}}\n')
        (folder / "model.json").write_text(f'{{"training": {{"steps": 3, "seconds": {number}.5}}}}')
        (folder / "report.html").write_text(table.format("x", f"0.{number}", f"{number}.25"))
    expected = read_state(tmp_path / "a")
    assert differences(expected, read_state(tmp_path / "b")).lines == []
    (tmp_path / "b" / "report.html").write_text(table.format("y", "0.1", "1"))
    (tmp_path / "b" / "model.json").write_text('{"training": {"steps": 4, "seconds": 1}}')
    (tmp_path / "b" / "records.jsonl").write_text('{"path": "x", "score": 0.25}\n{"path": "z"}\nhalf a li')
    (tmp_path / "b" / ".blemish.lock").touch()
    found = differences(expected, read_state(tmp_path / "b"))
    assert found.left_overs == [".blemish.lock"]
    assert found.wrong == [
        "model.json",
        "records.jsonl: x",
        "records.jsonl: z",
        "records.jsonl: a damaged line",
        "report.html",
    ]
    assert (found.lost, found.doubled) == ([], [])
