"""Fit the detector on some of a data set's images and measure it on others; finished trials are kept on disk."""

from __future__ import annotations

import argparse
import csv
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from blemish.data.image import read_image
from blemish.data.items import Item
from blemish.data.layouts import read_labelled
from blemish.data.masks import read_masks
from blemish.decision import PixelMetrics, conformal_threshold, roc_auc
from blemish.detectors.contracts import EnsembleCandidate
from blemish.inspection.detector import Detector
from blemish.recipes import load_recipe, override
from blemish.storage.atomic import write_json
from blemish.training.fit import fit

Floats = NDArray[np.float64]


RATE = 0.05
"""False-reject rate where a question does not set its own."""
WEIGHTED = ("combination=weighted-mean", "filters=false", "score.name=smoothed-max")
"""Settings of an ensemble of network and memory bank whose weights are selected on synthetic anomalies."""
MEMORY_ALONE = (
    *WEIGHTED,
    "memory.share=1.0",
    "encoder.widths=[4]",
    "training.budget=null",
    "training.steps=1",
)
"""Settings of ``--fast``: the memory bank decides alone, and the network is as small as it can be.

A recipe of a memory bank without a network would leave out the choice of its placement on synthetic anomalies, which
is made for an ensemble only and which these questions look at too.
"""
FIGURES = ("image_auroc", "pixel_auroc", "aupro_30")
UNSEEN = "unseen"
"""Label of good images of the training folder that a fit has not seen."""


class TestedImage(BaseModel):
    """An image that the fit has not seen."""

    label: str
    score: float
    peak: float
    """Maximum of its map, at its own size."""


class Trial(BaseModel):
    """A fit, and its scores on other images."""

    identity: str
    """Changes with the settings, the images and their order."""
    fit_seconds: float
    test_seconds: float
    split: dict[str, int]
    """Number of images for training, validation and calibration."""
    calibration_scores: tuple[float, ...]
    calibration_peaks: tuple[float, ...]
    candidates: tuple[EnsembleCandidate, ...]
    notes: tuple[str, ...]
    shown: tuple[TestedImage, ...]
    pixel_auroc: float | None
    pixel_ap: float | None
    aupro_30: float | None

    def scores(self, *labels: str) -> Floats:
        return np.array([one.score for one in self.shown if one.label in labels])

    def peaks(self, *labels: str) -> Floats:
        return np.array([one.peak for one in self.shown if one.label in labels])

    @property
    def defects(self) -> tuple[str, ...]:
        return tuple({one.label for one in self.shown} - {"good", UNSEEN})

    def auroc(self) -> float:
        """Image AUROC of the test images."""
        good, defective = self.scores("good"), self.scores(*self.defects)
        labels = np.repeat([False, True], [len(good), len(defective)])
        return roc_auc(labels, np.concatenate([good, defective]))

    def proxy(self) -> EnsembleCandidate | None:
        """Best candidate on synthetic anomalies; the one in use is as good but for chance."""
        return max(self.candidates, key=lambda one: one.image_auroc, default=None)


class Bench:
    """A data set, the settings that all fits on it share, and the folder that keeps them."""

    def __init__(self, options: argparse.Namespace, dataset: Path) -> None:
        self.dataset = dataset
        self.settings = [*(MEMORY_ALONE if options.fast else ()), *options.set]
        self.recipe = load_recipe(options.recipe)
        self.work = options.work / options.question / dataset.resolve().stem
        labelled = read_labelled(dataset).items
        self.train = [item for item in labelled if item.split == "train" and item.is_good]
        self.tests = [item for item in labelled if item.split == "test"]
        self.seconds = 0.0
        """Seconds of all fits and tests, kept ones included."""

    def trial(
        self, name: str, train: Sequence[Item], shown: Sequence[Item], seed: int, settings: Sequence[str] = ()
    ) -> Trial:
        """Fit on ``train``, whatever its labels, and score ``shown``; a finished trial is read from disk."""
        changes = [*self.settings, *settings, f"training.seed={seed}"]
        recipe = override(self.recipe, changes)
        names = [f"{item.name} of {item.group}" if item.group else item.name for item in train]
        facts = [recipe.model_dump_json(), *names, "shown", *(item.name for item in shown)]
        identity = hashlib.sha256("\n".join(facts).encode()).hexdigest()
        path = self.work / f"{name}-{seed}.json"
        kept = Trial.model_validate_json(path.read_bytes()) if path.exists() else None
        if kept is None or kept.identity != identity:
            images = self.listing(train, f"{name}-{seed}")
            begun = time.perf_counter()
            detector = fit(images, recipe)
            fitted = time.perf_counter()
            kept = measured(detector, shown, identity, fitted - begun)
            write_json(path, kept.model_dump(mode="json"))
        self.seconds += kept.fit_seconds + kept.test_seconds
        print(f"{name}, seed {seed}: AUROC {kept.auroc():.3f}, fit {kept.fit_seconds:.0f} s", flush=True)
        return kept

    def listing(self, items: Sequence[Item], name: str) -> Path:
        """List of ``items`` to fit on, in the folder of the work."""
        images = self.work / f"{name}.csv"
        images.parent.mkdir(parents=True, exist_ok=True)
        with images.open("w", encoding="utf-8", newline="") as file:
            rows = [(item.path.resolve(), item.group) for item in items]
            csv.writer(file).writerows([("path", "group"), *rows])
        return images


def measured(detector: Detector, items: Sequence[Item], identity: str, fit_seconds: float) -> Trial:
    """Score ``items`` with ``detector``; those of the training split count as unseen good images."""
    begun = time.perf_counter()
    pixels = PixelMetrics(resamples=0)
    shown = []
    for item in items:
        image = read_image(item.path)
        found = detector.measure(image)
        label = UNSEEN if item.split == "train" else str(item.label)
        shown.append(TestedImage(label=label, score=found.score, peak=float(found.map.max())))
        if label == "good":
            pixels.update(found.map)
        elif (mask := read_masks(item.masks, size=image.size)) is not None and mask.any():
            pixels.update(found.map, mask)
    file = detector.file
    result = pixels.result()
    return Trial(
        identity=identity,
        fit_seconds=fit_seconds,
        test_seconds=time.perf_counter() - begun,
        split={part: len(names) for part, names in file.split.items()},
        calibration_scores=file.calibration.scores,
        calibration_peaks=file.calibration.map_maxima,
        candidates=file.candidates,
        notes=file.training.notes,
        shown=tuple(shown),
        pixel_auroc=result.auroc,
        pixel_ap=result.ap,
        aupro_30=result.aupro_30,
    )


def above(values: Floats, calibration: Sequence[float], rate: float) -> float | None:
    """Share of ``values`` above the conformal threshold; None without values."""
    return float((values > conformal_threshold(calibration, rate)).mean()) if len(values) else None


REALISED = (
    "rejected_unseen",
    "rejected_test",
    "found",
    "with_regions_unseen",
    "with_regions_test",
)


def realised(trial: Trial, rate: float) -> dict[str, float | None]:
    """Shares of good images rejected or with regions, and of defective images rejected, at ``rate``."""
    scores, peaks = trial.calibration_scores, trial.calibration_peaks
    return {
        "rejected_unseen": above(trial.scores(UNSEEN), scores, rate),
        "rejected_test": above(trial.scores("good"), scores, rate),
        "found": above(trial.scores(*trial.defects), scores, rate),
        "with_regions_unseen": above(trial.peaks(UNSEEN), peaks, rate),
        "with_regions_test": above(trial.peaks("good"), peaks, rate),
    }
