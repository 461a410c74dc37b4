"""What a memory bank of each feature extractor finds alone, beside classical filters."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.detection.drawing import axes, grouped
from benchmarks.detection.network_features import NetworkFeatures as NetworkFeatures
from benchmarks.detection.options import listed
from benchmarks.detection.trials import FIGURES, Bench
from blemish.storage.model_folder import MODEL_FILE
from blemish.training.fit import fit
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
CAPACITY = "capacity: 10000"
"""Of every bank, as in the default."""
NETWORKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "network": ("blemish", ("memory=null", "filters=false", "colour=false", "training.budget=60")),
    "ssim-ae": ("ssim-ae", ("image={size: 256, scale: common, pose: auto}", "training.budget=60")),
    "untrained": (
        "blemish",
        ("memory=null", "filters=false", "colour=false", "training.budget=null", "training.steps=1"),
    ),
}
"""Recipe and settings of networks whose encoders give features."""


def bank_of(*features: str) -> str:
    """Setting of a memory bank of extractors."""
    return f"memory={{features: [{', '.join(f'{{name: {one}}}' for one in features)}], {CAPACITY}}}"


EXTRACTORS: dict[str, tuple[str, ...]] = {
    "structure": ("filters=false", bank_of("structure")),
    "structure of wide patches": ("filters=false", bank_of("structure, patch: 32, stride: 8")),
    "local-contrast": ("filters=false", bank_of("local-contrast")),
    "all three as in the default": ("filters=false", f"memory={{name: structure, wide: 32, {CAPACITY}}}"),
    "efficientnet-lite (ImageNet)": ("filters=false", bank_of("efficientnet-lite")),
    "encoder of the network": ("filters=false", bank_of("network, model: {network}")),
    "encoder of ssim-ae": ("filters=false", bank_of("network, model: {ssim-ae}")),
    "encoder of an untrained network": ("filters=false", bank_of("network, model: {untrained}")),
    "filter bank": ("memory=null",),
    "all three and filter bank": (f"memory={{name: structure, wide: 32, {CAPACITY}}}",),
    "efficientnet-lite and filter bank": (bank_of("efficientnet-lite"),),
}
"""Settings by name; a network of :data:`NETWORKS` in braces stands for the folder of its model."""


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
                [*WITHOUT_NETWORK, *(with_network(bench, setting, seed) for setting in settings)],
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


def with_network(bench: Bench, setting: str, seed: int) -> str:
    """``setting`` with the folder of the model that it names, which is fitted where it is not there yet."""
    for name, (recipe, settings) in NETWORKS.items():
        if f"{{{name}}}" in setting:
            folder = bench.work / f"{name}-{seed}"
            if not (folder / MODEL_FILE).exists():
                images = bench.listing(bench.train, f"{name}-{seed}")
                fit(images, recipe, settings=[*settings, f"training.seed={seed}"], out=folder)
            setting = setting.replace(f"{{{name}}}", str(folder.resolve()))
    return setting
