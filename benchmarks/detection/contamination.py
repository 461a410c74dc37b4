"""What defective images among the good training images cost."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.detection.drawing import axes, curve, finish_axes, grouped
from benchmarks.detection.options import listed, one_dataset
from benchmarks.detection.trials import RATE, Bench, Trial, realised
from blemish.decision import trimmed
from blemish.decision.conformal import Trim
from studies.protocol import spread, table

HELP = "defective images among the training images"


def add_options(parser: argparse.ArgumentParser) -> None:
    one_dataset(parser)
    parser.add_argument(
        "--shares", type=listed(float), default=[0.0, 0.05, 0.1], help="of the training images"
    )
    parser.add_argument("--trim", action="store_true", help="also with training.trim and threshold.trim")
    parser.add_argument("--rate", type=float, default=RATE, help="false-reject rate to ask for")


def answer(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Figures against the share of the training images that is defective, unnoticed.

    The defective ones come from the test; those that go into any fit of a seed are in no test of that seed.
    """
    rows = []
    for seed in options.seeds:
        rng = np.random.default_rng(seed)
        defective = [item for item in bench.tests if not item.is_good]
        contaminating = [defective[number] for number in rng.permutation(len(defective))]
        order = [bench.train[number] for number in rng.permutation(len(bench.train))]
        most = round(max(options.shares) * len(order))
        tests = [item for item in bench.tests if item.is_good] + contaminating[most:]
        for share in options.shares:
            count = round(share * len(order))
            train = [*order[count:], *contaminating[:count]]
            for name, (training, threshold) in trims(share).items() if options.trim else UNTRIMMED.items():
                settings = [f"training.trim={training}", f"threshold.false_reject_rate={options.rate}"]
                trial = bench.trial(f"{share:g}-trim-{training}", train, tests, seed, settings)
                rows.append(contaminated(trial, seed, share, name, threshold, options.rate))
    clean = [row for row in rows if not row["share"] and row["trimmed"] == "nothing"]
    lines = {
        name: line if any(not row["share"] for row in line) else [*clean, *line]
        for name, line in grouped(rows, "trimmed")
    }
    text = table(
        [
            "trimmed",
            "defective",
            "AUROC",
            "pixel AUROC",
            "good rejected",
            "good with regions",
            "defective rejected",
        ],
        [
            [
                name,
                f"{100 * share:g} %",
                *(
                    spread([row[key] for row in some])
                    for key in ("auroc", "pixel_auroc", "rejected_test", "with_regions_test", "found")
                ),
            ]
            for name, line in grouped(rows, "trimmed")
            for share, some in grouped(line, "share")
        ],
        left=2,
    )
    figure, panels = axes(3)
    for name, line in lines.items():
        by_share = grouped(line, "share")
        shares = [100 * share for share, _ in by_share]
        for axis, key in zip(panels, ("auroc", "rejected_test", "found"), strict=True):
            values = [[row[key] for row in some] for _, some in by_share]
            curve(axis, shares, values, f"trimmed: {name}")
    panels[1].axhline(
        options.rate, color="black", linestyle="--", label="promised, were the test like the training"
    )
    for axis in panels:
        axis.set_xlabel("defective among the training images, %")
    finish_axes(panels, ["image AUROC", "good test images rejected", "defective test images rejected"])
    return {"rows": rows, "markdown": text, "figure": figure}


UNTRIMMED: dict[str, tuple[Trim, Trim]] = {"nothing": (0.0, 0.0)}


def trims(share: float) -> dict[str, tuple[Trim, Trim]]:
    """``training.trim`` and ``threshold.trim`` of every kind of trimming at a ``share`` of defective images."""
    known: dict[str, tuple[Trim, Trim]] = {
        "training, as many as there are": (share, 0.0),
        "both, as many as there are": (share, share),
    }
    return {
        **UNTRIMMED,
        **(known if share else {}),
        "threshold, auto": (0.0, "auto"),
        "both, auto": ("auto", "auto"),
    }


def contaminated(
    trial: Trial, seed: int, share: float, name: str, threshold_trim: Trim, rate: float
) -> dict[str, Any]:
    """A row of :func:`contamination`; leaving out calibration scores afterwards is what ``threshold.trim`` does."""
    out = trimmed(trial.calibration_scores, threshold_trim)
    stay = [number for number in range(len(trial.calibration_scores)) if number not in out]
    left = trial.model_copy(
        update={
            "calibration_scores": tuple(trial.calibration_scores[number] for number in stay),
            "calibration_peaks": tuple(trial.calibration_peaks[number] for number in stay),
        }
    )
    return {
        "seed": seed,
        "share": share,
        "trimmed": name,
        "left_out": len(out),
        "auroc": trial.auroc(),
        "pixel_auroc": trial.pixel_auroc,
        "aupro_30": trial.aupro_30,
        **realised(left, rate),
        "fit_seconds": trial.fit_seconds,
    }
