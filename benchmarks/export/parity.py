"""Agreement of exported models with torch: every recipe in every runtime, on several kinds of images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed

from benchmarks.export.models import fitted, grey, images_in, many_channels, posed
from blemish.data.image import read_image
from blemish.export.export_model import exported_detector
from blemish.export.parts import parts_of
from blemish.inspection.detector import load
from blemish.observer import Observer
from blemish.recipes import load_recipe, recipe_names
from blemish.runtime.record import RuntimeName

KINDS = {
    "grey, 8 bits": grey,
    "eleven channels, 16 bits, odd sides": many_channels,
    "posed objects": posed,
}
RUNTIMES: tuple[RuntimeName, ...] = ("onnx", "openvino")
OF_EVERY_KIND = ("blemish", "blemish-small", "filter-bank", "ssim-ae", "fp-cae")
"""Recipes that are compared on other images than grey ones as well."""


def takes(recipe: str, kind: str) -> bool:
    """Whether ``recipe`` is compared on images of ``kind``."""
    if recipe == "other-pixels":  # of scenes alone
        return False
    if kind == "posed objects" and load_recipe(recipe).image.pose != "auto":
        return False
    return recipe in OF_EVERY_KIND or kind.startswith("grey")


def parity(work: Path) -> Iterator[dict[str, Any]]:
    """A row for each recipe, kind of images and runtime."""
    data = {kind: write(work / kind.split(",")[0]) for kind, write in KINDS.items()}
    tasks = [(recipe, kind) for kind in KINDS for recipe in recipe_names() if takes(recipe, kind)]
    # The large networks last: even two steps of training take them minutes.
    tasks.sort(key=lambda task: ("-vgg16" in task[0] or "-resnet50" in task[0], "grey" in task[1]))
    folders = [work / "models" / str(number) for number in range(len(tasks))]
    yield from chain.from_iterable(
        Parallel(n_jobs=-1, return_as="generator", verbose=5)(
            delayed(_rows)(recipe, kind, data[kind], folder)
            for (recipe, kind), folder in zip(tasks, folders, strict=True)
        )
    )


def _rows(recipe: str, kind: str, data: Path, folder: Path) -> list[dict[str, Any]]:
    """The rows of one recipe on one kind of images."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = [read_image(path) for path in images_in(data)]
    detector = fitted(recipe, data / "train" / "good", folder / "torch")
    expected = [detector.measure(image) for image in images]
    parts = parts_of(detector.model, detector.file.preprocessing.channels)
    rows = []
    for runtime in RUNTIMES:
        out = folder / runtime
        exported_detector(detector, runtime, out, Observer(), parts).save(out)
        exported = load(out)
        score = anomaly_map = 0.0
        same = True
        for image, one in zip(images, expected, strict=True):
            other = exported.measure(image)
            score = max(score, abs(one.score - other.score) / one.score)
            largest = max(float(one.map.max()), 1e-3)
            anomaly_map = max(anomaly_map, float(np.abs(one.map - other.map).max()) / largest)
            same &= (one.score > detector.threshold) == (other.score > exported.threshold)
        size = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
        rows.append(
            {
                "recipe": recipe,
                "images": kind,
                "runtime": runtime,
                "compared": len(images),
                "score": float(f"{score:.1e}"),
                "map": float(f"{anomaly_map:.1e}"),
                "same_decisions": bool(same),
                "megabytes": round(size / 1e6, 1),
            }
        )
    shutil.rmtree(folder)
    return rows
