"""Realised false-reject rates of scenes that lack a modality, beside the promised one; seeds 0, 1 and 2.

    python benchmarks/missing_modalities.py

Generated paintings of one kind, some for the fit and others to inspect; the fit has the left halves. Inspected are the right halves of
the same paintings, and left halves of the others, complete and without each modality in turn: by the calibration of that set
of modalities, and, to compare, by that of complete scenes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tifffile

from blemish.demo.painting import write_paintings
from blemish.inspection.detector import Detector
from blemish.inspection.scenes import inspect_scenes
from blemish.storage.atomic import write_json, write_text
from blemish.training.device import choose_machine
from blemish.training.fit import fit

RECIPE, RATE = "other-pixels", 0.05
WAYS = {
    "same": "other halves of the paintings of the fit",
    "own": "new paintings",
    "common": "new paintings, by the calibration of complete ones",
}


def write_halves(work: Path, count: int, *, size: int, seed: int) -> tuple[Path, Path]:
    """Folders of the left and of the right halves of generated paintings, each ``size`` columns of 2 × ``size`` rows."""
    whole, halves = work / f"whole-{seed}", (work / f"left-{seed}", work / f"right-{seed}")
    write_paintings(whole, count, size=2 * size, seed=seed)
    for half, columns in zip(halves, (slice(0, size), slice(size, 2 * size)), strict=True):
        for path in sorted(whole.glob("*/*.tif")):
            to = half / path.relative_to(whole)
            to.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(to, tifffile.imread(path)[:, columns])
        shutil.copy(whole / "modalities.yaml", half)
    return halves


def rate(detector: Detector, scenes: Path, missing: Sequence[str], out: Path) -> tuple[int, int]:
    """Squares of all scenes, and those above the threshold."""
    records = inspect_scenes(detector, scenes, out, hide=missing).records
    return sum(record.squares for record in records), sum(record.above for record in records)


def measured(work: Path, seed: int, scenes: int, size: int) -> dict[str, dict[str, float]]:
    """Squares, and the share of them above the threshold, by what is missing, in each way."""
    train, same = write_halves(work, scenes, size=size, seed=1000 * seed)
    new, _ = write_halves(work, scenes, size=size, seed=1000 * seed + scenes)
    settings = [f"training.seed={seed}"]
    detector = fit(train, RECIPE, settings=settings, false_reject_rate=RATE)
    common = detector.with_file(detector.file.model_copy(update={"without": ()}))
    found: dict[str, dict[str, float]] = {}
    for name in ("nothing", *(one.name for one in detector.file.preprocessing.modalities)):
        missing = () if name == "nothing" else (name,)
        found[name] = {}
        for way, own, test in (("same", detector, same), ("own", detector, new), ("common", common, new)):
            squares, above = rate(own, test, missing, work / f"{name}-{way}")
            found[name] |= {way: above / squares, "squares": squares}
        print(f"seed {seed}, without {name}: {found[name]}", flush=True)
    return found


def markdown(document: dict[str, Any]) -> str:
    """Mean and range over the seeds, by what is missing."""
    text = f"`{document['command']}`, on {document['machine']}; promised: {100 * document['promised']:g} % of the squares"
    seeds = document["seeds"].values()
    squares = sum(one["nothing"]["squares"] for one in seeds)
    text += f"; {len(document['seeds'])} seeds of {document['scenes']} paintings, {squares} squares of each kind in all:\n\n"
    text += f"| missing | {' | '.join(WAYS.values())} |\n| --- |{' ---: |' * len(WAYS)}\n"
    for name in next(iter(seeds)):
        cells = []
        for way in WAYS:
            rates = [100 * one[name][way] for one in seeds]
            cells.append(f"{statistics.fmean(rates):.1f} % ({min(rates):.1f} to {max(rates):.1f})")
        text += f"| {name} | {' | '.join(cells)} |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--scenes", type=int, default=6, help="paintings for the fit, and as many to inspect")
    parser.add_argument("--size", type=int, default=256, help="columns of a half")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/missing_modalities.json"))
    options = parser.parse_args()
    document: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/missing_modalities.py", *sys.argv[1:]]),
        "machine": str(choose_machine()),
        "recipe": RECIPE,
        "promised": RATE,
        "scenes": options.scenes,
        "size": options.size,
        "seeds": {},
    }
    for seed in map(int, options.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            document["seeds"][str(seed)] = measured(Path(folder), seed, options.scenes, options.size)
        write_json(options.out, document)
    write_text(options.out.with_suffix(".md"), markdown(json.loads(options.out.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
