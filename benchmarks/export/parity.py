"""Agreement of exported models with torch: every recipe in every runtime, on several kinds of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.export.models import fitted, grey, images_in, many_channels, posed
from blemish.data.image import read_image
from blemish.export.export_model import export_model
from blemish.inspection.detector import load
from blemish.recipes import load_recipe, recipe_names

KINDS = {
    "grey, 8 bits": grey,
    "eleven channels, 16 bits, odd sides": many_channels,
    "posed objects": posed,
}
RUNTIMES = ("onnx", "openvino")
MOST_ALIGNED = 4
"""Channels that a recipe with an alignment takes, at most."""


def takes(recipe: str, kind: str) -> bool:
    """Whether ``recipe`` is for images of ``kind``."""
    own = load_recipe(recipe)
    if kind == "posed objects":
        return own.image.pose == "auto"
    return own.alignment is None or not kind.startswith("eleven")


def parity(work: Path) -> Iterator[dict[str, Any]]:
    """A row for each recipe, kind of images and runtime."""
    for kind, write in KINDS.items():
        data = write(work / kind.split(",")[0])
        paths = images_in(data)
        images = [read_image(path) for path in paths]
        for recipe in recipe_names():
            if not takes(recipe, kind):
                continue
            folder = work / "models" / kind.split(",")[0] / recipe
            torch.manual_seed(0)
            detector = fitted(recipe, data / "train" / "good", folder / "torch")
            expected = [detector.measure(image) for image in images]
            for runtime in RUNTIMES:
                export_model(folder / "torch", folder / runtime, to=runtime, images=data / "train" / "good")
                exported = load(folder / runtime)
                score = anomaly_map = 0.0
                same = True
                for image, one in zip(images, expected, strict=True):
                    other = exported.measure(image)
                    score = max(score, abs(one.score - other.score) / one.score)
                    largest = max(float(one.map.max()), 1e-3)
                    anomaly_map = max(anomaly_map, float(np.abs(one.map - other.map).max()) / largest)
                    same &= (one.score > detector.threshold) == (other.score > exported.threshold)
                size = sum(path.stat().st_size for path in (folder / runtime).iterdir() if path.is_file())
                yield {
                    "recipe": recipe,
                    "images": kind,
                    "runtime": runtime,
                    "compared": len(images),
                    "score": float(f"{score:.1e}"),
                    "map": float(f"{anomaly_map:.1e}"),
                    "same_decisions": bool(same),
                    "megabytes": round(size / 1e6, 1),
                }
