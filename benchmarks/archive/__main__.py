"""Archives on a Ray cluster of processes of this machine.

    python -m benchmarks.archive [kills | throughput]

Run from the checkout, throughput on a machine that does nothing else. ``kills`` inspects an archive while workers and
drivers get SIGKILL, and counts the records; ``throughput`` inspects and encodes with 1, 2 and 4 workers, in turns, and
measures what an image costs. Without a question both are answered. JSON and Markdown go to ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.archive.killed_runs import node_processes, run_with_kills
from benchmarks.archive.tables import kills_table, throughput_table
from blemish.demo.generated import make_sample
from blemish.export.export_model import export_model
from blemish.inspection.detector import load
from blemish.inspection.document import versions
from blemish.jpeg.batch import BatchSettings
from blemish.scale.archive import ArchiveResult, encode_archive, inspect_archive
from blemish.scale.archive_folder import archive_tables
from blemish.scale.cluster import JobSettings
from blemish.storage.atomic import write_json, write_text
from blemish.training.fit import fit

RESULTS = Path(__file__).parents[1] / "results"
WORKERS = (1, 2, 4)
FAMILY, GOOD, RATE = "rod", 40, 0.1


def draw(folder: Path, count: int, size: int, first: int) -> list[str]:
    """Draw good images, and give their names."""
    folder.mkdir(parents=True)
    for number in range(count):
        sample = make_sample(FAMILY, "good", seed=first + number, size=size)
        pixels = np.moveaxis(sample.image, 0, -1).squeeze()
        Image.fromarray(pixels).save(folder / f"{number:06}.png")
    return [path.name for path in folder.iterdir()]


def make_model(work: Path, recipe: str, budget: str, size: int) -> Path:
    """A detector for such images, exported: workers load no torch."""
    draw(work / "good", GOOD, size, 10**6)
    fit(work / "good", recipe, budget=budget, false_reject_rate=RATE, out=work / "fitted")
    export_model(work / "fitted", work / "model", images=work / "good")
    return work / "model"


def kills(options: argparse.Namespace, work: Path, model: Path) -> dict[str, Any]:
    """Counts of jobs whose processes are killed, and how their scores compare with an undisturbed inspection's."""
    names = draw(work / "killed", options.images, options.size, 0)
    (work / "killed" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    names.append("damaged.png")
    detector = load(model)
    runs = []
    with node_processes(options.nodes) as address:
        for seed in range(options.runs):
            out = work / f"killed-{seed}"
            run = run_with_kills(
                model,
                [str(work / "killed")],
                names,
                out,
                address,
                worker_kills=options.kills,
                driver_kills=options.driver_kills,
                seed=seed,
                minutes=options.minutes,
            )
            rows = [
                row for table in archive_tables(out) for row in table.select(["path", "score"]).to_pylist()
            ]
            other = sum(
                row["score"] != detector.inspect(work / "killed" / row["path"]).score
                for row in rows
                if row["score"] is not None
            )
            runs.append(asdict(run) | {"other_scores": other})
            print(runs[-1], flush=True)
    return {"nodes": options.nodes, "runs": runs}


def throughput(options: argparse.Namespace, work: Path, model: Path) -> dict[str, Any]:
    """Images a second by workers, and the costs of one image."""
    draw(work / "images", options.images, options.size, 0)
    rates: dict[str, dict[str, list[float]]] = {}
    costs: dict[str, list[dict[str, float]]] = {}
    for number in range(options.rounds):
        for workers in WORKERS:
            for kind in ("inspection", "encoding"):
                out = work / "out"
                begun = time.process_time()
                done = _job(kind, model, work / "images", out, workers)
                driver = time.process_time() - begun
                working = (done.images - done.starting_images) / (done.seconds - done.starting_seconds)
                rates.setdefault(kind, {}).setdefault(str(workers), []).append(working)
                files = [path.stat().st_size for path in (out / "files").rglob("*.jpg")]
                costs.setdefault(kind, []).append(
                    {
                        "worker_cpu_seconds": done.cpu_seconds / done.images,
                        "driver_cpu_seconds": driver / done.images,
                        "bytes_read": done.bytes_read / done.images,
                        "bytes_of_records": done.bytes_written / done.images,
                        "bytes_of_files": sum(files) / done.images,
                    }
                )
                print(f"round {number}, {kind}, {workers} workers: {working:.3g} images/s", flush=True)
                shutil.rmtree(out)
    medians = {
        kind: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for kind, found in costs.items()
    }
    return {
        "recipe": options.recipe,
        "images": options.images,
        "size": options.size,
        "rounds": options.rounds,
        "images_per_second": rates,
        "costs": medians,
    }


def _job(kind: str, model: Path, images: Path, out: Path, workers: int) -> ArchiveResult:
    job = JobSettings("local", workers)
    if kind == "inspection":
        return inspect_archive(load(model), [str(images)], out, job=job)
    return encode_archive([str(images)], out, settings=BatchSettings(quality=75), job=job)


QUESTIONS = {"kills": (kills, kills_table), "throughput": (throughput, throughput_table)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", choices=list(QUESTIONS), nargs="?")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=256, help="side of an image in pixels")
    parser.add_argument("--recipe", default="blemish")
    parser.add_argument("--budget", default="2m", help="time of the fit")
    parser.add_argument("--rounds", type=int, default=3, help="of throughput")
    parser.add_argument("--runs", type=int, default=2, help="with kills")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20, help="of workers in a run")
    parser.add_argument("--driver-kills", type=int, default=4, help="in a run")
    parser.add_argument("--minutes", type=float, default=60, help="after which a run with kills has failed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    place = sys.argv.index("--out") if "--out" in sys.argv else len(sys.argv)
    said = [*sys.argv[1:place], *sys.argv[place + 2 :]]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = make_model(work, options.recipe, options.budget, options.size)
        for name in [options.question] if options.question else list(QUESTIONS):
            answer, table = QUESTIONS[name]
            document = {
                "command": shlex.join(["python", "-m", "benchmarks.archive", *said]),
                "machine": f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores",
                "versions": versions(),
                **answer(options, work, model),
            }
            write_json(options.out / f"archive-{name}.json", document)
            write_text(options.out / f"archive-{name}.md", table(document))
            print(table(document))


if __name__ == "__main__":
    main()
