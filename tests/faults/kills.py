"""Kills of the product's commands, spread over scenarios and over the moments of each.

    python -m tests.faults kills --kills 1000 --seed 0 --out benchmarks/results/faults-kills.json

A killed command is typed again; where the product refuses, with the option that its message offers, ``--resume`` before
``--overwrite``. The end state must be that of an undisturbed run: no record or file lost, none twice, none with other
content, and no file left over.
"""

from __future__ import annotations

import argparse
import platform
import queue
import random
import shlex
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from blemish.storage.atomic import write_json, write_text
from tests.faults.end_state import differences
from tests.faults.fork_server import ForkServer
from tests.faults.inputs import make_inputs
from tests.faults.kill import Bench, Outcome, Place, Undisturbed
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.tables import kills_table

FAULTS = ("lost", "doubled", "wrong", "refused", "left_overs", "unresumed")
"""Counts that have to be 0."""
EXAMPLES = 3
"""Examples that are kept of each scenario and fault."""
PACKAGES = ("blemish", "numpy", "pillow", "torch", "safetensors", "tifffile", "zarr")


@dataclass
class Counts:
    """Outcomes of the kills of one scenario; one kill may have several faults."""

    operations: int = 0
    """File operations of an undisturbed run."""
    kills: int = 0
    recovered: int = 0
    """Kills without any fault."""
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    refused: int = 0
    """Kills after which no option that the product offers helps."""
    left_overs: int = 0
    unresumed: int = 0
    """Kills after which a checkpoint was there, and the product refused without offering to resume it."""
    seconds: float = 0.0
    """Of the killed and the repeated commands."""
    refusals: Counter[tuple[str, tuple[str, ...], str]] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def faults(self) -> dict[str, int]:
        """Number of kills with each fault."""
        return {fault: getattr(self, fault) for fault in FAULTS}

    def add(self, outcome: Outcome) -> None:
        """Count one kill."""
        self.kills += 1
        self.seconds += outcome.seconds
        for refusal in outcome.refusals:
            self.refusals[refusal.message, refusal.offered, refusal.helped] += 1
        faults = _faults_of(outcome)
        self.recovered += not faults
        for fault in faults:
            setattr(self, fault, getattr(self, fault) + 1)
            examples = self.examples.setdefault(fault, [])
            if len(examples) < EXAMPLES:
                examples.append(_example(outcome))

    def as_json(self) -> dict[str, Any]:
        """The counts as a JSON document."""
        return {
            "operations": self.operations,
            "kills": self.kills,
            "recovered": self.recovered,
            **self.faults,
            "seconds_per_kill": round(self.seconds / max(1, self.kills), 3),
            "refusals": [
                {"message": message, "offered": list(offered), "helped": helped, "kills": count}
                for (message, offered, helped), count in self.refusals.most_common()
            ],
            "examples": self.examples,
        }


def _faults_of(outcome: Outcome) -> list[str]:
    found = outcome.found
    has = {
        "lost": bool(found.lost),
        "doubled": bool(found.doubled),
        "wrong": bool(found.wrong),
        "refused": not outcome.recovered,
        "left_overs": bool(found.left_overs),
        "unresumed": outcome.unresumed,
    }
    return [fault for fault, there in has.items() if there]


def _example(outcome: Outcome) -> dict[str, Any]:
    lines = outcome.found.lines
    return {
        "killed": outcome.at,
        "refusals": [
            f"{refusal.message} → {refusal.helped or 'none helped'}" for refusal in outcome.refusals
        ],
        "differences": [*lines[:8], *([f"and {len(lines) - 8} more"] if len(lines) > 8 else [])],
        "last_message": outcome.message,
    }


def places(kills: int, rng: random.Random) -> list[Place]:
    """Moments of ``kills`` kills, half by operation and half by time, each half spread evenly with some chance."""
    by_operation = (kills + 1) // 2
    return [
        Place((number + rng.random()) / count, by)
        for count, by in ((by_operation, True), (kills - by_operation, False))
        for number in range(count)
    ]


def shares(kills: int, scenarios: Sequence[Scenario]) -> list[int]:
    """Number of kills of each scenario, as even as can be."""
    each, more = divmod(kills, len(scenarios))
    return [each + (number < more) for number in range(len(scenarios))]


def run_kills(
    scenarios: Sequence[Scenario],
    kills: int,
    benches: Sequence[Bench],
    *,
    seed: int = 0,
    checked: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Counts]:
    """Kill the scenarios, ``kills`` times in all, and count the outcomes of each by its name.

    Parameters
    ----------
    benches: places of the runs, each for one command at a time; they share their inputs.
    seed: of the moments of the kills.
    checked: whether each scenario is first run twice undisturbed, to see that its end state is the same.
    tell: hears of the progress, line by line.

    Raises
    ------
    RuntimeError
        When a scenario fails undisturbed, or when two undisturbed runs differ.
    """
    rng = random.Random(seed)
    counts = {scenario.name: Counts() for scenario in scenarios}
    references = _undisturbed(benches[0], scenarios, checked=checked, tell=tell)
    for name, reference in references.items():
        counts[name].operations = reference.operations
    jobs = [
        (scenario, place)
        for scenario, share in zip(scenarios, shares(kills, scenarios), strict=True)
        for place in places(share, rng)
    ]
    # All scenarios from the beginning, so that the progress that is told is of all.
    rng.shuffle(jobs)
    free: queue.SimpleQueue[Bench] = queue.SimpleQueue()
    for bench in benches:
        free.put(bench)
    lock = threading.Lock()

    def work(job: tuple[Scenario, Place]) -> None:
        scenario, place = job
        bench = free.get()
        try:
            outcome = bench.kill(scenario, references[scenario.name], place)
        finally:
            free.put(bench)
        with lock:
            counts[scenario.name].add(outcome)
            done = sum(count.kills for count in counts.values())
            if done % 20 == 0 or done == len(jobs):
                tell(f"{done} of {len(jobs)} kills: {_in_words(total(counts))}")

    with ThreadPoolExecutor(len(benches)) as pool:
        list(pool.map(work, jobs))
    return counts


def _undisturbed(
    bench: Bench, scenarios: Sequence[Scenario], *, checked: bool, tell: Callable[[str], None]
) -> dict[str, Undisturbed]:
    references = {}
    for scenario in scenarios:
        make_inputs(scenario.inputs, bench.inputs, bench.server)
        first = bench.undisturbed(scenario)
        if checked and (lines := differences(first.state, bench.undisturbed(scenario).state).lines):
            raise RuntimeError(f"{scenario.name}: two undisturbed runs differ: {'; '.join(lines)}")
        tell(f"{scenario.name}: {first.operations} file operations in {first.seconds:.2f} s undisturbed")
        references[scenario.name] = first
    return references


def total(counts: Mapping[str, Counts]) -> dict[str, int]:
    """Counts over all scenarios."""
    keys = ("kills", "recovered", *FAULTS)
    return {key: sum(getattr(count, key) for count in counts.values()) for key in keys}


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {key.replace('_', ' ')}" for key, count in counts.items() if key != "kills")


def add_kills(subparsers: Any) -> None:
    """Add the command ``kills``."""
    parser = subparsers.add_parser(
        "kills",
        help="kill commands and type them again",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=200, help="over all scenarios")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments of the kills")
    parser.add_argument("--workers", type=int, default=1, help="commands at a time")
    parser.add_argument("--only", nargs="+", default=(), metavar="SCENARIO", help="kill these alone")
    parser.add_argument("--out", type=Path, help="JSON of counts and examples")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    """Kill, print the counts, write them, and give the exit status: 1 where there is any fault."""
    known = {scenario.name: scenario for scenario in SCENARIOS}
    if unknown := [name for name in options.only if name not in known]:
        print(f"no scenario {unknown[0]!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    scenarios = [known[name] for name in options.only] or list(SCENARIOS)
    begun = time.perf_counter()

    def tell(line: str) -> None:
        print(f"{time.perf_counter() - begun:7.1f} s  {line}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="faults-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        benches = [
            Bench(stack.enter_context(ForkServer()), folder / "inputs", folder / f"worker-{number}")
            for number in range(options.workers)
        ]
        counts = run_kills(scenarios, options.kills, benches, seed=options.seed, tell=tell)
    for name, count in counts.items():
        print(f"{name:<45} {count.kills:5} kills, {_in_words(total({name: count}))}")
    sums = total(counts)
    print(f"{'all':<45} {sums['kills']:5} kills, {_in_words(sums)}")
    if options.out is not None:
        document = {
            "command": shlex.join(["python", "-m", "tests.faults", *sys.argv[1:]]),
            "seed": options.seed,
            "total": sums,
            "scenarios": {name: count.as_json() for name, count in counts.items()},
            "seconds": round(time.perf_counter() - begun, 1),
            "workers": options.workers,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": {package: version(package) for package in PACKAGES},
        }
        write_json(options.out, document)
        write_text(options.out.with_suffix(".md"), kills_table(document))
    return int(any(sums[fault] for fault in FAULTS))
