"""What is found where good images vary in light, orientation, size, place or number, and what a model bears that never saw it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from benchmarks.detection.drawing import axes, grouped
from benchmarks.detection.trials import FIGURES, Bench
from benchmarks.detection.whole_fits import fits
from benchmarks.variations import VARIATIONS, write_variation
from blemish.evaluation.compare import Run
from blemish.evaluation.evaluate import evaluate
from blemish.evaluation.figures import Evaluation
from blemish.observer import Observer
from studies.protocol import comparison, fitted, spread, table

HELP = "good images that vary in light, orientation, size, place or number"
AS_DRAWN = "as drawn"
BASELINE = "filter-bank"
"""Recipe that costs nothing."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "datasets", metavar="family", type=Path, nargs=1, help=f"one of {', '.join(VARIATIONS)}"
    )
    parser.add_argument("--budget", help="of every training, such as 2m, instead of the recipe's length")


def answer(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Sets of generated images that vary in one more way: a model that was fitted on such images, and one that was not.

    The first model is fitted on good images that vary as those of the test do; the second on images as they are drawn, and
    tested on the same ones as the first. `filter-bank` is fitted as the first one. `benchmarks/variations.py` states the sets.
    """
    family = str(options.datasets[0])
    if family not in VARIATIONS:
        raise SystemExit(f"{family}: has no variations; name one of {', '.join(VARIATIONS)}")
    variations = VARIATIONS[family]
    rows: list[dict[str, Any]] = []
    plain_work: Path | None = None
    for name in variations:
        place = options.work / "variations" / f"{family}-{name.replace(' ', '-')}"
        varied = Bench(options, write_variation(place, family, name))
        work, runs = fits(varied, options)
        plain_work = plain_work or work
        (free,) = comparison(work, varied.dataset, [BASELINE], [0], options.set, Observer()).runs
        for run in runs:
            unseen = (
                run.evaluation
                if name == AS_DRAWN
                else evaluate(fitted(plain_work, run.recipe, run.seed), varied.dataset)
            )
            rows.append(
                {
                    "name": name,
                    "seed": run.seed,
                    "layout": layout_of(run),
                    **{f"seen {key}": value for key, value in figures(run.evaluation).items()},
                    **{f"unseen {key}": value for key, value in figures(unseen).items()},
                    **{f"free {key}": value for key, value in figures(free.evaluation).items()},
                    "training_seconds": run.training_seconds,
                    "steps": run.training_steps,
                    "machine": run.evaluation.training.machine_words,
                }
            )
            bench.seconds += run.training_seconds + unseen.seconds
    lines = [
        [
            name,
            ", ".join(dict.fromkeys(row["layout"] for row in some)),
            *(spread([row[column] for row in some]) for column in COLUMNS),
        ]
        for name, some in grouped(rows, "name")
    ]
    head = ("images", "taken for", *COLUMNS.values())
    return {
        "rows": rows,
        "budget": options.budget,
        "markdown": table(head, lines, left=2),
        "figure": bars(rows),
    }


def bars(rows: Sequence[dict[str, Any]]) -> Figure:
    """Image AUROC and good images rejected, of each model on each variation, as means over the seeds."""
    figure, panels = axes(2)
    names = grouped(rows, "name")
    for axis, (key, title) in zip(
        panels, (("image_auroc", "image AUROC"), ("rejected", "good images rejected")), strict=True
    ):
        for offset, model in enumerate(MODELS):
            places = [number + 0.27 * (offset - 1) for number in range(len(names))]
            axis.bar(places, [fmean(row[f"{model} {key}"] for row in some) for _, some in names], 0.25)
        axis.set_xticks(range(len(names)), [name for name, _ in names])
        axis.set_ylim(0, 1.02)
        axis.set_ylabel(title)
    figure.legend(panels[0].containers, list(MODELS.values()), loc="outside lower center", ncols=len(MODELS))
    return figure


MODELS = {
    "seen": "fitted on such images",
    "unseen": "fitted on images as drawn",
    "free": "filter-bank, fitted on such images",
}
COLUMNS = {
    "seen image_auroc": "image AUROC",
    "seen pixel_auroc": "pixel AUROC",
    "seen aupro_30": "AUPRO 30 %",
    "seen rejected": "good rejected",
    "free image_auroc": "image AUROC of filter-bank",
    "unseen image_auroc": "image AUROC, fitted as drawn",
    "unseen rejected": "good rejected, fitted as drawn",
}


def figures(evaluation: Evaluation) -> dict[str, float | None]:
    """Image AUROC, pixel AUROC, AUPRO, and the share of good images that were rejected."""
    values = (
        evaluation.image["all"].figures["auroc"].value,
        evaluation.pixel.auroc,
        evaluation.pixel.aupro_30,
        evaluation.false_rejects.ratio if evaluation.false_rejects else None,
    )
    return dict(zip((*FIGURES, "rejected"), values, strict=True))


LAYOUTS = {"Objects in one pose": "posed object", "One aligned": "aligned view", "A texture": "unaligned"}


def layout_of(run: Run) -> str:
    """What the fit took its images for, by its notes."""
    notes = run.evaluation.training.notes
    return next((kind for words, kind in LAYOUTS.items() if any(n.startswith(words) for n in notes)), "–")
