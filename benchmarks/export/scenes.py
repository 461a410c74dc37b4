"""Agreement of exported models with torch on scenes of several modalities, one of them with a modality missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.export.models import fitted
from benchmarks.export.parity import RUNTIMES
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.demo.painting import write_paintings
from blemish.export.export_model import exported_detector
from blemish.export.parts import parts_of
from blemish.inspection.detector import Detector, load
from blemish.inspection.scene_records import SceneRecord
from blemish.inspection.scenes import inspect_scenes
from blemish.observer import Observer

COMPLETE = "stacked-ae"
"""Takes no scene that lacks a modality."""
RECIPES = (COMPLETE, "other-pixels", "fp-cae", "fp-cae-add", "fp-cae-concat")
SCENES, SIDE = 3, 257
MISSING = "xray"


def scenes(work: Path) -> Iterator[dict[str, Any]]:
    """A row for each recipe and runtime, in the form of :func:`benchmarks.export.parity.parity`."""
    train, test = work / "train", work / "test"
    write_paintings(train, SCENES, size=SIDE)
    write_paintings(test, SCENES, seed=SCENES, size=SIDE)
    for recipe in RECIPES:
        detector = fitted(recipe, train, work / recipe / "torch")
        parts = parts_of(detector.model, detector.file.preprocessing.channels)
        found = find_scenes(test, detector.file.preprocessing.modalities)
        if recipe != COMPLETE:
            (found[0].folder / next(one.file for one in found[0].modalities if one.name == MISSING)).unlink(
                missing_ok=True
            )
        images = [SceneReader(scene) for scene in found]
        pixels = [image.read(0, 0, image.height, image.width) for image in images]
        expected = _records(detector, test, work / recipe / "inspected-torch")
        for runtime in RUNTIMES:
            out = work / recipe / runtime
            exported_detector(detector, runtime, out, Observer(), parts).save(out)
            exported = load(out)
            records = _records(exported, test, work / recipe / f"inspected-{runtime}")
            score = max(abs(records[name].score - one.score) / one.score for name, one in expected.items())
            differences = []
            for x in pixels:
                one, other = (own.model.maps(x).anomaly for own in (detector, exported))
                differences.append(float(np.nanmax(np.abs(one - other))) / max(float(np.nanmax(one)), 1e-3))
            yield {
                "recipe": recipe,
                "images": "scenes of five modalities",
                "runtime": runtime,
                "compared": len(pixels),
                "score": float(f"{score:.1e}"),
                "map": float(f"{max(differences):.1e}"),
                "same_decisions": all(
                    records[name].is_anomalous == one.is_anomalous and records[name].above == one.above
                    for name, one in expected.items()
                ),
            }


def _records(detector: Detector, source: Path, out: Path) -> dict[str, SceneRecord]:
    return {record.path: record for record in inspect_scenes(detector, source, out).records}
