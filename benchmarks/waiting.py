"""Training speed of `blemish` on all cores, idle and beside other work, by how OpenMP's threads wait for each other.

    python benchmarks/waiting.py --out benchmarks/results/waiting.json

A thread that spins while it waits keeps the core from whoever could finish; one that sleeps leaves it to them. The
command line asks for sleeping (``OMP_WAIT_POLICY=PASSIVE``), which must be set before torch is loaded, so each figure is
that of a process of its own. Every round times all contenders one after the other.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blemish.storage.atomic import write_json
from blemish.training.device import choose_machine
from training import BATCH, make_step

POLICIES = ("default", "PASSIVE")
LOADS = {"idle": 0, "beside one busy process": 1}
BUSY = "while True: pass"


def speed(seconds: float) -> float:
    """Patches a second of training."""
    step = make_step("blemish", choose_machine().precision == "bfloat16", True, False)
    step()
    begun, steps = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        step()
        steps += 1
    return steps * BATCH / (time.perf_counter() - begun)


@contextmanager
def beside(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of training a contender and round")
    parser.add_argument("--one", action="store_true", help="print the speed of this process alone")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one:
        print(speed(options.seconds))
        return
    free = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    speeds: dict[str, dict[str, list[float]]] = {load: {policy: [] for policy in POLICIES} for load in LOADS}
    for _ in range(options.rounds):
        for load, count in LOADS.items():
            for policy in POLICIES:
                environment = free if policy == "default" else {**free, "OMP_WAIT_POLICY": policy}
                line = [sys.executable, __file__, "--one", f"--seconds={options.seconds}"]
                with beside(count):
                    done = subprocess.run(line, env=environment, check=True, capture_output=True, text=True)
                speeds[load][policy].append(float(done.stdout))
                print(f"{load}, {policy}: {speeds[load][policy][-1]:.1f} patches a second", flush=True)
    ratios = {
        load: [
            passive / default for default, passive in zip(*(some[policy] for policy in POLICIES), strict=True)
        ]
        for load, some in speeds.items()
    }
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": str(choose_machine()),
        "patches_per_second": speeds,
        "ratios": {
            load: {"min": min(some), "median": statistics.median(some), "max": max(some)}
            for load, some in ratios.items()
        },
    }
    print(result["ratios"])
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
