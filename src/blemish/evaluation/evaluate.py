"""Evaluation of a fitted detector against labels and masks."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blemish.data.fingerprint import file_sha256
from blemish.data.items import Item
from blemish.data.labels import GOOD, counted_labels
from blemish.data.layouts import read_labelled
from blemish.data.masks import checked_masks
from blemish.decision import PIXEL_FIGURES, PixelMetrics, pr_curve, roc_curve
from blemish.errors import BlemishError, FileError, ImageError
from blemish.evaluation.figures import (
    IMAGE_FIGURES,
    FalseRejects,
    image_results,
    number_text,
    pixel_figure,
    with_interval,
)
from blemish.evaluation.figures import Evaluation as Evaluation
from blemish.inspection.detector import Detector
from blemish.inspection.document import versions
from blemish.inspection.folder import EVALUATION_FILE, InspectionFolder, inspections
from blemish.observer import Observer
from blemish.report import CurveChart, Line, Prose, Section, TableSection
from blemish.storage.atomic import write_json
from blemish.storage.run_lock import owned


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

    Of a detector of scenes, ``dataset`` holds scenes with masks (:mod:`blemish.evaluation.scenes`).

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
    if detector.file.subject == "scenes":
        from blemish.evaluation.scenes import evaluate_scenes, refuse_label  # needs the extra [large]

        refuse_label(good_label, Path(dataset))
        return evaluate_scenes(
            detector, dataset, out=out, overwrite=overwrite, command=command, observer=observer
        )
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
        image=image_results(names, values, detector.threshold),
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
        [name, result.defective, *(with_interval(result.figures[key]) for key in IMAGE_FIGURES)]
        for name, result in evaluation.image.items()
    ]
    pixel_results = {"all": evaluation.pixel, **evaluation.pixel.groups}
    pixel: list[Sequence[str | float | None]] = [
        [name, result.defective, *(pixel_figure(result, key) for key in PIXEL_FIGURES)]
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
        auroc = f"AUROC {number_text(evaluation.image['all'].figures['auroc'].value)}"
        ap = f"AP {number_text(evaluation.image['all'].figures['ap'].value)}"
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
