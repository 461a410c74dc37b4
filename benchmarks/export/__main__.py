"""Agreement, speed and precision of exported models.

    python -m benchmarks.export parity
    python -m benchmarks.export scenes
    python -m benchmarks.export speed
    python -m benchmarks.export recipes
    python -m benchmarks.export precision
    python -m benchmarks.export peers

Run from the checkout. Each question writes JSON and Markdown into ``benchmarks/results``. Times are of whole calls in turns, so ratios
within one run hold and single figures are of that machine.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.export.parity import parity
from benchmarks.export.peers import peers
from benchmarks.export.precision import precision
from benchmarks.export.scenes import scenes
from benchmarks.export.speed import folders, recipes, stages, whole
from benchmarks.export.tables import markdown
from blemish.inspection.document import versions
from blemish.runtime.sessions import threads
from blemish.storage.atomic import write_json, write_text
from blemish.training.device import choose_machine

RESULTS = Path(__file__).parents[1] / "results"
Rows = Callable[[Path, int], Iterator[dict[str, Any]]]
QUESTIONS: dict[str, dict[str, Rows]] = {
    "parity": {"rows": lambda work, _: parity(work)},
    "scenes": {"rows": lambda work, _: scenes(work)},
    "speed": {"whole": whole, "stages": stages, "folders": folders},
    "recipes": {"rows": recipes},
    "precision": {"rows": precision},
    "peers": {"rows": peers},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("--rounds", type=int, default=15, help="calls that a median is of")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    document: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.export", *sys.argv[1:]]),
        "machine": str(choose_machine()),
        "threads": {"torch": torch.get_num_threads(), "runtimes": threads()},
        "versions": versions(),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in QUESTIONS[options.question].items():
            document[name] = []
            for row in rows(Path(folder), options.rounds):
                print(row, flush=True)
                document[name].append(row)
                write_json(options.out / f"export-{options.question}.json", document)
    write_text(options.out / f"export-{options.question}.md", markdown(options.question, document))


if __name__ == "__main__":
    main()
