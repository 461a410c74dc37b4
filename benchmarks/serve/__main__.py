"""Load, processor time, memory, fuzzing and history of ``blemish serve``.

    python -m benchmarks.serve load [--requests 96] [--rounds 5]
    python -m benchmarks.serve cost [--requests 96] [--rounds 5]
    python -m benchmarks.serve memory [--requests 10000]
    python -m benchmarks.serve fuzz [--requests 10000] [--seed 0]
    python -m benchmarks.serve history [--rows 1000000] [--rounds 5]

Run from the checkout, on a machine that does nothing else. Each question writes JSON and Markdown into
``benchmarks/results``. Throughputs are taken in turns, so that their ratios within one run hold.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from benchmarks.serve.tables import cost_table, fuzz_table, load_table, memory_table
from blemish.inspection.document import versions
from blemish.runtime.sessions import threads
from blemish.storage.atomic import write_json, write_text

RESULTS = Path(__file__).parents[1] / "results"


def _said(words: list[str]) -> list[str]:
    """The command without where its results went."""
    place = words.index("--out") if "--out" in words else len(words)
    return [*words[:place], *words[place + 2 :]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", choices=["load", "cost", "memory", "fuzz", "history"])
    parser.add_argument("--requests", type=int, help="of a turn (load and cost, 96), or in all (10000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000, help="decisions of the history")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    document: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.serve", *_said(sys.argv[1:])]),
        "machine": f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "threads": threads(),
        "versions": versions(),
    }
    if options.question == "load":
        from benchmarks.serve.load import load_figures

        document["throughput"] = []
        for row in load_figures(options.requests or 96, options.rounds):
            print(row, flush=True)
            document["throughput"].append(row)
            write_json(options.out / "serve-load.json", document)
        text = load_table(document)
    elif options.question == "cost":
        from benchmarks.serve.load import cost_figures

        document["processor_time"] = list(cost_figures(options.requests or 96, options.rounds))
        text = cost_table(document)
    elif options.question == "memory":
        from benchmarks.serve.load import memory_figures

        document |= memory_figures(options.requests or 10_000)
        text = memory_table(document)
    elif options.question == "history":
        from benchmarks.serve.history import history_figures, history_table

        document |= history_figures(options.rows, options.rounds, seed=options.seed)
        text = history_table(document)
    else:
        from benchmarks.serve.fuzz import fuzz

        document |= fuzz(options.requests or 10_000, options.seed)
        text = fuzz_table(document)
    write_json(options.out / f"serve-{options.question}.json", document)
    write_text(options.out / f"serve-{options.question}.md", text)
    print(text)


if __name__ == "__main__":
    main()
