"""Measures what a fit and an inspection cost: whether a budget is kept, and the time of an image on one core.

    python -m benchmarks.cost fit --counts 100,1000 --budgets 60,300
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=1 python -m benchmarks.cost inspect

Images are generated surfaces of 256 × 256 pixels. ``fit`` gives the seconds of whole fits, and of the network in them.
``inspect`` gives milliseconds from decoded image to map and score, median over images in interleaved rounds, for each
recipe and for each member of its ensemble; the command above is that of a processor without bfloat16. Each part keeps the
other's figures in the same file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from blemish.data.datasets import find_images
from blemish.data.image import read_image
from blemish.demo.generated import write_dataset
from blemish.detectors.ensemble import Ensemble
from blemish.inspection.document import versions
from blemish.observer import Observer
from blemish.storage.atomic import write_json
from blemish.training.device import choose_machine
from blemish.training.fit import fit

RESULT = Path(__file__).parent / "results" / "cost.json"
RECIPES = ("blemish", "blemish-small", "filter-bank")
ROUNDS, IMAGES = 5, 8


class Stages(Observer):
    """Keeps the stages of a fit, with the seconds at which they began."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.stages: list[tuple[float, str]] = []

    def stage(self, text: str) -> None:
        self.stages.append((round(time.perf_counter() - self.begun, 2), text))


def fits(work: Path, counts: list[int], budgets: list[float]) -> list[dict[str, Any]]:
    rows = []
    for count in counts:
        good = (
            write_dataset(work / str(count), "surface", good=count, test_good=0, per_blemish=0)
            / "train"
            / "good"
        )
        for budget in budgets:
            observer = Stages()
            detector = fit(good, budget=budget, observer=observer)
            seconds = time.perf_counter() - observer.begun
            network = detector.file.training.seconds
            rows.append(
                {
                    "images": count,
                    "budget": budget,
                    "seconds": round(seconds, 1),
                    "network_seconds": round(network, 1),
                    "share_of_the_rest": round((seconds - network) / budget, 3),
                    "steps": detector.file.training.steps,
                    "stages": observer.stages,
                }
            )
            print(
                f"{count} images, budget {budget:.0f} s: {seconds:.1f} s, network {network:.1f} s", flush=True
            )
    return rows


def inspections(work: Path) -> list[dict[str, Any]]:
    folder = write_dataset(work, "surface", good=60, test_good=IMAGES, per_blemish=0)
    images = [read_image(item.path) for item in find_images(folder / "test" / "good")]
    detectors = {
        name: fit(folder / "train" / "good", name, settings=["training.budget=null", "training.steps=2"])
        if name != "filter-bank"
        else fit(folder / "train" / "good", name)
        for name in RECIPES
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for image in images:
            for name, detector in detectors.items():
                begun = time.perf_counter()
                detector.measure(image)
                seconds.setdefault((name, "whole"), []).append(time.perf_counter() - begun)
                ensemble = detector.model
                assert isinstance(ensemble, Ensemble)
                x = detector.file.preprocessing.apply(image).model_input
                for member, model in zip(ensemble.names, ensemble.models, strict=True):
                    begun = time.perf_counter()
                    model.maps(x)
                    seconds.setdefault((name, member), []).append(time.perf_counter() - begun)
    return [
        {"recipe": recipe, "part": part, "milliseconds": round(1000 * median(values), 1)}
        for (recipe, part), values in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("fit", "inspect"))
    parser.add_argument("--counts", default="100,1000")
    parser.add_argument("--budgets", default="60,300")
    options = parser.parse_args()
    document = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        if options.part == "fit":
            counts = [int(one) for one in options.counts.split(",")]
            rows = fits(Path(folder), counts, [float(one) for one in options.budgets.split(",")])
        else:
            rows = inspections(Path(folder))
    document[options.part] = {
        "machine": str(choose_machine()),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "rows": rows,
    }
    write_json(RESULT, document)
    for row in rows:
        print({key: value for key, value in row.items() if key != "stages"})


if __name__ == "__main__":
    main()
