"""Whether the promised false-reject rates are kept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.detection.drawing import axes, curve, finish_axes, grouped
from benchmarks.detection.options import listed, one_dataset
from benchmarks.detection.trials import UNSEEN, Bench, above
from blemish.decision import Guarantee
from studies.protocol import spread, table

HELP = "promised and realised false-reject rates"


def add_options(parser: argparse.ArgumentParser) -> None:
    one_dataset(parser)
    parser.add_argument("--rates", type=listed(float), default=[0.01, 0.05, 0.1, 0.2])
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--calibration", type=int, default=100, help="images that calibrate in each split")


def answer(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Promised against realised false-reject rates, over random splits of good images that no fit has seen.

    A fit is given half of the good training images. Its calibration images and the other half are exchangeable: they
    are split at random, many times, into calibration and test images. The mean rate must equal the promise, which
    checks the arithmetic, and the spread shows how far one calibration set may be off. The same thresholds are also
    counted on the good test images, which need not resemble those of the training folder.
    """
    rows = []
    for seed in options.seeds:
        order = np.random.default_rng(seed).permutation(len(bench.train))
        half = len(order) // 2
        train, unseen = ([bench.train[number] for number in part] for part in (order[:half], order[half:]))
        settings = [f"threshold.false_reject_rate={max(options.rates)}"]
        trial = bench.trial("half", train, [*bench.tests, *unseen], seed, settings)
        for kind, calibration, fresh, test in (
            ("images", trial.calibration_scores, trial.scores(UNSEEN), trial.scores("good")),
            ("regions", trial.calibration_peaks, trial.peaks(UNSEEN), trial.peaks("good")),
        ):
            pool = np.concatenate([calibration, fresh])
            for rate in options.rates:
                rng = np.random.default_rng(seed)
                splits = [rng.permutation(pool) for _ in range(options.splits)]
                n = options.calibration
                promise = Guarantee(n=n, false_reject_rate=rate)
                inside = np.array([above(mixed[n:], mixed[:n], rate) for mixed in splits], float)
                beyond = np.array([above(test, mixed[:n], rate) for mixed in splits], float)
                low, high = promise.interval(len(pool) - n, 0.9)
                rows.append(
                    {
                        "kind": kind,
                        "rate": rate,
                        "seed": seed,
                        "promised": promise.bound,
                        "promised_90": [low, high],
                        "realised": inside.mean(),
                        "realised_90": np.quantile(inside, [0.05, 0.95]).tolist(),
                        "in_promised_90": np.mean((low <= inside) & (inside <= high)),
                        "realised_test": beyond.mean(),
                        "realised_test_90": np.quantile(beyond, [0.05, 0.95]).tolist(),
                    }
                )
    kinds = {"images": "images rejected", "regions": "images with regions"}
    text = table(
        [
            "good",
            "asked for",
            "promised",
            "training folder",
            "90 % of splits",
            "promised for 90 %",
            "test/good",
        ],
        [
            [
                kinds[kind],
                f"{rate:g}",
                f"{some[0]['promised']:.3f}",
                spread([row["realised"] for row in some]),
                between([row["realised_90"] for row in some]),
                between([row["promised_90"] for row in some]),
                spread([row["realised_test"] for row in some]),
            ]
            for kind, line in grouped(rows, "kind")
            for rate, some in grouped(line, "rate")
        ],
    )
    figure, panels = axes(2)
    most = max(options.rates)
    for axis, (_, line) in zip(panels, grouped(rows, "kind"), strict=True):
        by_rate = grouped(line, "rate")
        promised = [some[0]["promised"] for _, some in by_rate]
        for key, name in (("realised", "training folder, not fitted on"), ("realised_test", "test/good")):
            curve(axis, promised, [[row[key] for row in some] for _, some in by_rate], name)
        low, high = np.mean([[row["realised_90"] for row in some] for _, some in by_rate], axis=1).T
        axis.fill_between(
            promised, low, high, color="grey", alpha=0.2, label="training folder, 90 % of splits"
        )
        axis.plot([0, most], [0, most], "--", color="black", label="as promised")
        axis.set_xlabel("promised")
    finish_axes(panels, [f"good {words}" for words in kinds.values()])
    return {
        "rows": rows,
        "splits": options.splits,
        "calibration": options.calibration,
        "markdown": text,
        "figure": figure,
    }


def between(ranges: Sequence[Sequence[float]]) -> str:
    """The mean of ranges, in words."""
    low, high = np.mean(ranges, axis=0)
    return f"{low:.3f} to {high:.3f}"
