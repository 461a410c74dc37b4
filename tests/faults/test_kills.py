"""A few kills of the product's commands, and of commands with known faults."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import fake_commands
from tests.faults.counts import FAULTS, Counts, from_json, total
from tests.faults.end_state import Differences, differences, read_state
from tests.faults.fork_server import Command, ForkServer
from tests.faults.hunts import hunt_kills, places, rounds
from tests.faults.kill import REMOVAL, Bench, Outcome, Refusal
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
    """Kill a fake command more often than it has file operations."""
    return hunt_kills([fake(name)], 4 * OPERATIONS, bench)[name]


def test_kills_leave_no_fault(tmp_path: Path) -> None:
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in QUICK]
    assert len(scenarios) == len(QUICK)
    with ForkServer() as server:
        bench = Bench(server, tmp_path / "inputs", tmp_path / "worker")
        counts = hunt_kills(scenarios, 30, bench, checked=False)
    examples = {name: count.examples for name, count in counts.items() if count.examples}
    sums = total(counts)
    assert sums["hits"] >= 30
    assert sums["restarts"] >= sums["trials"] == sums["recovered"], examples
    assert {fault: sums[fault] for fault in FAULTS} == dict.fromkeys(FAULTS, 0), examples


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


@pytest.mark.parametrize("name", ["sound", "offering", "offering_removal"])
def test_a_command_without_fault_recovers(bench: Bench, name: str) -> None:
    counts = kill_fake(bench, name)
    assert counts.hits >= 4 * OPERATIONS
    assert counts.recovered == counts.trials, counts.examples
    assert set(counts.faults.values()) == {0}


@pytest.mark.parametrize("command", fake_commands.FAULTY)
def test_each_fault_is_detected(bench: Bench, command: str) -> None:
    counts = kill_fake(bench, command)
    fault = fake_commands.FAULTY[command]
    assert counts.faults[fault] > 0
    assert counts.recovered < counts.trials
    assert {other for other, count in counts.faults.items() if count} == {fault}, counts.examples
    assert len(counts.examples[fault]) <= 3


def test_an_offered_option_is_counted(bench: Bench) -> None:
    refusals = kill_fake(bench, "offering").refusals
    assert {(offered, helped) for _, offered, helped in refusals} == {(("--resume",), "--resume")}
    refusals = kill_fake(bench, "offering_removal").refusals
    assert {(offered, helped) for _, offered, helped in refusals} == {((REMOVAL,), REMOVAL)}


def test_a_command_that_fails_undisturbed_is_no_scenario(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match=r"ended with code 1 undisturbed:\n(?s:.*)no_such_command"):
        bench.undisturbed(fake("no_such_command"))


def test_moments_of_kills_are_spread_evenly() -> None:
    chosen = [places(number, random.Random(number)) for number in range(200)]
    firsts = [of[0] for of in chosen]
    for by_operation in (True, False):
        tenths = Counter(int(10 * place.share) for place in firsts if place.by_operation is by_operation)
        assert set(tenths) == set(range(10))
        assert all(7 <= count <= 13 for count in tenths.values()), tenths
    lengths = Counter(map(len, chosen))
    assert set(lengths) == {1, 2, 3, 4}
    assert lengths[1] > lengths[2] > lengths[3]


def disturb_until(hits: int, scenarios: list[Scenario], counts: dict[str, Counts]) -> list[tuple[str, int]]:
    """Trials of a hunt in their order, each with one disturbance or two."""
    made = []
    for scenario, number in rounds(scenarios, counts, hits):
        made.append((scenario.name, number))
        found = Differences(lost=["a.txt"] if number == 3 else [])
        refusals = (Refusal("N files are there", ("--resume",), "--resume"),)
        counts[scenario.name].add(
            Outcome(scenario.name, "", refusals, found, True, "", hits=1 + number % 2, restarts=1)
        )
    return made


def test_a_hunt_goes_on_where_it_was_interrupted() -> None:
    scenarios = [replace(fake("sound"), every=2), fake("offering")]
    counts, whole = ({one.name: Counts() for one in scenarios} for _ in range(2))
    first = disturb_until(7, scenarios, counts)
    stored = json.loads(json.dumps({name: count.as_json() for name, count in counts.items()}))
    counts = {name: from_json(one) for name, one in stored.items()}
    first += disturb_until(20, scenarios, counts)
    assert first == disturb_until(20, scenarios, whole)
    assert first[:5] == [("sound", 0), ("offering", 0), ("offering", 1), ("sound", 1), ("offering", 2)]
    assert counts == whole
    assert total(counts)["hits"] in (20, 21)
    assert total(counts)["lost"] == 2
    assert disturb_until(20, scenarios, counts) == []


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
