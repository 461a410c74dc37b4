"""Fuzzing of every reader and encoder with damaged image files.

    python -m tests.faults fuzz --files 100000 --seed 0 --out benchmarks/results/faults-files.json
    python -m tests.faults fuzz --these build/faults/*

Every file is a function of the seed and its number. Files that gave what nothing may give are kept below ``--keep``.
"""

from __future__ import annotations

import argparse
import gc
import platform
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from blemish.storage.atomic import write_json, write_text
from tests.faults.cases import Case, Cases, DamagedFiles, GivenFiles
from tests.faults.corpus import base_files, scene_files
from tests.faults.tables import files_table
from tests.faults.targets import TARGETS
from tests.faults.watchdog import Limits, Result, measures, watched

OVER = "over_300_mb"
FAULTS = ("wrong", "uncaught", "exit", "hang", OVER)
"""What no file may bring about."""
COLUMNS = ("fine", "refused", *FAULTS)
PACKAGES = (
    "blemish", "numpy", "pillow", "tifffile", "imagecodecs", "jpeglib", "mozjpeg-lossless-optimization", "numba",
)  # fmt: skip

_KEPT = 3
_REPORT_SECONDS = 10


@dataclass
class Tally:
    """Counts by target and outcome, and what was neither fine nor refused.

    by_file: keeps an example for each file instead of one for each place in the code.
    """

    by_file: bool = False
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)
    slowest: float = 0

    def add(self, result: Result, case: Case, limits: Limits) -> list[str]:
        """Count a result; gives the outcomes of which it is one of the first examples."""
        counts = self.counts.setdefault(case.target, Counter())
        counts[result.outcome] += 1
        self.slowest = max(self.slowest, result.seconds)
        faults: list[tuple[str, str, str, str]] = []
        if result.outcome in FAULTS:
            faults.append((result.outcome, result.type, result.message, result.place))
        if result.growth > limits.growth:
            counts[OVER] += 1
            faults.append((OVER, result.outcome, f"{result.growth / 2**20:.0f} MB", ""))
        return [fault[0] for fault in faults if self._is_new(result.index, case, *fault)]

    def _is_new(self, index: int, case: Case, outcome: str, kind: str, message: str, place: str) -> bool:
        # Ends of the process have no place; what the library printed tells them apart.
        where = place or (message if outcome == "exit" else "")
        example = self.examples.setdefault(
            (case.target, outcome, kind, where, case.base if self.by_file else ""),
            {
                "target": case.target,
                "outcome": outcome,
                "type": kind,
                "message": message,
                "place": place,
                "base": case.base,
                "numbers": [],
                "count": 0,
            },
        )
        example["count"] += 1
        if len(example["numbers"]) == _KEPT:
            return False
        example["numbers"].append(index)
        return True

    def document(self) -> dict[str, Any]:
        """The counts, and the examples with those first that came most often."""
        total = sum(self.counts.values(), Counter[str]())
        rows = {**dict(sorted(self.counts.items())), "total": total}
        return {
            "counts": {target: {name: counts[name] for name in COLUMNS} for target, counts in rows.items()},
            "slowest_seconds": self.slowest,
            "examples": sorted(self.examples.values(), key=lambda example: -example["count"]),
        }


def run_cases(
    cases: Cases,
    tally: Tally,
    limits: Limits,
    *,
    keep: Path | None = None,
    only: Sequence[int] = (),
    workers: int = 1,
    show: bool = False,
) -> dict[str, Any]:
    """Run cases in child processes of this one, which should run nothing else, and count what they did.

    Parameters
    ----------
    keep: folder for files that gave what nothing may give.
    only: numbers of the cases to run; all when empty.
    workers: processes at a time.
    show: write progress to stderr.
    """
    begun = shown = time.monotonic()
    numbers = only or range(len(cases))
    for done, result in enumerate(watched(cases.call, cases.batches(numbers), limits, workers), start=1):
        case = cases.case(result.index)
        for outcome in tally.add(result, case, limits):
            if keep is not None:
                name = f"{case.target}-{outcome}-{result.index}-{case.base}".replace(" ", "-")
                keep.mkdir(parents=True, exist_ok=True)
                (keep / name).write_bytes(case.data)
        if show and time.monotonic() - shown > _REPORT_SECONDS:
            shown = time.monotonic()
            print(f"{done} of {len(numbers)} files, {shown - begun:.0f} s", file=sys.stderr, flush=True)
    return {
        "cases": len(numbers),
        "seconds": round(time.monotonic() - begun, 1),
        **tally.document(),
        "limits": asdict(limits),
        "measured": measures(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "platform": platform.platform(),
    }


def prepare(folder: Path) -> None:
    """Load in this process what the targets load, so that its children have it; ``folder`` is for temporary files.

    The lossless recoding is left out: the process that it starts is one child's own.
    """
    ordinary = next(file for file in base_files() if file.name == "420.jpg")
    path = folder / ordinary.name
    path.write_bytes(ordinary.data)
    for name in ("image", "windows", "source", "coefficients", "quality", "mask"):
        TARGETS[name](path)
    scene = scene_files()[0]
    path = folder / scene.name
    path.write_bytes(scene.data)
    TARGETS["scenes"](path)
    gc.freeze()  # or the collector of each child would copy all memory


def add_fuzz(subparsers: Any) -> None:
    """Add the command ``fuzz``."""
    parser = subparsers.add_parser(
        "fuzz",
        help="read damaged image files",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--files", type=int, default=2000, help="mutated files, over all targets")
    parser.add_argument("--cuts", type=int, default=50, help="places at which each base file is cut off")
    parser.add_argument("--seed", type=int, default=0, help="decides every file")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    parser.add_argument(
        "--only", type=int, nargs="+", default=(), metavar="NUMBER", help="run these cases alone"
    )
    parser.add_argument(
        "--these", type=Path, nargs="+", metavar="FILE", help="run every target over these files"
    )
    parser.add_argument("--keep", type=Path, help="folder for files that break a target")
    parser.add_argument("--out", type=Path, help="JSON of counts and examples")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        folder = Path(temporary)
        prepare(folder)
        cases: Cases
        if options.these:
            cases, facts = GivenFiles(folder, options.these), {"given": len(options.these)}
        else:
            cases = DamagedFiles(folder, options.seed, options.files, options.cuts)
            facts = {"seed": options.seed, "mutated": options.files, "cut_off_at": options.cuts}
        found = run_cases(
            cases,
            Tally(by_file=bool(options.these)),
            Limits(),
            keep=options.keep,
            only=options.only,
            workers=options.workers,
            show=True,
        )
    if options.out is not None:
        command = shlex.join(["python", "-m", "tests.faults", *sys.argv[1:]])
        document = {"command": command, **facts, "base_files": len(base_files()), **found}
        write_json(options.out, document)
        write_text(options.out.with_suffix(".md"), files_table(document))
    for target, counts in found["counts"].items():
        print(f"{target:>13}  " + "  ".join(f"{name} {count}" for name, count in counts.items()))
    for example in found["examples"]:
        print(*(f"{name}={value}" for name, value in example.items()), sep="  ")
    return int(bool(found["examples"]))
