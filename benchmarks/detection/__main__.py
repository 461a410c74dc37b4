"""Quality of the detector, the contribution of its parts, and whether its promises are kept.

    python -m benchmarks.detection table DATA/mvtec_screw DATA/magnetic_tile --recipes blemish,ssim-ae --seeds 0,1,2
    python -m benchmarks.detection ablation DATA/mvtec_screw
    python -m benchmarks.detection parts DATA/mvtec_screw
    python -m benchmarks.detection members DATA/mvtec_screw
    python -m benchmarks.detection defects DATA/mvtec_screw
    python -m benchmarks.detection extractors DATA/mvtec_screw
    python -m benchmarks.detection invariance rod --budget 2m
    python -m benchmarks.detection mistakes DATA/mvtec_screw
    python -m benchmarks.detection ensemble DATA/mvtec_screw --seeds 0,1,2
    python -m benchmarks.detection contamination DATA/mvtec_screw --shares 0,0.05,0.1 --trim
    python -m benchmarks.detection few DATA/mvtec_screw --counts 5,10,20,40,80,160
    python -m benchmarks.detection rates DATA/mvtec_screw --rates 0.01,0.05,0.1,0.2

Run from the checkout. Each question is a module of its own; it names folders of data sets in the MVTec layout and
writes JSON, Markdown and a plot to ``--out``. Fits and measurements are kept in ``--work``, from which a stopped run
goes on; remove it when the detector has changed. For curves there is ``--fast``: the memory bank decides alone.

A table that takes days, such as ``table DATA --recipes papers --budget 1h``, grows with ``--keep``: rows of other
recipes and seeds in the same table in ``--out``, perhaps measured on another machine, stay, and each recipe is added
when it is done. Every row in the JSON names its command and machine. ``table … --on local`` spreads recipes and seeds over the
tasks of a Ray cluster.

``python -m benchmarks.detection.choice --out FOLDER`` reads the tables of ``members`` there, and says which members each family
of sets would get from the labels of the others.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib

from benchmarks.detection import (
    ablation,
    contamination,
    defects,
    ensemble,
    extractors,
    few,
    invariance,
    members,
    mistakes,
    parts,
    rates,
    table,
)
from benchmarks.detection.options import shared
from benchmarks.detection.trials import Bench
from blemish.demo.generated import FAMILIES
from blemish.inspection.document import versions
from blemish.observer import Observer
from blemish.preprocessing.pose import kept_poses
from blemish.storage.atomic import atomic_path, write_json, write_text
from blemish.training.device import choose_machine
from studies.protocol import generated
from studies.spreading import spread_over

QUESTIONS: dict[str, ModuleType] = {
    "table": table,
    "ablation": ablation,
    "parts": parts,
    "members": members,
    "defects": defects,
    "extractors": extractors,
    "invariance": invariance,
    "mistakes": mistakes,
    "ensemble": ensemble,
    "contamination": contamination,
    "few": few,
    "rates": rates,
}


def main() -> None:
    run(sys.argv[1:])


def run(words: Sequence[str], observer: Observer | None = None) -> None:
    """Answer the question that the command line ``words`` asks; ``observer`` is told of the fits of a table."""
    options = parsed(words)
    options.observer = observer or Observer()
    line = command(options, words)
    datasets = [drawn(dataset, options.work, options.strength) for dataset in options.datasets]
    benches = [Bench(options, dataset) for dataset in datasets]
    options.stem = stem_of(options)
    question = QUESTIONS[options.question]
    # Most of the time of a fit without training goes into finding poses, of the same images in every fit.
    with spread_over(options.on), kept_poses(joblib.Memory(options.work / "poses", verbose=0).cache):
        if question is table:
            # A table that grows is written after each recipe, so that a stop costs nothing that is done.
            for recipes in [[recipe] for recipe in options.recipes] if options.keep else [options.recipes]:
                write(table.answer(benches, options, recipes, line), table, benches, options, line)
        else:
            write(question.answer(benches[0], options), question, benches, options, line)


def parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.detection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    questions = parser.add_subparsers(dest="question", required=True)
    for name, module in QUESTIONS.items():
        module.add_options(questions.add_parser(name, parents=[shared()], help=module.HELP))
    return parser.parse_args(words)


def drawn(dataset: Path, work: Path, strength: float) -> Path:
    """``dataset``, or the folder of a generated one where it only names a family."""
    if dataset.exists() or str(dataset) not in FAMILIES:
        return dataset
    return generated(
        work,
        str(dataset),
        good=120,
        test_good=40,
        per_blemish=12,
        size=256,
        observer=Observer(),
        strength=strength,
    )


def command(options: argparse.Namespace, given: Sequence[str]) -> str:
    """The line that repeats the run, but for the folders of data sets, fits and results."""
    words: list[str] = ["python", "-m", "benchmarks.detection"]
    rest = iter(given)
    folders = {str(path) for path in options.datasets}
    for word in rest:
        if word in ("--work", "--out", "--on"):
            next(rest)
        elif not word.startswith(("--work=", "--out=", "--on=")):
            words.append(Path(word).resolve().name if str(Path(word)) in folders else word)
    return shlex.join(words)


def stem_of(options: argparse.Namespace) -> str:
    """Name of the results, without an ending."""
    names = [dataset.resolve().stem for dataset in options.datasets]
    strength = f"strength-{options.strength:g}".replace(".", "_") if options.strength != 1 else None
    return "-".join(["detection", options.question, *names, *filter(None, [strength, options.budget])])


def write(
    found: dict[str, Any],
    question: ModuleType,
    benches: Sequence[Bench],
    options: argparse.Namespace,
    line: str,
) -> None:
    """Write JSON, Markdown and plot of an answer."""
    names = [bench.dataset.resolve().stem for bench in benches]
    text, figure = found.pop("markdown"), found.pop("figure")
    document = {
        "command": line,
        "datasets": names,
        "seeds": options.seeds,
        "settings": benches[0].settings,
        "machine": str(choose_machine()),
        "versions": versions(),
        "seconds": round(sum(bench.seconds for bench in benches)),
        **found,
    }
    write_json(options.out / f"{options.stem}.json", document)
    words = " ".join(str(question.answer.__doc__).split())
    how = f"Means of {len(options.seeds)} seeds, with their range." if len(options.seeds) > 1 else "One seed."
    if options.keep:
        how = "Means over the seeds of each row, with their range."
    text = f"# {options.question}: {', '.join(names)}\n\n{words} {how}\n\n    {line}\n\n{text}"
    write_text(options.out / f"{options.stem}.md", text)
    with atomic_path(options.out / f"{options.stem}.png") as path:
        figure.savefig(path, dpi=90, format="png")
    print(text)


if __name__ == "__main__":
    main()
