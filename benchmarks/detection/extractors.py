"""What a memory bank of each feature extractor finds alone, beside classical filters."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.detection.drawing import axes, grouped
from benchmarks.detection.options import listed
from benchmarks.detection.trials import FIGURES, Bench
from studies.protocol import spread, table

HELP = "memory banks of each feature extractor"
WITHOUT_NETWORK = (
    "encoder=null",
    "decoder=null",
    "residual=null",
    "loss=[]",
    "augmentation=[]",
    "corruption=[]",
    "training.budget=null",
)
EXTRACTORS: dict[str, tuple[str, ...]] = {
    "structure": ("filters=false", "memory={features: [{name: structure}]}"),
    "local-contrast": ("filters=false", "memory={features: [{name: local-contrast}]}"),
    "structure and local-contrast": ("filters=false", "memory={name: structure}"),
    "efficientnet-lite (ImageNet)": ("filters=false", "memory={features: [{name: efficientnet-lite}]}"),
    "filter bank": ("memory=null",),
    "structure, local-contrast and filter bank": ("memory={name: structure}",),
    "efficientnet-lite and filter bank": ("memory={features: [{name: efficientnet-lite}]}",),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("datasets", metavar="dataset", type=Path, nargs=1, help="folder in the MVTec layout")
    parser.add_argument("--leave-out", type=listed(str), default=[], help="extractors")


def answer(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Memory banks of each feature extractor, without a network, beside classical filters."""
    rows: list[dict[str, Any]] = []
    for name, settings in EXTRACTORS.items():
        for seed in () if name in options.leave_out else options.seeds:
            trial = bench.trial(
                name.replace(" ", "-").replace(",", ""),
                bench.train,
                bench.tests,
                seed,
                [*WITHOUT_NETWORK, *settings],
            )
            figures = (trial.auroc(), trial.pixel_auroc, trial.aupro_30)
            seconds = {"fit_seconds": trial.fit_seconds, "test_seconds": trial.test_seconds}
            rows.append({"name": name, "seed": seed, **dict(zip(FIGURES, figures, strict=True)), **seconds})
    lines = [
        [name, *(spread([row[key] for row in some]) for key in FIGURES)]
        for name, some in grouped(rows, "name")
    ]
    figure, (axis, *_) = axes(1)
    names = [name for name, _ in reversed(grouped(rows, "name"))]
    values: Sequence[float] = [
        fmean(row["image_auroc"] for row in rows if row["name"] == name) for name in names
    ]
    axis.barh(names, values, color="tab:blue")
    axis.set_xlim(0.4, 1)
    axis.set_xlabel("image AUROC")
    text = table(["features", "image AUROC", "pixel AUROC", "AUPRO 30 %"], lines)
    return {"rows": rows, "markdown": text, "figure": figure}
