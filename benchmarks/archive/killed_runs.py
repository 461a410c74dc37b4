"""Ray clusters of several node processes on this machine, and runs on them whose processes are killed."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from blemish.scale.archive_folder import LOG_FILE, archive_tables

DRIVER = """
import json, sys
from blemish.inspection.detector import load
from blemish.scale.archive import inspect_archive
from blemish.scale.cluster import JobSettings
model, sources, out, job = json.loads(sys.argv[1])
inspect_archive(load(model), sources, out, job=JobSettings(**job), resume=True)
"""
_POLL = 0.05


@contextmanager
def node_processes(nodes: int, *, client_port: int | None = None) -> Iterator[str]:
    """Start a head without cores and ``nodes`` nodes of one core each, and give the address; loopback alone."""
    wanted = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
    }
    os.environ.update(wanted)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False}
    if client_port is not None:
        head["ray_client_server_port"] = client_port
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


def worker_processes() -> list[int]:
    """Processes below this one that hold an actor which works on images."""
    return [process for process, command in _below_this_one() if command.startswith(b"ray::MapWorker")]


def listening_addresses(*programs: bytes) -> set[str]:
    """Addresses, in the hexadecimal of Linux, on which processes of Ray below this one wait for connections.

    ``programs``: words in their commands.
    """
    sockets = set()
    for process in [one for one, command in _below_this_one() if any(name in command for name in programs)]:
        for file in Path("/proc", str(process), "fd").glob("*"):
            with suppress(OSError):  # it was closed meanwhile
                sockets.add(os.readlink(file))
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def _below_this_one() -> list[tuple[int, bytes]]:
    """Processes below this one, and their commands."""
    found = {process: words for process in _running() if (words := _process(process)) is not None}
    parents = {process: parent for process, (parent, _) in found.items()}
    return [
        (process, command)
        for process, (_, command) in found.items()
        if os.getpid() in _above(process, parents)
    ]


def _running() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _process(number: int) -> tuple[int, bytes] | None:
    """Parent and command of a process; None where it ended meanwhile."""
    path = Path("/proc") / str(number)
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[1]), (path / "cmdline").read_bytes()
    except OSError:
        return None


def _above(process: int, parents: dict[int, int]) -> Iterator[int]:
    while process in parents:
        process = parents[process]
        yield process


@dataclass(frozen=True)
class KilledRun:
    """Counts of a job whose processes were killed."""

    images: int
    worker_kills: int
    driver_kills: int
    records: int
    lost: int
    doubled: int
    errors: int


def run_with_kills(
    model: Path,
    sources: Sequence[str],
    names: Sequence[str],
    out: Path,
    address: str,
    *,
    worker_kills: int,
    driver_kills: int,
    seed: int,
    part: int = 16,
    minutes: float = 30.0,
) -> KilledRun:
    """Inspect ``sources`` while processes get SIGKILL at random moments, and count the records.

    Every kill of a worker comes at a random moment after a part was finished, so that the job goes on; kills of the
    driver come when equal shares of the images are finished, and each is followed by a start with ``resume``.

    Parameters
    ----------
    names: of the images, of which there must be one record each.
    minutes: after which the run has failed.
    """
    chance = random.Random(seed)
    job = {"on": address, "part": part, "seconds": 1.0}
    words = json.dumps([str(model), list(sources), str(out), job])
    until = time.monotonic() + 60 * minutes
    killed_workers = killed_drivers = 0
    shares = [len(names) * (number + 1) // (driver_kills + 1) for number in range(driver_kills)]
    at_last_kill = -1
    driver = _start(words)
    try:
        while True:
            assert time.monotonic() < until, f"not finished after {minutes:g} minutes"
            finished = _finished(out)
            if killed_drivers < driver_kills and finished >= shares[killed_drivers]:
                time.sleep(chance.uniform(0, 0.2))
                driver.send_signal(signal.SIGKILL)
                driver.wait()
                killed_drivers += 1
                driver = _start(words)
            elif killed_workers < worker_kills and finished > at_last_kill and (found := worker_processes()):
                time.sleep(chance.uniform(0, 0.2))
                try:
                    os.kill(chance.choice(found), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                killed_workers += 1
                at_last_kill = finished
            elif driver.poll() is not None:
                assert driver.returncode == 0, f"the driver ended with {driver.returncode}"
                break
            time.sleep(_POLL)
    finally:
        driver.kill()
        driver.wait()
    counts: Counter[str] = Counter()
    errors = 0
    for table in archive_tables(out):
        counts.update(table.column("path").to_pylist())
        errors += table.num_rows - table.column("error").null_count
    return KilledRun(
        images=len(names),
        worker_kills=killed_workers,
        driver_kills=killed_drivers,
        records=counts.total(),
        lost=len(set(names) - set(counts)),
        doubled=sum(count - 1 for count in counts.values()),
        errors=errors,
    )


def _start(words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", DRIVER, words], stdout=subprocess.DEVNULL)


def _finished(out: Path) -> int:
    """Images in finished parts."""
    try:
        lines = (out / LOG_FILE).read_bytes().split(b"\n")[:-1]
    except OSError:
        return 0
    return sum(json.loads(line)["images"] for line in lines)
