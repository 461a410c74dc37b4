"""The table's fits on whole data sets, measured map by map."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.drawing import axes, grouped
from benchmarks.detection.trials import FIGURES, Bench
from blemish.data.image import LoadedImage, read_image
from blemish.data.masks import read_masks
from blemish.decision import PixelMetrics, roc_auc
from blemish.evaluation.compare import Run
from blemish.observer import Observer
from studies.protocol import comparison, spread, table


def fits(bench: Bench, options: argparse.Namespace) -> tuple[Path, tuple[Run, ...]]:
    """Folder and runs of the fits of ``options.recipe`` on the whole of ``bench``, which the table uses too."""
    settings = [*options.set, *([f"training.budget={options.budget}"] if options.budget else [])]
    other = "" if options.strength == 1 else f"-strength-{options.strength:g}"
    work = options.work / "table" / f"{bench.dataset.resolve().stem}{other}"
    return work, comparison(work, bench.dataset, [options.recipe], options.seeds, settings, Observer()).runs


def tested(
    bench: Bench, score: Callable[[LoadedImage], dict[str, tuple[float, NDArray[np.float32]]]]
) -> list[dict[str, Any]]:
    """Figures on the test images by the names that ``score`` gives: a score and a map (H, W) for each."""
    scores: dict[str, list[float]] = {}
    pixels: dict[str, PixelMetrics] = {}
    for item in bench.tests:
        image = read_image(item.path)
        mask = read_masks(item.masks, size=image.size)
        for name, (value, shown) in score(image).items():
            scores.setdefault(name, []).append(value)
            if item.is_good or (mask is not None and mask.any()):
                pixels.setdefault(name, PixelMetrics(resamples=0)).update(shown, mask)
    labels = [str(item.label) for item in bench.tests]
    defective = [not item.is_good for item in bench.tests]
    rows = []
    for name, values in scores.items():
        result = pixels[name].result()
        figures = (roc_auc(defective, values), result.auroc, result.aupro_30)
        kinds = auroc_of_kinds(labels, values)
        rows.append({"name": name, **dict(zip(FIGURES, figures, strict=True)), "kinds": kinds})
    return rows


def auroc_of_kinds(labels: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    """Image AUROC of each kind of defect against the images that are labelled ``good``."""
    values, kinds = np.array(scores), np.array(labels)
    good = values[kinds == "good"]
    return {
        kind: roc_auc(
            np.repeat([False, True], [len(good), int((kinds == kind).sum())]),
            np.concatenate([good, values[kinds == kind]]),
        )
        for kind in dict.fromkeys(labels)
        if kind != "good"
    }


def table_of_kinds(rows: Sequence[dict[str, Any]], title: str) -> str:
    """Image AUROC of each kind of defect, a line for each name."""
    names = grouped(rows, "name")
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["kinds"]))
    lines = [
        [name, *(spread([row["kinds"].get(kind) for row in some]) for kind in kinds)] for name, some in names
    ]
    return table((title, *kinds), lines, left=1)


def by_name(rows: Sequence[dict[str, Any]], title: str, highlighted: str) -> dict[str, Any]:
    """Table and bars of ``rows`` by their name, over seeds where a name has several rows."""
    names = grouped(rows, "name")
    text = table(
        [title, "image AUROC", "pixel AUROC", "AUPRO 30 %"],
        [[name, *(spread([row[key] for row in some]) for key in FIGURES)] for name, some in names],
    )
    figure, panels = axes(2)
    for axis, (key, label) in zip(
        panels, (("image_auroc", "image AUROC"), ("aupro_30", "AUPRO 30 %")), strict=True
    ):
        for place, (name, some) in enumerate(reversed(names)):
            values = [row[key] for row in some]
            axis.barh(place, fmean(values), color="tab:blue" if name == highlighted else "tab:cyan")
            axis.plot([min(values), max(values)], [place, place], color="black", linewidth=1.5)
        axis.set_yticks(range(len(names)), [name for name, _ in reversed(names)])
        axis.set_xlim(0, 1)
        axis.set_xlabel(label)
    figure.set_figwidth(13)
    return {"markdown": text, "figure": figure}
