"""Full disks and inputs that change under way: of commands with known faults, and a few of the product's."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.counts import FAULTS, Counts, total
from tests.faults.fork_server import ForkServer
from tests.faults.full_disk import ROOM, SmallDisk, fill, why_not
from tests.faults.hunts import hunt_changed_inputs, hunt_full_disks, hunt_kills
from tests.faults.kill import Bench
from tests.faults.scenarios import SCENARIOS, Scenario

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server needs pidfd_open and /proc")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """For fake commands, whose server does not load the product."""
    folder = tmp_path_factory.mktemp("hunts")
    with ForkServer() as server:
        yield Bench(server, folder / "inputs", folder / "worker")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if reason := why_not(tmp_path / "tried"):
        pytest.skip(reason)
    with SmallDisk(tmp_path / "disk") as mounted:
        yield mounted


def fake(name: str, *words: str) -> Scenario:
    return Scenario(name, words, entry=f"tests.faults.fake_commands:{name}")


def named(*names: str) -> list[Scenario]:
    found = [scenario for scenario in SCENARIOS if scenario.name in names]
    assert len(found) == len(names)
    return found


def assert_no_fault(counts: dict[str, Counts]) -> None:
    examples = {name: count.examples for name, count in counts.items() if count.examples}
    assert {fault: total(counts)[fault] for fault in FAULTS} == dict.fromkeys(FAULTS, 0), examples


def test_a_small_disk_is_really_full(disk: SmallDisk) -> None:
    disk.resize(3 * 4096)
    with pytest.raises(OSError, match="No space left") as full:
        (disk.folder / "large").write_bytes(bytes(5 * 4096))
    assert full.value.errno == errno.ENOSPC
    disk.resize(ROOM)
    (disk.folder / "large").write_bytes(bytes(5 * 4096))
    assert disk.used() >= 5 * 4096


def test_what_a_full_disk_does_is_counted(bench: Bench, disk: SmallDisk) -> None:
    on_disk = Bench(bench.server, bench.inputs, disk.folder)
    good = hunt_full_disks([fake("filling")], 6, on_disk, disk)["filling"]
    assert good.hits == good.trials == good.recovered == 6, good.examples
    bad = hunt_full_disks([fake("sound")], 3, on_disk, disk)["sound"]
    assert bad.unclear == 3
    assert "a traceback" in bad.examples["unclear"][0]["unclear"]
    careless = fake("careless")
    reference = on_disk.undisturbed(careless)
    outcome = fill(on_disk, disk, careless, reference, 2 * 4096)
    assert (outcome.hits, outcome.missed) == (0, 1)
    assert "c.txt" in str(outcome.found.lost)


def test_a_record_of_two_contents_is_detected(bench: Bench) -> None:
    words = ("{inputs}/new",)
    good = hunt_changed_inputs([fake("reading", *words)], 12, bench)["reading"]
    assert good.recovered == good.trials >= 12, good.examples
    bad = hunt_changed_inputs([fake("reading_twice", *words)], 24, bench)["reading_twice"]
    assert 0 < bad.unclear < bad.trials
    assert bad.examples["unclear"][0]["unclear"].startswith("a record of no content that the file had")
    assert {fault for fault, count in bad.faults.items() if count} == {"unclear"}


@pytest.mark.slow
@pytest.mark.parametrize("hunt", ["kills of a server", "full disks", "changed inputs"])
def test_no_fault_is_found(hunt: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with ForkServer() as server:
        bench = Bench(server, tmp_path / "inputs", tmp_path / "worker")
        if hunt == "kills of a server":
            counts = hunt_kills(named("serve"), 10, bench, checked=False)
        elif hunt == "full disks":
            small: SmallDisk = request.getfixturevalue("disk")
            on_disk = Bench(server, tmp_path / "inputs", small.folder)
            scenarios = named("inspect", "features", "jpeg encode --out", "serve")
            counts = hunt_full_disks(scenarios, 8, on_disk, small)
        else:
            scenarios = named("fit", "inspect", "features", "jpeg encode --out")
            counts = hunt_changed_inputs(scenarios, 12, bench)
    assert_no_fault(counts)
