"""What a few confirmed defects bring, for kinds of defect that were among them and for others."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.drawing import axes
from benchmarks.detection.members import score_of
from benchmarks.detection.options import listed, whole_dataset
from benchmarks.detection.trials import Bench
from benchmarks.detection.whole_fits import fits
from blemish.data.image import read_image
from blemish.decision import roc_auc
from blemish.detectors.confirmed_defects import choose_members
from blemish.detectors.ensemble import Ensemble
from blemish.inspection.detector import Detector
from studies.protocol import fitted, spread, table

HELP = "members chosen by a few confirmed defects"
DRAWS = 20
"""Drawings of so many defects, for one fit."""
Floats = NDArray[np.float64]


def add_options(parser: argparse.ArgumentParser) -> None:
    whole_dataset(parser)
    parser.add_argument("--counts", type=listed(int), default=[0, 1, 3, 10, 30], help="numbers of defects")


def answer(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Image AUROC by the number of confirmed defects, on kinds that were among them and on kinds that were not.

    Defects are drawn from half of the kinds, and half of the good test images stand for the held-out ones; the other
    half and the other defects are the test.
    """
    work, runs = fits(bench, options)
    rows: list[dict[str, Any]] = []
    for run in runs:
        begun = time.perf_counter()
        detector = fitted(work, run.recipe, run.seed)
        scores = _scores(detector, bench)
        for count in options.counts:
            for draw in range(DRAWS if count else 1):
                seed = [run.seed, count, draw]
                rows.append(
                    {
                        "seed": run.seed,
                        "count": count,
                        **_drawn(scores, bench, count, np.random.default_rng(seed)),
                    }
                )
        bench.seconds += run.training_seconds + time.perf_counter() - begun
    lines = []
    for count in options.counts:
        some = [row for row in rows if row["count"] == count]
        changed = np.mean([row["members"] != row["of"] for row in some])
        lines.append(
            [str(count), *(spread([row[key] for row in some]) for key in KINDS), f"{100 * changed:.0f} %"]
        )
    text = table(("defects", "kinds among them", "other kinds", "members left out"), lines)
    figure, (axis, *_) = axes(1)
    for key, words in KINDS.items():
        means = [
            [row[key] for row in rows if row["count"] == count and row[key] is not None]
            for count in options.counts
        ]
        axis.errorbar(
            range(len(means)),
            [np.mean(one) if one else np.nan for one in means],
            [np.std(one) if one else 0 for one in means],
            marker="o",
            capsize=3,
            label=words,
        )
    axis.set_xticks(range(len(options.counts)), [str(count) for count in options.counts])
    axis.set_xlabel("confirmed defects")
    axis.set_ylabel("image AUROC")
    axis.legend()
    return {"rows": rows, "markdown": text, "figure": figure, "budget": options.budget}


KINDS = {"among": "kinds among them", "others": "other kinds"}


def _scores(detector: Detector, bench: Bench) -> dict[tuple[int, ...], Floats]:
    """Score of each test image by each subset of the members that count."""
    ensemble = detector.model
    assert isinstance(ensemble, Ensemble)
    counting = [number for number, weight in enumerate(ensemble.weights) if weight]
    subsets = [some for size in range(1, len(counting) + 1) for some in combinations(counting, size)]
    scores: dict[tuple[int, ...], list[float]] = {some: [] for some in subsets}
    for item in bench.tests:
        x = detector.file.preprocessing.apply(read_image(item.path)).model_input
        values = [
            model.maps(x).anomaly if number in counting else None
            for number, model in enumerate(ensemble.models)
        ]
        for some in subsets:
            own = [weight * (number in some) for number, weight in enumerate(ensemble.weights)]
            shown = ensemble.soft_maximum(values, [weight / sum(own) for weight in own])
            scores[some].append(score_of(detector, shown))
    return {some: np.array(found) for some, found in scores.items()}


def _drawn(
    scores: dict[tuple[int, ...], Floats], bench: Bench, count: int, rng: np.random.Generator
) -> dict[str, Any]:
    labels = np.array([str(item.label) for item in bench.tests])
    good = rng.permutation(np.flatnonzero(labels == "good"))
    held_out, tested = good[: len(good) // 2], good[len(good) // 2 :]
    kinds = rng.permutation(sorted(set(labels) - {"good"}))
    among = np.isin(labels, kinds[: max(1, len(kinds) // 2)])
    chosen = rng.permutation(np.flatnonzero(among))[:count]
    everything = max(scores, key=len)
    members = everything
    if count:

        def score(some: Sequence[int]) -> tuple[Floats, Floats]:
            return scores[tuple(some)][held_out], scores[tuple(some)][chosen]

        members = choose_members(score, everything, labels[chosen].tolist()).members
    rest = np.setdiff1d(np.flatnonzero(among), chosen)
    others = np.flatnonzero(~among & (labels != "good"))

    def auroc(defects: NDArray[np.intp]) -> float | None:
        if not len(defects):
            return None
        values = scores[members]
        truth = np.repeat([False, True], [len(tested), len(defects)])
        return roc_auc(truth, np.concatenate([values[tested], values[defects]]))

    return {"among": auroc(rest), "others": auroc(others), "members": list(members), "of": list(everything)}
