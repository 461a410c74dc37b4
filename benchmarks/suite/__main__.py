"""The benchmark suite: speed beside other projects, utilisation, growth of costs and profiles, by one command.

    python -m benchmarks.suite --out benchmarks/results/suite.json
    python -m benchmarks.suite --quick --sections similarity,jpeg --out suite.json

All contenders of a task take turns within one run, so that the ratio of a round holds when the machine's speed drifts; run it
on a machine that does nothing else. Tables (``.md``) and a plot (``.png``) are written beside the JSON. A section that
is run again replaces its own part of the file. Other projects that are not installed are left out, with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.suite.sections import SECTIONS
from benchmarks.suite.tables import markdown, plot
from benchmarks.suite.turns import FULL, QUICK
from blemish.inspection.document import versions
from blemish.storage.atomic import write_json, write_text
from blemish.training.device import choose_machine


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of other projects
    chosen = options.sections.split(",")
    unknown = [name for name in chosen if name not in SECTIONS]
    if unknown:
        raise SystemExit(f"--sections {unknown[0]}: there are {', '.join(SECTIONS)}")
    plan = QUICK if options.quick else FULL
    document: dict[str, Any] = (
        json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {"sections": {}}
    )
    document |= {
        "command": shlex.join(["python", "-m", "benchmarks.suite", *sys.argv[1:]]),
        "machine": str(choose_machine()),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    for name in chosen:
        begun = time.perf_counter()
        command = ["python", "-m", "benchmarks.suite", *(["--quick"] if options.quick else [])]
        found = SECTIONS[name](plan)
        document["sections"][name] = {
            "command": shlex.join([*command, "--sections", name, "--out", str(options.out)]),
            "machine": document["machine"],
            "seconds": round(time.perf_counter() - begun, 1),
            **found,
        }
        print(f"{name}: {document['sections'][name]['seconds']} s", file=sys.stderr, flush=True)
        write_json(options.out, document)  # what is measured stays
    write_text(options.out.with_suffix(".md"), markdown(document))
    plot(options.out.with_suffix(".png"), document)


if __name__ == "__main__":
    main()
