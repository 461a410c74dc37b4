"""Evaluation of a fitted detector against labels and masks."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, field_validator

from blemish.data.fingerprint import Fingerprint, file_sha256
from blemish.data.items import Item
from blemish.data.labels import GOOD, counted_labels
from blemish.data.layouts import read_labelled
from blemish.data.masks import checked_masks
from blemish.decision import (
    PIXEL_FIGURES,
    PixelMetrics,
    PixelResult,
    accepted_and_rejected,
    accuracy_at,
    average_precision,
    bootstrap_interval,
    f1_at,
    f1_max,
    pr_curve,
    roc_auc,
    roc_curve,
)
from blemish.errors import BlemishError, FileError, ImageError
from blemish.inspection.detector import Detector
from blemish.inspection.document import versions
from blemish.inspection.folder import EVALUATION_FILE, InspectionFolder, inspections
from blemish.observer import Observer
from blemish.recipes import Recipe
from blemish.report import CurveChart, Line, Prose, Section, TableSection
from blemish.storage.atomic import write_json
from blemish.storage.run_lock import owned
from blemish.storage.training_record import Training, upgrade_training_v1

IMAGE_FIGURES = ("auroc", "ap", "f1max", "f1", "accuracy", "good_accepted", "bad_rejected")


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True)


class MetricValue(_Figures):
    """A metric with its 95 % bootstrap interval; None where a class is absent."""

    value: float | None
    low: float | None
    high: float | None


class ImageResult(_Figures):
    """Image-level figures of one defect type against all good images, or of all types."""

    good: int
    defective: int
    figures: dict[str, MetricValue]


class FalseRejects(_Figures):
    """Good test images rejected, beside what the guarantee allows."""

    rejected: int
    good: int
    ratio: float
    promised: float | None
    low: float | None
    high: float | None
    """95 % interval of the ratio that the guarantee allows for so many images."""
    within: bool | None


class Evaluation(_Figures):
    """Evaluation of a detector, the content of ``evaluation.json``."""

    dataset: str
    recipe: str
    threshold: float
    level: float
    guarantee: str
    image: dict[str, ImageResult]
    """Results by defect type; "all" is overall."""
    pixel: PixelResult
    false_rejects: FalseRejects | None
    without_mask: int
    """Defective images left out of the pixel figures, because their mask is missing or empty."""
    skipped: tuple[str, ...]
    seen: int = 0
    """Test images that the model was fitted or calibrated on, known by the bytes of their files."""
    seconds: float
    milliseconds_per_image: float
    settings: Recipe
    training: Training
    images: Fingerprint
    """Fingerprint of the good images that were fitted on."""
    items_sha256: str
    """SHA-256 of the test images, with their labels and masks."""
    versions: dict[str, str]
    command: str = ""

    @field_validator("training", mode="before")
    @classmethod
    def _read_v1(cls, training: Any) -> Any:
        """Evaluations of earlier versions hold the training as format 1 of ``model.json`` does."""
        if isinstance(training, Mapping) and isinstance(training.get("machine"), str):
            return upgrade_training_v1(training)
        return training

    @property
    def warning(self) -> str:
        """What the figures are not, where the model has seen test images; empty otherwise."""
        if not self.seen:
            return ""
        count = sum(image.good + image.defective for name, image in self.image.items() if name == "all")
        return (
            f"The model was fitted or calibrated on {self.seen} of these {count} images (the same bytes): the figures "
            "are not those of images that it has never seen."
        )

    def in_words(self) -> str:
        """The main figures as a few lines for people."""
        lines = [
            *([self.warning] if self.warning else []),
            f"{'':<14}{'image':^34}{'pixel':^26}",
            _row("", "AUROC", "95 %", "rejected", "AUROC", "AUPRO"),
        ]
        for name, image in self.image.items():
            pixel = self.pixel if name == "all" else self.pixel.groups.get(name)
            auroc = image.figures["auroc"]
            lines.append(
                _row(
                    name,
                    _number(auroc.value),
                    f"{_number(auroc.low)}–{_number(auroc.high)}",
                    _number(image.figures["bad_rejected"].value),
                    _number(pixel.auroc if pixel else None),
                    _number(pixel.aupro_30 if pixel else None),
                )
            )
        if self.false_rejects:
            rejects = self.false_rejects
            line = f"Good images rejected: {rejects.rejected} of {rejects.good} ({100 * rejects.ratio:.1f} %)"
            if rejects.low is not None and rejects.high is not None:
                where = "inside" if rejects.within else "OUTSIDE"
                line += f", {where} the {100 * rejects.low:.1f} to {100 * rejects.high:.1f} % that the promise allows"
            lines.append(line + ".")
        return "\n".join(lines)


def evaluate(
    detector: Detector,
    dataset: str | Path,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    good_label: str | None = None,
    command: str = "",
    sections: Sequence[Section] = (),
    observer: Observer | None = None,
) -> Evaluation:
    """Inspect the labelled test images of ``dataset`` and compare with their labels and masks.

    Parameters
    ----------
    dataset: an MVTec layout, or a CSV list with labels.
    out: folder for ``evaluation.json``, records, maps and a report with curves; without it nothing is
        written.
    good_label: the label that says good, where it is none of the usual words (:mod:`blemish.data.labels`).
    command: kept in the result, to say how it was made.
    sections: further ones for the report, before the figures.

    Raises
    ------
    UsageError
        When ``out`` holds an inspection already, without ``overwrite``.
    FileError
        When ``dataset`` cannot be read, none of its test images can be used, or ``out`` cannot be written.
    Stopped
        When the observer asked to stop.
    """
    with owned(out):
        return _evaluate(
            detector,
            Path(dataset),
            None if out is None else Path(out),
            overwrite,
            good_label,
            command,
            sections,
            observer or Observer(),
        )


def _evaluate(
    detector: Detector,
    dataset: Path,
    out: Path | None,
    overwrite: bool,
    good_label: str | None,
    command: str,
    sections: Sequence[Section],
    observer: Observer,
) -> Evaluation:
    begun = time.monotonic()
    labelled = read_labelled(dataset, good_label)
    items = [item for item in labelled.items if item.split != "train"]
    if not items:
        raise FileError(dataset, "has no labelled test images", "add test/good and test/<defect> folders")
    for problem in labelled.problems:
        observer.problem(problem)
    counts = Counter(item.label or "none" for item in items)
    if len(counts) == 1 or GOOD not in counts:
        observer.stage(
            f"Labels of the test images: {counted_labels(counts)}; figures that need good and defective ones are empty"
        )
    folder = (
        InspectionFolder(out, detector, overwrite=overwrite, offer_resume=False) if out is not None else None
    )
    sha256 = items_sha256(items)
    problems: list[BlemishError] = list(labelled.problems)
    pixels = PixelMetrics()
    labels: list[str] = []
    scores: list[float] = []
    seconds: list[float] = []
    without_mask = seen = 0
    observer.stage(f"Evaluating {detector.recipe.name} on {len(items)} test images in {dataset}")
    for one in inspections(detector, items, observer, problems=problems):
        item, found = one.item, one.found
        seen += one.sha256 in detector.file.seen
        label = item.label or "good"
        labels.append(label)
        scores.append(found.score)
        seconds.append(found.seconds)
        is_good = label == GOOD
        mask, doubted = checked_masks(item.masks, size=found.size, image=item.path, is_good=is_good)
        if doubted is not None:
            observer.problem(doubted)
            problems.append(doubted)
        if is_good:
            pixels.update(found.map)
        elif mask is None or not mask.any():
            without_mask += 1
        else:
            pixels.update(found.map, mask, group=label)
        if folder is not None:
            folder.add(one, observer, label)
    if not labels:
        raise FileError(
            dataset, "holds no test image that can be used", "correct the images named, or add others"
        )
    names = np.array(labels)
    values = np.array(scores)
    evaluation = Evaluation(
        dataset=dataset.resolve().name,
        recipe=detector.recipe.name,
        threshold=detector.threshold,
        level=detector.pixel_threshold,
        guarantee=detector.guarantee,
        image=_image_results(names, values, detector.threshold),
        pixel=pixels.result(),
        false_rejects=_false_rejects(detector, values[names == "good"]),
        without_mask=without_mask,
        skipped=tuple(str(problem) for problem in problems),
        seen=seen,
        seconds=time.monotonic() - begun,
        milliseconds_per_image=1000 * float(np.median(seconds)),
        settings=detector.recipe,
        training=detector.file.training,
        images=detector.file.fingerprint,
        items_sha256=sha256,
        versions=versions(),
        command=command,
    )
    if folder is not None:
        folder.problems += problems
        folder.write_report(items, [*sections, *_sections(evaluation, names != "good", values)])
        folder.write_exports()
        # Last, because compare takes it for the mark of a finished evaluation.
        write_json(folder.folder / EVALUATION_FILE, evaluation.model_dump(mode="json"))
    return evaluation


def items_sha256(items: Sequence[Item]) -> str:
    """SHA-256 of the names, labels and bytes of ``items`` and their masks, whatever their order."""
    digest = hashlib.sha256()
    for item in sorted(items, key=lambda item: item.name):
        masks = [(path.name, _content(path)) for path in item.masks]
        mask = masks[0] if len(masks) == 1 else masks or None
        digest.update(os.fsencode(f"{item.name!r} {item.label!r} {_content(item.path)} {mask!r}\n"))
    return digest.hexdigest()


def _content(path: Path) -> str:
    try:
        return file_sha256(path)
    except ImageError:
        return "unreadable"


def _image_results(
    labels: NDArray[np.str_], scores: NDArray[np.float64], threshold: float
) -> dict[str, ImageResult]:
    types = sorted(set(labels.tolist()) - {"good"})
    chosen = {name: (labels == "good") | (labels == name) for name in types}
    return {
        name: _image_result(labels[keep] != "good", scores[keep], threshold)
        for name, keep in {"all": np.ones(len(labels), dtype=bool), **chosen}.items()
    }


def _image_result(truth: NDArray[np.bool_], scores: NDArray[np.float64], threshold: float) -> ImageResult:
    metrics: dict[str, Callable[[NDArray[np.bool_], NDArray[np.float64]], float]] = {
        "auroc": roc_auc,
        "ap": average_precision,
        "f1max": lambda labels, values: f1_max(labels, values)[0],
        "f1": lambda labels, values: f1_at(labels, values, threshold),
        "accuracy": lambda labels, values: accuracy_at(labels, values, threshold),
        "good_accepted": lambda labels, values: accepted_and_rejected(labels, values, threshold)[0],
        "bad_rejected": lambda labels, values: accepted_and_rejected(labels, values, threshold)[1],
    }
    figures = {}
    for name, metric in metrics.items():
        low, high = bootstrap_interval(metric, truth, scores)
        figures[name] = MetricValue(
            value=_finite(metric(truth, scores)), low=_finite(low), high=_finite(high)
        )
    return ImageResult(good=int((~truth).sum()), defective=int(truth.sum()), figures=figures)


def _false_rejects(detector: Detector, good: NDArray[np.float64]) -> FalseRejects | None:
    if not len(good):
        return None
    rejected = int((good > detector.threshold).sum())
    ratio, promise = rejected / len(good), detector.decision.promise
    if promise is None:
        return FalseRejects(
            rejected=rejected, good=len(good), ratio=ratio, promised=None, low=None, high=None, within=None
        )
    low, high = promise.interval(len(good))
    return FalseRejects(
        rejected=rejected,
        good=len(good),
        ratio=ratio,
        promised=promise.false_reject_rate,
        low=low,
        high=high,
        within=low <= ratio <= high,
    )


def _sections(evaluation: Evaluation, truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> list[Section]:
    """Tables and curves for the report."""
    image: list[Sequence[str | float | None]] = [
        [name, result.defective, *(_with_interval(result.figures[key]) for key in IMAGE_FIGURES)]
        for name, result in evaluation.image.items()
    ]
    pixel_results = {"all": evaluation.pixel, **evaluation.pixel.groups}
    pixel: list[Sequence[str | float | None]] = [
        [name, result.defective, *(_pixel_figure(result, key) for key in PIXEL_FIGURES)]
        for name, result in pixel_results.items()
    ]
    note = "Brackets hold 95 % bootstrap intervals over images: of this model, not of another training run."
    sections: list[Section] = [
        *([Prose(evaluation.warning)] if evaluation.warning else []),
        TableSection(
            "Images",
            [
                "type",
                "defective",
                "AUROC",
                "AP",
                "F1 max",
                "F1",
                "accuracy",
                "good accepted",
                "defective rejected",
            ],
            image,
            note,
        ),
        TableSection(
            "Pixels",
            ["type", "defective", "AUROC", "AP", "F1 max", "IoU AUC", "AUPRO 0.3", "AUPRO 0.05"],
            pixel,
            note,
        ),
    ]
    if truth.any() and not truth.all():
        roc, precision = roc_curve(truth, scores), pr_curve(truth, scores)
        auroc = f"AUROC {_number(evaluation.image['all'].figures['auroc'].value)}"
        ap = f"AP {_number(evaluation.image['all'].figures['ap'].value)}"
        sections += [
            CurveChart(
                "ROC of images",
                "good images rejected",
                "defective images rejected",
                [Line(auroc, list(zip(roc.x.tolist(), roc.y.tolist(), strict=True)))],
                diagonal="guessing",
            ),
            CurveChart(
                "Precision and recall of images",
                "recall",
                "precision",
                [Line(ap, list(zip(precision.x.tolist(), precision.y.tolist(), strict=True)))],
            ),
        ]
    return sections


def _pixel_figure(result: PixelResult, key: str) -> str:
    low, high = result.intervals.get(key, (None, None))
    return _with_interval(MetricValue(value=getattr(result, key), low=low, high=high))


def _with_interval(figure: MetricValue) -> str:
    if figure.low is None:
        return _number(figure.value)
    return f"{_number(figure.value)} [{_number(figure.low)}, {_number(figure.high)}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _row(*cells: str) -> str:
    widths = (14, 8, 14, 12, 13, 13)
    first, *rest = cells
    return f"{first:<14}" + "".join(f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
