"""Report of an inspection: decisions, guarantee, drift, and heat maps of the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from blemish._version import __version__
from blemish.decision.drift import Drift
from blemish.decision.records import Inspection
from blemish.errors import BlemishError, within_memory
from blemish.report.charts import CurveChart, Histogram, Line, Series
from blemish.report.numbers import counted, number
from blemish.report.page import (
    FigurePanel,
    Figures,
    Gallery,
    ImageRow,
    Prose,
    Scale,
    Section,
    SettingsSection,
    TableSection,
    Tone,
    write_page,
)
from blemish.report.views import ImageViews, image_panels, regions_in_words

Scores: TypeAlias = Sequence[float] | npt.NDArray[np.floating]

HANDFUL = 5
"""Number of images shown of the most normal ones and of each kind of wrong decision."""

MOST_POINTS = 200
"""Approximate largest number of points in the chart of p-values."""

_SIDE = 320  # longer side of an image in the page, in pixels


@dataclass(frozen=True)
class ModelSummary:
    """Description of a model for the reader: recipe, paper, measure of its anomaly map, and training."""

    name: str
    recipe: str
    paper: str
    measure: str
    trained: str


def most_suspicious_first(records: Sequence[Inspection]) -> list[Inspection]:
    """Sort records by p-value, then by falling score."""
    return sorted(records, key=lambda record: (record.p_value, -record.score, record.path))


def mistakes(records: Sequence[Inspection]) -> tuple[list[Inspection], list[Inspection]]:
    """Select the wrong decisions: (rejected good images, accepted anomalous images), the worst of each first.

    Records without a label are left out.
    """
    rejected = [r for r in records if r.label == "good" and r.is_anomalous]
    accepted = [r for r in records if r.label not in ("good", None) and not r.is_anomalous]
    return sorted(rejected, key=lambda r: -r.score), sorted(accepted, key=lambda r: r.score)


def write_inspection_report(
    path: Path,
    *,
    model: ModelSummary,
    records: Sequence[Inspection],
    panels: Callable[[Inspection], ImageViews],
    calibration_scores: Scores,
    pixel_threshold: float,
    guarantee: str,
    settings: Mapping[str, str],
    problems: Sequence[str] = (),
    sections: Sequence[Section] = (),
    drift: Drift | None = None,
    false_reject_rate: float | None = None,
    limit: int = 60,
) -> None:
    """Write ``report.html`` of an inspection, one file that opens offline.

    The page opens with one accepted and one rejected image, each as image, heat map and overlay. ``panels`` is called for one
    shown image at a time: the ``limit`` most suspicious images and a few others.
    ``pixel_threshold`` is the middle of the scale of every heat map. ``guarantee`` is printed unchanged,
    and ``false_reject_rate`` is one of the headline figures; ``problems`` are files that could not be inspected,
    one line each; ``sections`` (curves, metrics) follow the images. ``drift`` compares the images with those of the
    training.

    Raises ``FileError`` when the page cannot be written.
    """
    order = most_suspicious_first(records)
    wrongly_rejected, missed = mistakes(records)
    suspicious, rest = order[:limit], order[limit:]
    normal = rest[-HANDFUL:][::-1]
    scale = Scale(
        pixel_threshold,
        f"{model.measure}, one scale for all images: values above the pixel threshold are bright",
    )

    def gallery(title: str, chosen: Sequence[Inspection], note: str) -> list[Section]:
        if not chosen:
            return []
        return [
            Gallery(title, (_row(record, panels, pixel_threshold) for record in chosen), note, scale, _SIDE)
        ]

    def part(chosen: Sequence[Inspection], of: int, first: str) -> str:
        count = counted(of, "image")
        if len(chosen) < of:
            count = f"{len(chosen)} of {count}"
        return f"{count}, {first} first."

    content: list[Section] = _glance(records, panels, pixel_threshold)
    content.append(_figures(records, calibration_scores, false_reject_rate))
    content.append(Prose(guarantee, "Guarantee of the threshold"))
    content += _histogram(records, calibration_scores, model)
    if drift is not None and records:
        content += _drift(drift)
    chosen = wrongly_rejected[:HANDFUL]
    content += gallery("Good images rejected", chosen, part(chosen, len(wrongly_rejected), "highest score"))
    chosen = missed[:HANDFUL]
    content += gallery("Anomalies missed", chosen, part(chosen, len(missed), "lowest score"))
    note = part(suspicious, len(records), "lowest p-value and highest score")
    content += gallery("Most suspicious", suspicious, note)
    content += gallery("Most normal", normal, "The least suspicious images: their heat maps stay dark.")
    content += sections
    if problems:
        rows = [[line] for line in problems]
        content.append(TableSection("Not inspected", ["file, problem and remedy"], rows))
    if records:
        content.append(_decisions(order))
    content.append(SettingsSection("Settings", {**_model_settings(model), **settings}))
    write_page(
        path,
        title=_headline(records),
        subtitle=f"{model.name}, {model.trained}",
        sections=content,
        footer=f"Written by Blemish {__version__} on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC. "
        "This file is complete: it opens without a network.",
    )


def _headline(records: Sequence[Inspection]) -> str:
    if not records:
        return "No image was inspected"
    rejected = sum(record.is_anomalous for record in records)
    inspected = counted(len(records), "image")
    if not rejected:
        return f"None of {inspected} is rejected"
    return f"{rejected} of {inspected} {'is' if rejected == 1 else 'are'} rejected"


def _figures(records: Sequence[Inspection], calibration: Scores, rate: float | None) -> Figures:
    items: list[tuple[str, str | float, str]]
    if records:
        speed = f"{number(1000 * float(np.median([r.seconds for r in records])))} ms each"
        rejected = sum(r.is_anomalous for r in records)
        items = [
            ("inspected", len(records), speed),
            ("rejected", rejected, f"{100 * rejected / len(records):.1f} % of them"),
            ("threshold", records[0].threshold, "a higher score is rejected"),
        ]
    else:
        items = [("inspected", 0, "")]
    if rate is not None:
        basis = f"of good images, by {len(calibration)} calibration images"
        items.append(("false-reject rate at most", f"{number(100 * rate)} %", basis))
    elif len(calibration):
        items.append(("calibrated on", len(calibration), "held-out good images"))
    good = [r for r in records if r.label == "good"]
    anomalous = [r for r in records if r.label not in ("good", None)]
    if good:
        wrong = sum(r.is_anomalous for r in good)
        items.append(("good images rejected", f"{100 * wrong / len(good):.1f} %", f"{wrong} of {len(good)}"))
    if anomalous:
        found = sum(r.is_anomalous for r in anomalous)
        share = f"{100 * found / len(anomalous):.1f} %"
        items.append(("anomalous images rejected", share, f"{found} of {len(anomalous)}"))
    return Figures(items)


def _histogram(
    records: Sequence[Inspection],
    calibration: Scores,
    model: ModelSummary,
) -> list[Section]:
    def scores(name: str, keep: Callable[[Inspection], bool]) -> Series:
        return Series(name, [r.score for r in records if keep(r)])

    labelled = any(r.label is not None for r in records)
    series = [Series("calibration, good", calibration)]
    if labelled:
        series.append(scores("inspected, good", lambda r: r.label == "good"))
        series.append(scores("inspected, anomalous", lambda r: r.label not in ("good", None)))
    series.append(scores("inspected, unlabelled" if labelled else "inspected", lambda r: r.label is None))
    series = [s for s in series if len(s.values)]
    if not series:
        return []
    marks = [(record.threshold, "threshold") for record in records[:1]]
    return [Histogram("Image scores", series, marks, f"image score, from {model.measure}")]


def _drift(drift: Drift) -> list[Section]:
    """Build the sections of the drift test: its result and, if there are enough images, their p-values."""
    title = "Similarity to the training images"
    if not drift.can_tell:
        return [Prose(drift.in_words(), title)]
    ranks = drift.ranks
    stairs = [(rank, (index + 1) / len(ranks)) for index, rank in enumerate(ranks)]
    step = max(1, len(stairs) // MOST_POINTS)
    points = [(0.0, 0.0), *stairs[step - 1 :: step], (1.0, 1.0)]
    return [
        Prose(drift.in_words(), title),
        CurveChart(
            "p-values of the accepted images",
            "p-value among calibration images below the threshold",
            "share of accepted images up to it",
            [Line("accepted images", points)],
            diagonal="images like those of the training",
        ),
    ]


def _glance(
    records: Sequence[Inspection], panels: Callable[[Inspection], ImageViews], pixel_threshold: float
) -> list[Section]:
    """An accepted and a rejected image side by side with their maps; where labels are known, right decisions only.

    Each is the one with the median score of its kind, so that neither the easiest nor the hardest stands for all.
    """
    accepted = _median([r for r in records if not r.is_anomalous and r.label in ("good", None)])
    rejected = _median([r for r in records if r.is_anomalous and r.label != "good"])
    rows = []
    for record, text in (
        (accepted, "accepted: the anomaly map stays dark."),
        (
            rejected,
            "rejected: the anomaly map glows where it differs from the good images, and the region is boxed.",
        ),
    ):
        if record is None:
            continue
        try:
            with within_memory(Path(record.path)):
                shown = _three(panels(record), record, pixel_threshold)
        except BlemishError:
            continue
        what = {"good": "A good image, ", None: "An image, "}.get(
            record.label, f"A defect ({record.label}), "
        )
        badge: tuple[str, Tone] = ("✕ rejected", "bad") if record.is_anomalous else ("✓ accepted", "good")
        rows.append(ImageRow(record.path, what + text, [badge], shown))
    if not rows:
        return []
    note = "The image of the median score among the accepted, and among the rejected."
    return [Gallery("At a glance", rows, note, max_side=_SIDE)]


def _median(records: Sequence[Inspection]) -> Inspection | None:
    order = sorted(records, key=lambda r: (r.score, r.path))
    return order[len(order) // 2] if order else None


def _three(found: ImageViews, record: Inspection, pixel_threshold: float) -> list[FigurePanel]:
    """Image, anomaly map and overlay."""
    every = image_panels(ImageViews(found.image, None, found.map, found.mask), record, pixel_threshold, _SIDE)
    names = ("image", "anomaly map", "overlay" if found.mask is None else "overlay, true defect outlined")
    return [FigurePanel(name, panel.image, panel.kind) for name, panel in zip(names, every, strict=True)]


def _row(record: Inspection, panels: Callable[[Inspection], ImageViews], pixel_threshold: float) -> ImageRow:
    badges: list[tuple[str, Tone]] = [
        ("✕ rejected", "bad") if record.is_anomalous else ("✓ accepted", "good"),
        (f"score {number(record.score)}", "plain"),
        (f"p = {number(record.p_value)}", "plain"),
    ]
    badges += [
        (
            f"{one.name}: score {number(one.score)}, threshold {number(one.threshold)}",
            "bad" if one.is_above else "plain",
        )
        for one in record.classes
    ]
    if record.other_kind is not None:
        badges.append(("of another kind", "bad"))
    if record.label is not None:
        badges.append((f"known: {record.label}", "plain"))
    try:
        with within_memory(Path(record.path)):
            shown = image_panels(panels(record), record, pixel_threshold, _SIDE)
    except BlemishError as error:
        return ImageRow(record.path, f"Cannot be shown: {error}", badges)
    caption = regions_in_words(record.regions)
    if record.other_kind is not None:
        caption = f"Not of the kind of the good images: {record.other_kind}. {caption}"
    return ImageRow(record.path, caption, badges, shown)


def _decisions(order: Sequence[Inspection]) -> TableSection:
    columns = ["image", "decision", "score", "threshold", "p-value", "regions", "peak", "seconds"]
    labelled = any(r.label is not None for r in order)
    classes = any(r.classes for r in order)
    rows: list[list[str | float | None]] = []
    for r in order:
        peak = max((region.peak for region in r.regions), default=None)
        decision = "rejected" if r.is_anomalous else "accepted"
        row: list[str | float | None] = [r.path, decision, r.score, r.threshold, r.p_value]
        row += [len(r.regions), peak, r.seconds]
        if classes:
            row += (
                [r.classes[0].name, r.classes[0].score, r.classes[0].threshold] if r.classes else [None] * 3
            )
        rows.append(row + ([r.label] if labelled else []))
    note = "Every image, most suspicious first. Click a column to sort."
    if classes:
        columns += ["class", "its score", "its threshold"]
        note += (
            " The class is that which is furthest above its threshold; scores are in units of its usual one."
        )
    return TableSection("Decisions", columns + (["known label"] if labelled else []), rows, note)


def _model_settings(model: ModelSummary) -> dict[str, str]:
    return {"model": model.name, "recipe": model.recipe, "paper": model.paper, "anomaly map": model.measure}
