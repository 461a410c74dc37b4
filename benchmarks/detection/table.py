"""Compare recipes with each other, with trivial baselines, with the studies and with other methods."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from benchmarks.detection.drawing import axes, finish_axes, grouped
from benchmarks.detection.sources import (
    of_other_tables,
    of_others,
    of_studies,
    rows_before,
    source_of,
    sourced,
    with_seeds_before,
)
from benchmarks.detection.trials import FIGURES, Bench
from benchmarks.detection.trivial import size_auroc, twin_auroc
from blemish.recipes import load_recipe, recipe_names
from studies.protocol import brightness_auroc, comparison, spread, table

HELP = "recipes beside each other and other methods"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("datasets", type=Path, nargs="+", help="folders in the MVTec layout")
    parser.add_argument(
        "--recipes", type=recipes_listed, default=["blemish"], help="names; papers for all of the papers'"
    )
    parser.add_argument("--budget", help="of every training, such as 5m, instead of the recipes' lengths")
    parser.add_argument("--on", help="Ray cluster over which fits are spread: local, auto, HOST:PORT")
    parser.add_argument("--keep", action="store_true", help="rows of other recipes and seeds in this table")


WITHOUT_WEIGHTS = {"fm-ae": ("loss.1.network=gabor", "loss.1.weight=1")} | {
    f"{kind}-{network}-{loss}": ("encoder.weights=none",)
    for kind in ("cae", "dae")
    for network in ("vgg16", "resnet50")
    for loss in ("mse", "ssim")
}
"""Settings of the papers' recipes on a machine without ImageNet weights."""


NOT_OF_IMAGES = ("our own", "Xie")
"""Beginnings of the papers of recipes that are ours, or for scenes of several modalities."""


def answer(
    benches: Sequence[Bench], options: argparse.Namespace, recipes: Sequence[str], command: str
) -> dict[str, Any]:
    """Every recipe on every data set, beside trivial baselines, the papers' recipes, and other methods."""
    rows = [row for bench in benches for row in rows_of(bench, options, recipes, command)]
    by_dataset = grouped(rows, "dataset")
    parts = [
        f"## {name}\n\n{table(COLUMNS, [cells(row) for row in some], left=3)}{by_kind(some)}"
        for name, some in by_dataset
    ]
    return {"budget": options.budget, "rows": rows, "markdown": "\n".join(parts), "figure": bars(by_dataset)}


def rows_of(
    bench: Bench, options: argparse.Namespace, recipes: Sequence[str], command: str
) -> list[dict[str, Any]]:
    """Rows of one data set: measured now, kept from the table before, and from other sources."""
    budget = [f"training.budget={options.budget}"] if options.budget else []
    earlier = rows_before(options.out / f"{options.stem}.json") if options.keep else []
    name = bench.dataset.resolve().stem
    chosen = {recipe: WITHOUT_WEIGHTS.get(recipe, ()) for recipe in recipes}
    runs = comparison(
        bench.work, bench.dataset, chosen, options.seeds, [*options.set, *budget], options.observer
    ).runs
    rows = []
    for recipe, some in grouped([{"recipe": run.recipe, "run": run} for run in runs], "recipe"):
        of_seeds = [one["run"] for one in some]
        evaluations = [run.evaluation for run in of_seeds]
        row = {
            "dataset": name,
            "name": recipe,
            "source": sourced(kind="measured here", budget=options.budget),
            "seeds": [run.seed for run in of_seeds],
            "image_auroc": [one.image["all"].figures["auroc"].value for one in evaluations],
            "pixel_auroc": [one.pixel.auroc for one in evaluations],
            "aupro_30": [one.pixel.aupro_30 for one in evaluations],
            "rejected": [one.false_rejects.ratio if one.false_rejects else None for one in evaluations],
            "within_promise": [
                one.false_rejects.within if one.false_rejects else None for one in evaluations
            ],
            "kinds": [
                {kind: one.image[kind].figures["auroc"].value for kind in one.image if kind != "all"}
                for one in evaluations
            ],
            "seconds": [run.training_seconds for run in of_seeds],
            "steps": [run.training_steps for run in of_seeds],
            "precisions": [one.training.machine.precision for one in evaluations if one.training.machine],
            "machines": [one.training.machine_words for one in evaluations],
            "commands": [command] * len(of_seeds),
        }
        bench.seconds += sum(row["seconds"]) + sum(one.seconds for one in evaluations)
        rows.append(with_seeds_before(row, earlier))
    own = {row["name"] for row in rows}
    rows += [row for row in earlier if row["dataset"] == name and row["name"] not in own]
    for statistic, auroc in (
        ("mean grey level alone", brightness_auroc(bench.dataset)),
        ("size of the image alone", size_auroc(bench.dataset)),
        ("similarity to one training image alone", twin_auroc(bench.dataset)),
    ):
        trivial = sourced(kind="trivial baseline")
        rows.append({"dataset": name, "name": statistic, "source": trivial, "image_auroc": [auroc]})
    return [*rows, *of_other_tables(options.out, name, options.budget), *of_studies(name), *of_others(name)]


COLUMNS = (
    "method",
    "from",
    "computed in",
    "seeds",
    "image AUROC",
    "pixel AUROC",
    "AUPRO 30 %",
    "good rejected",
    "seconds of training",
    "steps",
)


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table as text."""
    return [
        row["name"],
        source_of(row).in_words(),
        ", ".join(dict.fromkeys(row.get("precisions", []))) or "–",
        str(len(row.get("seconds", []) or "–")),
        *(spread(row.get(key, [None])) for key in FIGURES),
        _percent(row.get("rejected", [None])),
        *(spread(row.get(key, [None]), 0) for key in ("seconds", "steps")),
    ]


def _percent(shares: Sequence[float | None]) -> str:
    return spread([None if one is None else 100 * one for one in shares], 1) + (
        " %" if any(one is not None for one in shares) else ""
    )


def by_kind(rows: Sequence[dict[str, Any]]) -> str:
    """Image AUROC of each kind of defect against the good images, of the rows that were measured here."""
    own = [row for row in rows if any(row.get("kinds", ()))]
    kinds = list(dict.fromkeys(kind for row in own for one in row["kinds"] for kind in one))
    if len(kinds) < 2:
        return ""
    lines = [
        [label(row), *(spread([one.get(kind) for one in row["kinds"] if one]) for kind in kinds)]
        for row in own
    ]
    return "\n\nImage AUROC of each kind of defect:\n\n" + table(("method", *kinds), lines, left=1)


def bars(by_dataset: Sequence[tuple[str, list[dict[str, Any]]]]) -> Figure:
    """Image AUROC of all rows, the mean over seeds and their range, one panel for each data set."""
    figure, panels = axes(len(by_dataset))
    figure.set_figheight(1.2 + 0.24 * max(len(some) for _, some in by_dataset))
    for axis, (name, some) in zip(panels, by_dataset, strict=True):
        known = sorted(
            (row for row in some if row.get("image_auroc")), key=lambda row: fmean(row["image_auroc"])
        )
        for place, row in enumerate(known):
            values = row["image_auroc"]
            axis.barh(place, fmean(values), color=COLOURS[source_of(row).kind])
            axis.plot([min(values), max(values)], [place, place], color="black", linewidth=1.5)
        axis.set_yticks(range(len(known)), [label(row) for row in known], fontsize=8)
        axis.axvline(0.5, color="black", linestyle=":")
        axis.set_xlim(0, 1)
        axis.set_xlabel("image AUROC")
        axis.set_title(name, fontsize=10)
        for kind in dict.fromkeys(source_of(row).kind for row in known):
            axis.barh(0, 0, color=COLOURS[kind], label=kind)
    finish_axes(panels, [""] * len(panels))
    return figure


COLOURS = {
    "measured here": "tab:blue",
    "a study here": "tab:cyan",
    "trivial baseline": "tab:gray",
    "measured": "tab:orange",
    "published": "tab:red",
}


def label(row: dict[str, Any]) -> str:
    """The method of a row, with its length of training where a table set one length for all."""
    budget = source_of(row).budget
    return f"{row['name']}, {budget}" if budget else row["name"]


def recipes_listed(text: str) -> list[str]:
    if text != "papers":
        return text.split(",")
    return [name for name in recipe_names() if not load_recipe(name).paper.startswith(NOT_OF_IMAGES)]
