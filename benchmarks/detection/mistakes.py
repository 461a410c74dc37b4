"""The worst false alarms and misses of a fit, as a list, a figure of the scores, and a sheet of images to look at."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.detection.drawing import axes
from benchmarks.detection.options import whole_dataset
from benchmarks.detection.trials import Bench
from benchmarks.detection.whole_fits import fits
from blemish.data.image import as_floats, read_image
from blemish.data.items import Item
from blemish.data.masks import read_masks
from blemish.inspection.detector import Detector
from blemish.storage.atomic import atomic_path
from studies.protocol import fitted, table

HELP = "worst false alarms and misses"
SHOWN = 8
"""Images of each sort."""
CALM = 99.0
"""Percentile of the map outside the mask that says how loud the rest of an image is."""


class Scored(NamedTuple):
    """A test image, its score and its anomaly map (H, W)."""

    item: Item
    score: float
    map: NDArray[np.float32]
    mask: NDArray[np.bool_] | None


def add_options(parser: argparse.ArgumentParser) -> None:
    whole_dataset(parser)


def answer(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Good test images with the highest scores, and defective ones with the lowest.

    Beside each stands the share of the other sort that it is on the wrong side of. Of a miss: the share of the image that the
    mask takes, and whether the map is largest inside the mask. A sheet with image, map and mask of each is written
    beside the fits, not to the results, as images of a data set may not be handed on.
    """
    work, runs = fits(bench, options)
    rows: list[dict[str, Any]] = []
    scores: dict[str, list[float]] = {}
    for run in runs:
        detector = fitted(work, run.recipe, run.seed)
        scored = [_scored(detector, item) for item in bench.tests]
        good = sorted((one for one in scored if one.item.is_good), key=lambda one: -one.score)[:SHOWN]
        bad = sorted((one for one in scored if not one.item.is_good), key=lambda one: one.score)[:SHOWN]
        values = {
            is_good: np.array([one.score for one in scored if one.item.is_good == is_good])
            for is_good in (True, False)
        }
        for one in good:
            behind = float((values[False] <= one.score).mean())
            rows.append(_row(bench, one, "false alarm", run.seed, behind, detector.threshold))
        for one in bad:
            behind = float((values[True] >= one.score).mean())
            rows.append(_row(bench, one, "miss", run.seed, behind, detector.threshold) | _of_miss(one))
        for one in scored:
            scores.setdefault(str(one.item.label), []).append(one.score / detector.threshold)
        with atomic_path(options.work / f"{options.stem}-{run.seed}-sheet.png") as path:
            _sheet(good, bad).savefig(path, dpi=70, format="png")
        bench.seconds += run.training_seconds
    kinds = {
        kind: {
            "images": len(some),
            "above the threshold": float((np.array(some) > 1).mean()),
        }
        for kind, some in scores.items()
    }
    text = "\n".join(
        [
            table(
                ("kind", "images of all seeds", "above the threshold"),
                [
                    [kind, str(one["images"]), f"{100 * one['above the threshold']:.0f} %"]
                    for kind, one in kinds.items()
                ],
            ),
            *(
                f"\n{title}:\n\n" + _listed([row for row in rows if row["sort"] == sort])
                for sort, title in (("false alarm", "Worst false alarms"), ("miss", "Worst misses"))
            ),
        ]
    )
    return {
        "rows": rows,
        "kinds": kinds,
        "budget": options.budget,
        "markdown": text,
        "figure": _distributions(scores),
    }


def _scored(detector: Detector, item: Item) -> Scored:
    image = read_image(item.path)
    found = detector.measure(image)
    mask = read_masks(item.masks, size=image.size)
    return Scored(item, found.score, found.map, None if mask is None else mask > 0)


def _row(bench: Bench, one: Scored, sort: str, seed: int, behind: float, threshold: float) -> dict[str, Any]:
    name = Path(one.item.path).resolve()
    root = bench.dataset.resolve() if bench.dataset.is_dir() else bench.dataset.resolve().parent
    shown = name.relative_to(root) if name.is_relative_to(root) else Path(*name.parts[-3:])
    return {
        "image": shown.as_posix(),
        "kind": str(one.item.label),
        "sort": sort,
        "seed": seed,
        "score over threshold": one.score / threshold,
        "behind": behind,
    }


def _of_miss(one: Scored) -> dict[str, Any]:
    if one.mask is None or not one.mask.any():
        return {"area": None, "largest inside": None, "inside over outside": None}
    inside, outside = one.map[one.mask], one.map[~one.mask]
    return {
        "area": float(one.mask.mean()),
        "largest inside": bool(inside.max() >= outside.max()),
        "inside over outside": float(inside.max() / max(np.percentile(outside, CALM), 1e-12)),
    }


def _listed(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        [
            row["image"],
            str(row["seed"]),
            f"{row['score over threshold']:.2f}",
            f"{100 * row['behind']:.0f} %",
            "–" if row.get("area") is None else f"{100 * row['area']:.2f} %",
            {None: "–", True: "yes", False: "no"}[row.get("largest inside")],
            "–" if row.get("inside over outside") is None else f"{row['inside over outside']:.1f}",
        ]
        for row in rows
    ]
    head = (
        "image",
        "seed",
        "score / threshold",
        "wrong side of",
        "area of the mask",
        "map largest inside",
        f"maximum inside / {CALM:g} % outside",
    )
    return table(head, lines, left=1)


def _distributions(scores: dict[str, list[float]]) -> Figure:
    figure, (axis, *_) = axes(1)
    figure.set_size_inches(7, 1.2 + 0.3 * len(scores))
    kinds = sorted(scores, key=lambda kind: (kind != "good", float(np.median(scores[kind]))))
    for place, kind in enumerate(kinds):
        colour = "tab:green" if kind == "good" else "tab:red"
        spots = np.linspace(-0.25, 0.25, len(scores[kind])) + place
        axis.plot(scores[kind], spots, ".", color=colour, markersize=3)
    axis.set_yticks(range(len(kinds)), kinds)
    axis.axvline(1, color="black", linestyle=":")
    axis.set_xscale("log")
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlim(0.9 * min(map(min, scores.values())), 1.1 * max(map(max, scores.values())))
    axis.set_xlabel("score / threshold")
    return figure


def _sheet(good: Sequence[Scored], bad: Sequence[Scored]) -> Figure:
    figure = Figure(figsize=(2.3 * SHOWN, 9.6), layout="constrained")
    panels = figure.subplots(4, SHOWN, squeeze=False)
    top = float(np.median([one.map.max() for one in good]))
    for row, some in ((0, good), (2, bad)):
        for column, one in enumerate(some):
            image = as_floats(read_image(one.item.path).pixels[:3])
            shown = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
            for axis, picture in zip(panels[row : row + 2, column], (shown, one.map), strict=True):
                axis.imshow(picture, cmap="gray" if picture is shown else "inferno", vmin=0)
                axis.images[0].set_clim(0, 1 if picture is shown else top)
                if one.mask is not None and one.mask.any():
                    axis.contour(one.mask, [0.5], colors="cyan", linewidths=0.7)
            panels[row, column].set_title(f"{one.item.label} {one.item.path.stem}", fontsize=8)
    for axis in panels.flat:
        axis.set_axis_off()
    return figure
