"""Lower precision: size, speed, and what it costs in defects found and good images rejected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.export.models import images_in
from benchmarks.export.speed import interleaved
from blemish.data.image import read_image
from blemish.decision import roc_auc
from blemish.demo.generated import write_dataset
from blemish.export.export_model import export_model
from blemish.inspection.detector import load
from blemish.training.fit import fit

RECIPES = ("ssim-ae", "blemish-small", "blemish")
VARIANTS = (("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "int8"), ("openvino", "fp32"), ("openvino", "fp16"))
BUDGET = "40s"
GOOD, TEST_GOOD, PER_DEFECT = 120, 40, 5


def precision(work: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each recipe, runtime and precision, on generated surfaces that no decision was calibrated on."""
    data = write_dataset(work / "surface", "surface", good=GOOD, test_good=TEST_GOOD, per_blemish=PER_DEFECT)
    good = data / "train" / "good"
    paths = images_in(data)
    labels = [path.parent.name != "good" for path in paths]
    for recipe in RECIPES:
        folder = work / recipe
        fit(good, recipe, budget=BUDGET, out=folder / "torch")
        detectors = {}
        for runtime, name in VARIANTS:
            out = folder / f"{runtime}-{name}"
            export_model(folder / "torch", out, to=runtime, precision=name, images=good)
            detectors[runtime, name] = load(out)
        seconds = interleaved(
            {
                "/".join(key): lambda detector=detector, path=paths[0]: detector.inspect(path)
                for key, detector in detectors.items()
            },
            rounds,
        )
        for (runtime, name), detector in detectors.items():
            scores = [detector.measure(read_image(path)).score for path in paths]
            rejected = [
                score > detector.threshold for score, bad in zip(scores, labels, strict=True) if not bad
            ]
            record = detector.file.export
            assert record is not None
            yield {
                "recipe": recipe,
                "runtime": runtime,
                "precision": name,
                "graphs_megabytes": round(_graphs(folder / f"{runtime}-{name}") / 1e6, 2),
                "milliseconds": round(1000 * seconds[f"{runtime}/{name}"], 1),
                "image_auroc": round(roc_auc(labels, scores), 4),
                "good_rejected": round(sum(rejected) / len(rejected), 4),
                "good_images": len(rejected),
                "threshold": detector.threshold,
                "cost_as_printed": None if record.cost is None else json.loads(record.cost.model_dump_json()),
            }


def _graphs(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".onnx", ".xml", ".bin"))
