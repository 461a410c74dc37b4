"""Faults: kills, full disks and inputs that change under way, for every command that leaves something on disk.

    python -m benchmarks.faults --kills 1000 --seed 0 --out benchmarks/results/faults.json

Run at the root of the checkout, on Linux. Each command is run on tiny generated images in a process of its own that is
disturbed: killed by SIGKILL, half of the times just before its n-th file operation, half at a random moment, and in three
of ten again while it repairs; on a disk that is too small, which needs root; or while an image vanishes, gets other content,
or is cut off. Then it is typed again, with the option that its message offers where it refuses, and the end state is
compared with that of an undisturbed run (``tests/faults/end_state.py`` says what is left out: times, and what follows from them).

The counts are written after every twenty trials. A run that was interrupted goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from blemish.storage.atomic import write_json, write_text
from tests.faults.counts import FAULTS, Counts, from_json, in_words, total
from tests.faults.fork_server import ForkServer
from tests.faults.full_disk import SmallDisk, why_not
from tests.faults.hunts import hunt_changed_inputs, hunt_full_disks, hunt_kills
from tests.faults.kill import Bench
from tests.faults.scenarios import SCENARIOS
from tests.faults.tables import hunts_table

PACKAGES = ("blemish", "numpy", "pillow", "torch", "safetensors", "tifffile", "zarr", "fastapi", "sqlalchemy")
HUNTS = ("kills", "full_disks", "changed_inputs")
OFTEN = 20
"""Trials after which the counts are written."""


def main() -> int:
    """Run the hunts; 1 where there is any fault."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=1000, help="kills that hit a running process, in all")
    parser.add_argument("--full-disks", type=int, help="commands on a full disk, in all [a tenth of --kills]")
    parser.add_argument("--changed-inputs", type=int, help="changes of an input, in all [a fifth of --kills]")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--only", nargs="+", default=(), metavar="JOB", help="disturb these alone")
    parser.add_argument("--anew", action="store_true", help="do not go on with the counts in --out")
    parser.add_argument("--out", type=Path, required=True, help="JSON of counts and examples")
    options = parser.parse_args()
    known = {scenario.name: scenario for scenario in SCENARIOS}
    if unknown := [name for name in options.only if name not in known]:
        parser.error(f"no job {unknown[0]!r}; there are {', '.join(known)}")
    scenarios = [known[name] for name in options.only] or list(SCENARIOS)
    hits = {
        "kills": options.kills,
        "full_disks": options.kills // 10 if options.full_disks is None else options.full_disks,
        "changed_inputs": options.kills // 5 if options.changed_inputs is None else options.changed_inputs,
    }
    before = _before(options)
    counts: dict[str, dict[str, Counts]] = {
        hunt: {name: from_json(one) for name, one in before.get(hunt, {}).get("jobs", {}).items()}
        for hunt in HUNTS
    }
    skipped: dict[str, str] = {}
    begun, spent = time.perf_counter(), before.get("seconds", 0.0)

    def save() -> None:
        document = {
            "command": shlex.join(["python", "-m", "benchmarks.faults", *sys.argv[1:]]),
            "seed": options.seed,
            **{hunt: _as_json(hits[hunt], counts[hunt], skipped.get(hunt)) for hunt in HUNTS},
            "seconds": round(spent + time.perf_counter() - begun, 1),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": {package: version(package) for package in PACKAGES},
        }
        write_json(options.out, document)
        write_text(options.out.with_suffix(".md"), hunts_table(document))

    def telling(hunt: str) -> Callable[[str], None]:
        def tell(line: str) -> None:
            print(
                f"{time.perf_counter() - begun:8.1f} s  {hunt.replace('_', ' ')}: {line}",
                file=sys.stderr,
                flush=True,
            )
            if total(counts[hunt])["trials"] % OFTEN == 0:
                save()

        return tell

    with tempfile.TemporaryDirectory(prefix="faults-") as temporary, ExitStack() as stack:
        stack.callback(save)
        folder = Path(temporary)
        server = stack.enter_context(ForkServer())
        bench = Bench(server, folder / "inputs", folder / "kills")
        more: dict[str, Any] = {"seed": options.seed}
        hunt_changed_inputs(
            scenarios, hits["changed_inputs"], bench,
            counts=counts["changed_inputs"], tell=telling("changed_inputs"), **more,
        )  # fmt: skip
        if reason := why_not(folder / "tried"):
            skipped["full_disks"] = reason
            print(f"full disks are skipped: {reason}", file=sys.stderr)
        else:
            disk = stack.enter_context(SmallDisk(folder / "disk"))
            on_disk = Bench(server, folder / "inputs", disk.folder)
            hunt_full_disks(
                scenarios, hits["full_disks"], on_disk, disk,
                counts=counts["full_disks"], tell=telling("full_disks"), **more,
            )  # fmt: skip
        hunt_kills(scenarios, hits["kills"], bench, counts=counts["kills"], tell=telling("kills"), **more)
    found = 0
    for hunt in HUNTS:
        for name, count in counts[hunt].items():
            print(f"{hunt:<15} {name:<45} {in_words(total({name: count}))}")
            found += sum(count.faults.values())
    return int(found > 0)


def _before(options: argparse.Namespace) -> dict[str, Any]:
    """The document of an interrupted run of the same seed; an empty one where there is none."""
    if options.anew or not options.out.exists():
        return {}
    document: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8"))
    if document["seed"] != options.seed:
        sys.exit(f"{options.out}: is of seed {document['seed']}; pass --anew to begin anew")
    return document


def _as_json(asked: int, counts: dict[str, Counts], skipped: str | None) -> dict[str, Any]:
    sums = total(counts)
    return {
        "asked": asked,
        "total": sums,
        "without_fault": not any(sums[fault] for fault in FAULTS),
        **({"skipped": skipped} if skipped else {}),
        "jobs": {name: count.as_json() for name, count in counts.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
