"""How many good images the detector needs."""

from __future__ import annotations

import argparse
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.detection.drawing import axes, curve, finish_axes, grouped
from benchmarks.detection.options import listed, one_dataset
from benchmarks.detection.trials import RATE, REALISED, Bench, realised
from blemish.decision import Guarantee
from studies.protocol import spread, table

HELP = "number of good images"


def add_options(parser: argparse.ArgumentParser) -> None:
    one_dataset(parser)
    parser.add_argument("--counts", type=listed(int), default=[5, 10, 20, 40, 80, 160])
    parser.add_argument("--unseen", type=int, default=80, help="good training images to keep for the test")


def answer(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Figures against the number of good images, and promised beside realised false-reject rates."""
    rows = []
    for count in options.counts:
        # At most half of the images calibrate; n of them can promise a rate of 1 / (n + 1) at best.
        rate = max(RATE, -(-1000 // (count // 2 + 1)) / 1000)
        for seed in options.seeds:
            order = np.random.default_rng(seed).permutation(len(bench.train))
            drawn = [bench.train[number] for number in order[:count]]
            unseen = [bench.train[number] for number in order[len(order) - options.unseen :]]
            trial = bench.trial(
                f"{count}", drawn, [*bench.tests, *unseen], seed, [f"threshold.false_reject_rate={rate}"]
            )
            promise = Guarantee(n=len(trial.calibration_scores), false_reject_rate=rate)
            proxy = trial.proxy()
            rows.append(
                {
                    "good": count,
                    "seed": seed,
                    "split": trial.split,
                    "auroc": trial.auroc(),
                    "pixel_auroc": trial.pixel_auroc,
                    "aupro_30": trial.aupro_30,
                    "by_place": proxy.by_place if proxy else None,
                    "rate": rate,
                    "promised": promise.bound,
                    "promised_95": promise.upper(),
                    **realised(trial, rate),
                    "fit_seconds": trial.fit_seconds,
                }
            )
    groups = grouped(rows, "good")
    columns = ["auroc", "pixel_auroc", "aupro_30", "promised", "promised_95", *REALISED]
    text = table(
        [
            "good images",
            "AUROC",
            "pixel AUROC",
            "AUPRO 30 %",
            "promised",
            "with 95 % confidence",
            "rejected, unseen",
            "rejected, test",
            "found",
            "with regions, unseen",
            "with regions, test",
        ],
        [[str(count), *(spread([row[c] for row in some]) for c in columns)] for count, some in groups],
    )
    figure, (left, right) = axes(2)
    counts = [count for count, _ in groups]
    for key, name in (("auroc", "image AUROC"), ("pixel_auroc", "pixel AUROC"), ("aupro_30", "AUPRO 30 %")):
        curve(left, counts, [[row[key] for row in some] for _, some in groups], name)
    for key, name in (
        ("rejected_unseen", "realised, unseen of the training folder"),
        ("rejected_test", "realised, test/good"),
    ):
        curve(right, counts, [[row[key] for row in some] for _, some in groups], name)
    for key, name, line in (
        ("promised", "promised on average", "--"),
        ("promised_95", "promised with 95 %", ":"),
    ):
        right.plot(
            counts, [fmean(row[key] for row in some) for _, some in groups], line, color="black", label=name
        )
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.set_xlabel("good images")
    finish_axes([left, right], ["", "good images rejected"])
    return {"rows": rows, "markdown": text, "figure": figure}
