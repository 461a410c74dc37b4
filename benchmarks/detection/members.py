"""What each member of the default's ensemble is worth, alone and left out, and whether synthetic anomalies tell."""

from __future__ import annotations

import argparse
import platform
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.detection.drawing import grouped
from benchmarks.detection.options import whole_dataset
from benchmarks.detection.trials import Bench
from benchmarks.detection.trivial import brightness_scores, colour_scores, twin_scores
from benchmarks.detection.whole_fits import auroc_of_kinds, by_name, fits, table_of_kinds, tested
from blemish.data.image import LoadedImage, read_image
from blemish.decision import image_score, roc_auc
from blemish.detectors.contracts import Floats
from blemish.detectors.ensemble import Ensemble
from blemish.inspection.detector import Detector
from blemish.models.synthetic_anomalies import SyntheticAnomalies, anomaly_mask
from blemish.preprocessing.absent import absent_outside
from studies.protocol import fitted, spread, table

HELP = "each member of the ensemble, alone and left out"
WHOLE = "all, as fitted"
HELD_OUT = 24
"""Calibration images, at most, that synthetic anomalies are painted into."""
ALTERED = 4
"""Copies of each."""
TIMED = 20
"""Test images that the time of a map is measured on."""


def add_options(parser: argparse.ArgumentParser) -> None:
    whole_dataset(parser)


def answer(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Each member of the ensemble alone and left out, and their figures on synthetic anomalies.

    Synthetic anomalies are those that the network trains on, in calibration images. The rank correlation says whether
    they would choose the members that find the real defects.
    """
    work, runs = fits(bench, options)
    rows: list[dict[str, Any]] = []
    ranks, costs = [], []
    for run in runs:
        detector = fitted(work, run.recipe, run.seed)
        begun = time.perf_counter()
        own = tested(bench, partial(_scored, detector))
        synthetic = _on_synthetic_anomalies(detector, bench)
        rows += [{**row, "seed": run.seed, "synthetic_auroc": synthetic[row["name"]]} for row in own]
        alone = [row for row in own if row["name"].endswith(" alone")]
        if len(alone) > 2:
            pairs = [(row["image_auroc"], synthetic[row["name"]]) for row in alone]
            ranks.append(float(stats.spearmanr(*zip(*pairs, strict=True)).statistic))
        costs += [{**cost, "seed": run.seed} for cost in _costs(detector, bench)]
        bench.seconds += run.training_seconds + time.perf_counter() - begun
    found = by_name(rows, "members", WHOLE)
    words = ", ".join(
        f"{name} {spread([row['synthetic_auroc'] for row in rows if row['name'] == name])}"
        for name in dict.fromkeys(row["name"] for row in rows)
    )
    found["markdown"] += f"\nImage AUROC on synthetic anomalies: {words}.\n"
    if ranks:
        found["markdown"] += f"\nSpearman's rank correlation over the members alone: {spread(ranks, 2)}.\n"
    trivial = _trivial(bench)
    found["markdown"] += "\nImage AUROC of each kind of defect:\n\n" + table_of_kinds(
        [*rows, *trivial], "members"
    )
    lines = [
        [name, *(spread([row[key] for row in some], 2) for key in COSTS)]
        for name, some in grouped(costs, "name")
    ]
    found["markdown"] += f"\nSeconds, on {cpu_name()}:\n\n" + table(
        ("member", *COSTS.values()), lines, left=1
    )
    return {
        "budget": options.budget,
        "rows": rows,
        "trivial": trivial,
        "costs": costs,
        "cpu": cpu_name(),
        "rank_correlation": ranks,
        **found,
    }


COSTS = {"fill_seconds": "to fill it, of one fit", "map_seconds": "for the map of an image"}


def _costs(detector: Detector, bench: Bench) -> list[dict[str, Any]]:
    """Seconds of each memory bank that counts: to fill it anew, and for the map of a test image."""
    ensemble = detector.model
    assert isinstance(ensemble, Ensemble)
    apply = detector.file.preprocessing.apply
    good = [torch.from_numpy(apply(read_image(item.path)).model_input) for item in bench.train]
    shown = [apply(read_image(item.path)).model_input for item in bench.tests[:TIMED]]
    found = []
    for number, bank in ensemble.banks.items():
        if not bank.is_empty:
            begun = time.perf_counter()
            for x in shown:
                bank.maps(x)
            mapped = time.perf_counter()
            bank.fit_images(good, torch.Generator().manual_seed(0), by_place=bank.by_place)
            filled = time.perf_counter() - mapped
            each = (mapped - begun) / len(shown)
            found.append({"name": ensemble.names[number], "fill_seconds": filled, "map_seconds": each})
    return found


def _trivial(bench: Bench) -> list[dict[str, Any]]:
    """Rows of statistics that need no model."""
    labels = [str(item.label) for item in bench.tests]
    defective = [not item.is_good for item in bench.tests]
    rows = []
    for name, scores_of in (
        ("mean grey level", brightness_scores),
        ("mean colour", colour_scores),
        ("similarity to one training image", twin_scores),
    ):
        scores = scores_of(bench.train, bench.tests).tolist()
        kinds = auroc_of_kinds(labels, scores)
        rows.append({"name": f"trivial: {name}", "image_auroc": roc_auc(defective, scores), "kinds": kinds})
    return rows


def cpu_name() -> str:
    """Name of the processor where the system tells, and the threads that torch uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = f"{named[0]}, {len(named)} cores" if named else platform.processor() or "an unknown processor"
    return f"{name}, {torch.get_num_threads()} used"


def _scored(detector: Detector, image: LoadedImage) -> dict[str, tuple[float, NDArray[np.float32]]]:
    placed = detector.file.preprocessing.apply(image)
    return {
        name: (score_of(detector, shown), placed.map_back(shown))
        for name, shown in _maps(detector, placed.model_input).items()
    }


def score_of(detector: Detector, shown: Floats) -> float:
    rule = detector.recipe.score
    return image_score(shown, kind=rule.name, quantile=rule.quantile, sigma=rule.sigma)


def _maps(detector: Detector, x: Floats) -> dict[str, Floats]:
    """Map (h, w) of all members that count together, of each alone, and of all without each."""
    ensemble = detector.model
    assert isinstance(ensemble, Ensemble)
    assert ensemble.combination == "soft-maximum", "fit the default recipe"
    weights = ensemble.weights
    counting = [number for number, weight in enumerate(weights) if weight]
    values = [
        model.maps(x).anomaly if number in counting else None for number, model in enumerate(ensemble.models)
    ]

    def together(numbers: list[int]) -> Floats:
        own = [weight if number in numbers else 0.0 for number, weight in enumerate(weights)]
        own = [weight / sum(own) for weight in own]
        return ensemble.soft_maximum(values, own)

    maps = {WHOLE: together(counting)}
    for number in counting:
        maps[f"{ensemble.names[number]} alone"] = together([number])
    if len(counting) > 2:
        for number in counting:
            rest = [other for other in counting if other != number]
            maps[f"without {ensemble.names[number]}"] = together(rest)
    return maps


def _on_synthetic_anomalies(detector: Detector, bench: Bench) -> dict[str, float]:
    """Image AUROC of calibration images with synthetic anomalies against the same images without."""
    held_out = {Path(name).name for name in detector.file.split["calibration"]}
    chosen = [item for item in bench.train if item.path.name in held_out][:HELD_OUT]
    corruptions = detector.autoencoder.corruptions
    anomalies = next(one for one in corruptions if isinstance(one, SyntheticAnomalies))
    generator = torch.Generator().manual_seed(detector.recipe.training.seed)
    scores: dict[str, list[float]] = {}
    labels: list[bool] = []
    for item in chosen:
        placed = detector.file.preprocessing.apply(read_image(item.path))
        x = torch.from_numpy(placed.pixels)[None]
        copies = x.expand(ALTERED, -1, -1, -1)
        altered = anomalies.synthesise(copies, 0.0, generator)
        visible = anomaly_mask(altered, copies).flatten(1).any(1)
        for image, is_altered in [(x[0], False), *((one, True) for one in altered[visible])]:
            labels.append(is_altered)
            for name, shown in _maps(detector, absent_outside(image.numpy(), placed.inside)).items():
                scores.setdefault(name, []).append(score_of(detector, shown))
    return {name: roc_auc(labels, values) for name, values in scores.items()}
