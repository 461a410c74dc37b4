"""Report on protected images: scores and decisions, bits and errors, images and anomaly maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from blemish.data.image import LoadedImage, read_image
from blemish.data.opening import file_bytes
from blemish.errors import BlemishError, within_memory
from blemish.jpeg.file import from_bytes
from blemish.jpeg.protection import MARGIN, ImageDecision, Protection, RateSplit, bits_map, decisions_changed
from blemish.jpeg.source_image import read_source
from blemish.observer import Observer
from blemish.report import (
    FigurePanel,
    Figures,
    Gallery,
    ImageRow,
    Prose,
    Scale,
    SettingsSection,
    TableSection,
    displayable,
    heat,
    write_page,
)
from blemish.report.colours import fit_map, size_within
from blemish.report.numbers import counted, number
from blemish.report.page import Tone

if TYPE_CHECKING:
    from blemish.inspection.detector import Detector

SHOWN = 24
"""Images in the gallery; each is inspected again for its map."""

_SIDE = 320  # longer side of an image in the page, in pixels


@dataclass(frozen=True)
class Protected:
    """A file that was encoded with a detector: its name, the image it was made of, where it lies.

    ``image`` is None where the file has taken its place.
    """

    name: str
    protection: Protection
    image: Path | None
    file: Path


def write_protection_page(
    path: Path, files: Sequence[Protected], detector: Detector, observer: Observer
) -> None:
    """Write the page; of the files whose scores compression changed most, the images are shown.

    Raises
    ------
    FileError
        The page cannot be written.
    """
    order = sorted(
        files, key=lambda file: (not _changed(file.protection), -_change(file.protection.after, file))
    )
    shown = order[:SHOWN]
    observer.stage(f"Showing {counted(len(shown), 'image')} in {path}")
    write_page(
        path,
        title=_headline(files),
        subtitle=f"{counted(len(files), 'image')} encoded with {detector.recipe.title} as the detector of regions of interest",
        sections=[
            _figures(files),
            Prose(_reading(files[0].protection, detector.pixel_threshold), title="How to read this page"),
            _scores(order),
            _bits(order),
            Gallery(
                "Images and maps",
                _rows(shown, detector, observer),
                f"{counted(len(shown), 'image')}, first those whose score changed most.",
                Scale(detector.pixel_threshold, f"{detector.measure_name}; bits have a scale of their own"),
                _SIDE,
            ),
            SettingsSection(
                "Settings",
                {
                    "detector": detector.recipe.name,
                    "threshold": files[0].protection.threshold,
                    "pixel threshold": detector.pixel_threshold,
                    "strength": files[0].protection.strength,
                    "margin (pixels)": MARGIN,
                    "weights_sha256": detector.file.weights_sha256,
                },
            ),
        ],
        footer="Written by Blemish. This file is complete: it opens without a network.",
    )


def _headline(files: Sequence[Protected]) -> str:
    changed, _ = decisions_changed([file.protection for file in files])
    if not changed:
        return "Compression changed no decision"
    return f"Compression changed {counted(changed, 'decision')}"


def _changed(protection: Protection) -> bool:
    return decisions_changed([protection])[0] > 0


def _change(spent: RateSplit, file: Protected) -> float:
    return abs(spent.verdict.score - file.protection.before.score)


def _figures(files: Sequence[Protected]) -> Figures:
    changed, plain = decisions_changed([file.protection for file in files])

    def mean(value: Callable[[Protected], float]) -> float:
        return float(np.mean([value(file) for file in files]))

    def share(spent: RateSplit) -> float:
        return 100 * spent.bits_inside / max(spent.bits_inside + spent.bits_outside, 1)

    scores = mean(lambda file: _change(file.protection.after, file))
    plain_scores = mean(lambda file: _change(file.protection.plain, file))
    inside = mean(lambda file: share(file.protection.after))
    plain_inside = mean(lambda file: share(file.protection.plain))
    return Figures(
        [
            ("decisions changed", changed, f"without protection {plain}, at the same size"),
            ("mean change of the image score", scores, f"without protection {number(plain_scores)}"),
            ("threshold", files[0].protection.threshold, "a higher score is rejected"),
            ("bits inside", f"{inside:.1f} %", f"without protection {plain_inside:.1f} %"),
            (
                "blocks inside",
                f"{100 * mean(lambda file: file.protection.inside):.1f} %",
                "regions of interest, with a margin",
            ),
        ]
    )


def _reading(protection: Protection, pixel_threshold: float) -> str:
    strength = number(protection.strength)
    return (
        f"Errors count {strength} times where the anomaly map reaches the pixel threshold, {number(pixel_threshold)}, "
        f"which good images seldom reach, and 1/{strength} where it is 0; between the two they follow the map, with a "
        f"margin of {MARGIN} pixels. Inside are the blocks where errors count more than without protection.\n\n"
        "Scores are those of the files, decoded and inspected like any image. Beside each stands the file that "
        "the same encoder makes without protection at the same size. Bits are those of the entropy-coded data of a "
        "baseline file, without headers; the file itself may be progressive and smaller."
    )


def _decision(verdict: ImageDecision) -> str:
    return "rejected" if verdict.is_anomalous else "accepted"


def _scores(files: Sequence[Protected]) -> TableSection:
    rows: list[list[str | float | None]] = []
    for file in files:
        found = file.protection
        row: list[str | float | None] = [file.name]
        for verdict in (found.before, found.after.verdict, found.plain.verdict):
            row += [verdict.score, _decision(verdict)]
        rows.append(row)
    columns = [
        "file",
        "score before",
        "decision",
        "after",
        "decision after",
        "unprotected",
        "decision unprotected",
    ]
    return TableSection(
        "Scores and decisions", columns, rows, "Before compression, after it, and without protection."
    )


def _bits(files: Sequence[Protected]) -> TableSection:
    columns = [
        "file",
        "",
        "bits per pixel",
        "bits inside",
        "bits outside",
        "PSNR inside (dB)",
        "PSNR outside (dB)",
    ]
    rows: list[list[str | float | None]] = []
    for file in files:
        for kind, spent in (("protected", file.protection.after), ("unprotected", file.protection.plain)):
            bits = (round(spent.bits_inside), round(spent.bits_outside))
            rows.append([file.name, kind, spent.bits_per_pixel, *bits, spent.psnr_inside, spent.psnr_outside])
    return TableSection("Bits and errors", columns, rows)


def _rows(files: Sequence[Protected], detector: Detector, observer: Observer) -> Iterator[ImageRow]:
    for count, file in enumerate(files, start=1):
        yield _row(file, detector)
        observer.count(count, len(files))


def _row(file: Protected, detector: Detector) -> ImageRow:
    found = file.protection
    after = found.after.verdict
    badges: list[tuple[str, Tone]] = [
        (f"before: {_decision(found.before)}, {number(found.before.score)}", "plain"),
        (f"after: {_decision(after)}, {number(after.score)}", "bad" if _changed(found) else "good"),
        (f"unprotected: {_decision(found.plain.verdict)}, {number(found.plain.verdict.score)}", "plain"),
    ]
    try:
        with within_memory(file.file):
            panels = _panels(file, detector)
    except BlemishError as error:  # what was there when it was encoded may have gone
        return ImageRow(file.name, f"Cannot be shown: {error}", badges)
    caption = (
        ""
        if file.image is not None
        else "The file has replaced the image; the anomaly map is that of the file."
    )
    return ImageRow(file.name, caption, badges, panels)


def _panels(file: Protected, detector: Detector) -> list[FigurePanel]:
    decoded = read_image(file.file)
    image = decoded if file.image is None else read_image(file.image)
    data = file_bytes(file.file)
    bits = bits_map(from_bytes(data, name=file.file), read_source(file.file, data=data).orientation) / 64
    middle = 2 * float(bits.mean())
    panels = [] if file.image is None else [_photo("image", image)]
    return [
        *panels,
        _photo("file", decoded),
        FigurePanel("heat map", heat(_small(detector.measure(image).map), detector.pixel_threshold), "map"),
        FigurePanel(f"bits per pixel: bright from {number(middle, 2)}", heat(_small(bits), middle), "map"),
    ]


def _photo(label: str, image: LoadedImage) -> FigurePanel:
    # Kept without loss: a page that compressed it again would show its own artefacts.
    return FigurePanel(label, displayable(image.pixels), "map")


def _small(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return fit_map(values, size_within(values.shape, _SIDE)) if max(values.shape) > _SIDE else values
