"""What each part of the detector brings."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.detection.drawing import axes, finish_axes, grouped
from benchmarks.detection.options import listed, one_dataset
from benchmarks.detection.trials import WEIGHTED, Bench
from studies.protocol import spread, table

HELP = "each part of the detector with weights selected on synthetic anomalies"


def add_options(parser: argparse.ArgumentParser) -> None:
    one_dataset(parser)
    parser.add_argument(
        "--variants", type=Path, help="JSON, lists of settings by name; the first is compared with"
    )
    parser.add_argument("--leave-out", type=listed(str), default=[], help="variants")


VARIANTS: dict[str, list[str]] = {
    "all": [],
    "without pose": ["image.pose=never"],
    "memory anywhere": ["memory.by_place=false"],
    "structure alone": ["memory.contrast=false"],
    "memory only": ["memory.share=1.0"],
    "network only": ["memory.share=0.0"],
    "patch 8": ["memory.patch=8"],
    "patch 32": ["memory.patch=32"],
    "floor 0.5": ["memory.floor=0.5"],
    "floor 1": ["memory.floor=1.0"],
    "reach 0": ["memory.reach=0"],
    "reach 2": ["memory.reach=2"],
    "stride 8": ["memory.stride=8"],
    "every image": ["memory.nearest_images=100000"],
    "25 similar images": ["memory.nearest_images=25"],
    "200 images": ["memory.images=200"],
    "8 dimensions": ["memory.dimensions=8"],
    "32 dimensions": ["memory.dimensions=32"],
    "no reconstruction": ["loss=[{name: segmentation}]"],
    "no exposure": ["augmentation=[]"],
    "small anomalies": ["corruption=[{name: synthetic-anomalies, smallest: 0.03, largest: 0.1}]"],
}


def answer(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of variants beside the first of them, and their ranking on synthetic anomalies."""
    variants = json.loads(options.variants.read_text(encoding="utf-8")) if options.variants else VARIANTS
    chosen = {name: settings for name, settings in variants.items() if name not in options.leave_out}
    rows = []
    for name, settings in chosen.items():
        for seed in options.seeds:
            trial = bench.trial(
                name.replace(" ", "-"), bench.train, bench.tests, seed, [*WEIGHTED, *settings]
            )
            proxy = trial.proxy()
            rows.append(
                {
                    "variant": name,
                    "settings": settings,
                    "seed": seed,
                    "auroc": trial.auroc(),
                    "pixel_auroc": trial.pixel_auroc,
                    "pixel_ap": trial.pixel_ap,
                    "aupro_30": trial.aupro_30,
                    "best_candidate": proxy.model_dump() if proxy else None,
                    "synthetic_auroc": proxy.image_auroc if proxy else None,
                    "synthetic_pixel_ap": proxy.pixel_ap if proxy else None,
                    "fit_seconds": trial.fit_seconds,
                    "test_seconds": trial.test_seconds,
                }
            )
    first = {row["seed"]: row for row in rows if row["variant"] == next(iter(chosen))}
    figures = ("auroc", "pixel_auroc", "aupro_30")
    text = table(
        [
            "variant",
            "AUROC",
            "Δ",
            "pixel AUROC",
            "Δ",
            "AUPRO 30 %",
            "Δ",
            "synthetic AUROC",
            "synthetic pixel AP",
        ],
        [
            [
                name,
                *(
                    cell
                    for key in figures
                    for cell in (
                        spread([row[key] for row in some]),
                        f"{fmean(row[key] - first[row['seed']][key] for row in some):+.3f}",
                    )
                ),
                *(spread([row[key] for row in some]) for key in ("synthetic_auroc", "synthetic_pixel_ap")),
            ]
            for name, some in grouped(rows, "variant")
        ],
    )
    pairs = (
        ("synthetic_auroc", "auroc"),
        ("synthetic_pixel_ap", "pixel_ap"),
        ("synthetic_auroc", "aupro_30"),
    )
    known = [row for row in rows if row["best_candidate"]]
    ranks = {f"{proxy} against {real}": ranked(known, proxy, real) for proxy, real in pairs}
    text += (
        "\nSpearman's rank correlation over the variants and seeds, and over the means of the variants:\n\n"
    )
    text += table(
        ["on synthetic anomalies", "on the test", "all", "means"],
        [
            [
                *(key.removeprefix("synthetic_").replace("_", " ") for key in pair),
                *(f"{value:.2f}" for value in rank.values()),
            ]
            for pair, rank in zip(pairs, ranks.values(), strict=True)
        ],
        left=2,
    )
    figure, panels = axes(2)
    for axis, (proxy, real) in zip(panels, pairs, strict=False):
        for number, (name, some) in enumerate(grouped(known, "variant")):
            marker = "os^Dv<>PX*hp"[number % 12]
            axis.plot(
                [row[proxy] for row in some], [row[real] for row in some], marker, label=name, markersize=5
            )
        rank = ranks[f"{proxy} against {real}"]
        axis.set_title(f"Spearman {rank['all']:.2f}, of means {rank['means']:.2f}", fontsize=10)
    panels[0].set_xlabel("image AUROC on synthetic anomalies")
    panels[1].set_xlabel("pixel AP on synthetic anomalies")
    finish_axes(panels, ["image AUROC on the test", "pixel AP on the test"])
    panels[0].get_legend().remove()
    panels[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return {"rows": rows, "spearman": ranks, "markdown": text, "figure": figure}


def ranked(rows: Sequence[dict[str, Any]], proxy: str, real: str) -> dict[str, float]:
    """Spearman's rank correlation of two figures, over all ``rows`` and over the means of the variants."""
    pairs = [(row[proxy], row[real]) for row in rows]
    means = [
        np.mean([(row[proxy], row[real]) for row in some], axis=0) for _, some in grouped(rows, "variant")
    ]
    return {
        "all": float(spearmanr(*zip(*pairs, strict=True)).statistic),
        "means": float(spearmanr(*zip(*means, strict=True)).statistic),
    }
