"""Report on a comparison of codecs: tables, rate-distortion curves, details side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blemish.data.items import Item
from blemish.errors import BlemishError, ImageError
from blemish.jpeg import quality as measuring
from blemish.jpeg.benchmark.baselines import BASELINES, PILLOW_420
from blemish.jpeg.benchmark.codecs import Codec, decode_checked, encode_checked
from blemish.jpeg.benchmark.records import COMPARED, CONVENTIONS, CodecEvaluation, CodecResult, RatePoint
from blemish.jpeg.entropy import bits_per_block
from blemish.jpeg.file import from_bytes
from blemish.jpeg.quality import Measure
from blemish.jpeg.source_image import read_source
from blemish.observer import Observer
from blemish.report import (
    CurveChart,
    FigurePanel,
    Figures,
    Gallery,
    ImageRow,
    Line,
    Prose,
    Section,
    SettingsSection,
    TableSection,
)
from blemish.report import write_page as write_html
from blemish.report.colours import heat
from blemish.report.numbers import counted
from blemish.workers import each

CROP = 160
BITS_SIDE = 384
"""Pixels of the longer side of maps of bits."""
LINES_A_CHART = 5  # as many as the charts have colours

_RELATIVE = (
    "For each rate of Pillow 4:2:0, how many bits an encoder needs for what Pillow reaches there: per image, then "
    "the geometric mean over images. The papers' baseline, far above, is in the table alone."
)
_DISTORTION = "Means over all images at each quality. Lower is better, as is further to the left."


def write_evaluation_page(
    path: Path,
    evaluation: CodecEvaluation,
    items: Sequence[Item],
    encoders: Sequence[Codec],
    *,
    crops: int,
    workers: int,
    observer: Observer,
) -> None:
    """Write the page; ``crops`` of ``items``, evenly spaced, are encoded again for their details.

    Raises
    ------
    FileError
        When the page cannot be written.
    Stopped
        When the observer asked to stop while details were made.
    """
    low, high = evaluation.bpp_range
    target = math.sqrt(low * high)
    sections: list[Section] = [
        Figures(_headlines(evaluation)),
        Prose(f"{CONVENTIONS}\n\n{_reading(evaluation)}"),
    ]
    sections += [
        TableSection(f"BD-rate against {anchor.name}", evaluation.columns(), evaluation.rows(anchor.name))
        for anchor in BASELINES
    ]
    relative = _relative_charts(evaluation)
    if relative:
        sections += [Prose(_RELATIVE, title="Bits at equal quality"), *relative]
    sections += [Prose(_DISTORTION, title="Rate and distortion"), *_distortion_charts(evaluation)]
    shown = _detail_rows(items, encoders, target, crops, workers, observer)
    if shown:
        note = (
            f"The busiest {CROP} × {CROP} pixels, each encoder at its quality nearest to {target:.2f} bits per pixel of "
            "the whole image, so at about equal bytes. Below, any two of them large: side by side, or in turn in one "
            "place (Flicker, or a click on the image)."
        )
        sections.append(
            Gallery(
                "Details at equal bytes", [row.details for row in shown], note, max_side=CROP, flicker=True
            )
        )
        note = (
            "Bits of each 8 × 8 block of luma, with its share of chroma's, in the same files: of their entropy-coded data "
            "under optimal Huffman tables, without headers. All maps of an image have one scale; the frame is the detail "
            "above."
        )
        sections.append(Gallery("Where the bits go", [row.bits for row in shown], note, max_side=BITS_SIDE))
    sections.append(_points_table(evaluation))
    sections.append(
        SettingsSection(
            "Settings",
            {
                **{encoder.name: encoder.description for encoder in evaluation.encoders},
                **{f"without {name}": remedy for name, remedy in evaluation.missing.items()},
                "command": evaluation.command or None,
                "machine": evaluation.machine,
                "worker processes": evaluation.workers,
                **evaluation.versions,
            },
        )
    )
    write_html(
        path,
        title="JPEG encoders compared",
        subtitle=f"{counted(len(evaluation.images), 'image')}, {evaluation.rates_in_words()}",
        sections=sections,
        footer="Written by Blemish. This file is complete: it opens without a network.",
    )


def _headlines(evaluation: CodecEvaluation) -> list[tuple[str, str | float, str]]:
    """The best encoder by each measure against Pillow 4:2:0."""
    tiles: list[tuple[str, str | float, str]] = []
    for measure in evaluation.measures:
        rates = [r for r in evaluation.rates if r.anchor == PILLOW_420.name and r.measure == measure]
        best = min(rates, key=lambda rate: rate.mean, default=None)
        if best is not None:
            tiles.append((f"fewest bits at equal {COMPARED[measure]}", f"{best.mean:+.1f} %", best.encoder))
    return tiles


def _reading(evaluation: CodecEvaluation) -> str:
    without = [f"Without {name}: {remedy}." for name, remedy in evaluation.missing.items()]
    uneven = [
        f"{rate.encoder} reaches {COMPARED[rate.measure]} of {rate.anchor} on {rate.images} of "
        f"{counted(len(evaluation.images), 'image')} only."
        for rate in evaluation.rates
        if rate.images < len(evaluation.images)
    ]
    return " ".join(
        [f"Times were taken with {counted(evaluation.workers, 'process')} at work.", *without, *uneven]
    )


def _relative_charts(evaluation: CodecEvaluation) -> list[Section]:
    charts: list[Section] = []
    for measure in evaluation.measures:
        lines = [
            Line(encoder.name, [(rate, 100 * (ratio - 1)) for rate, ratio in encoder.relative_rate[measure]])
            for encoder in evaluation.encoders
            if encoder.name not in {anchor.name for anchor in BASELINES}
        ]
        charts += _charts(
            f"Bits at equal {COMPARED[measure]}",
            "bits per pixel of Pillow 4:2:0",
            "% more than Pillow 4:2:0",
            lines,
        )
    return charts


def _distortion_charts(evaluation: CodecEvaluation) -> list[Section]:
    """Rate-distortion curves: errors, whose axis begins at 0, within twice the compared rates."""
    charts: list[Section] = []
    taken: set[Measure] = {
        name for encoder in evaluation.encoders for point in encoder.points for name in point.measures
    }
    for measure, (title, label, error) in _ERRORS.items():
        if measure not in taken:
            continue
        lines = [
            Line(encoder.name, _errors(encoder, measure, error, evaluation.bpp_range))
            for encoder in evaluation.encoders
        ]
        charts += _charts(title, "bits per pixel", label, lines)
    return charts


_ERRORS: dict[Measure, tuple[str, str, Callable[[float], float]]] = {
    "mse": ("Rate and error", "root mean square error (levels)", math.sqrt),
    "ms_ssim": ("Rate and MS-SSIM", "1 − MS-SSIM (%)", lambda value: 100 * (1 - value)),
    "ssimulacra2": ("Rate and SSIMULACRA2", "100 − SSIMULACRA2", lambda value: 100 - value),
    "lpips": ("Rate and LPIPS", "LPIPS × 100", lambda value: 100 * value),
}


def _errors(
    encoder: CodecResult, measure: Measure, error: Callable[[float], float], bpp_range: tuple[float, float]
) -> list[tuple[float, float]]:
    low, high = bpp_range
    values = [(point.bits_per_pixel, point.measures.get(measure)) for point in encoder.points]
    return [(r, error(value)) for r, value in values if value is not None and low / 2 <= r <= 2 * high]


def _charts(title: str, x_label: str, y_label: str, lines: list[Line]) -> list[Section]:
    """Charts, as many as needed to give each line of a chart its own colour."""
    count = -(-len(lines) // LINES_A_CHART)
    return [
        CurveChart(
            title if count == 1 else f"{title} ({index + 1} of {count})",
            x_label,
            y_label,
            lines[index::count],
        )
        for index in range(count)
    ]


def _points_table(evaluation: CodecEvaluation) -> TableSection:
    taken = list(dict.fromkeys(m for e in evaluation.encoders for p in e.points for m in p.measures))
    names = {"mse": "MSE", **COMPARED}

    def row(encoder: CodecResult, point: RatePoint) -> list[str | float | None]:
        values = [point.measures.get(measure) for measure in taken]
        return [encoder.name, point.quality, point.bits_per_pixel, *values]

    return TableSection(
        "Means at each quality",
        ["encoder", "quality", "bits per pixel", *(names[measure] for measure in taken)],
        [row(encoder, point) for encoder in evaluation.encoders for point in encoder.points],
        "Means over all images.",
    )


@dataclass(frozen=True)
class CropTask:
    """One image, of which a detail is shown for every encoder at about ``bpp`` bits per pixel."""

    item: Item
    encoders: tuple[Codec, ...]
    bpp: float


class DetailRows(NamedTuple):
    """What is shown of one image: details of all files, and maps of their bits."""

    details: ImageRow
    bits: ImageRow


def _detail_rows(
    items: Sequence[Item],
    encoders: Sequence[Codec],
    target: float,
    crops: int,
    workers: int,
    observer: Observer,
) -> list[DetailRows]:
    chosen = [items[i] for i in np.linspace(0, len(items) - 1, min(crops, len(items))).round().astype(int)]
    tasks = [CropTask(item, tuple(encoders), target) for item in chosen]
    if tasks:
        observer.stage(f"Details of {counted(len(tasks), 'image')}")
    # Images that cannot be read or encoded were reported when they were measured.
    found = [row for row in each(detail_rows, tasks, workers=workers, observer=observer) if row is not None]
    order = {item.name: place for place, item in enumerate(chosen)}
    return sorted(found, key=lambda row: order[row.details.name])


def detail_rows(task: CropTask) -> DetailRows | None:
    """Details of the original and of every encoder's file, and where its bits are; runs in a worker process."""
    try:
        pixels = read_source(task.item.path, keep_metadata=False).pixels
        window = busiest(pixels, CROP)
        panels = [FigurePanel("original", pixels[window], "map")]
        spent: list[tuple[str, NDArray[np.float64]]] = []
        for encoder in task.encoders:
            quality, data = nearest_rate(encoder, pixels, task.bpp)
            found = decode_checked(encoder, data)
            psnr = measuring.psnr(measuring.mse(pixels, found))
            rate = 8 * len(data) / (pixels.shape[0] * pixels.shape[1])
            label = f"{encoder.name} {quality}: {rate:.2f} bpp" + ("" if psnr is None else f", {psnr:.1f} dB")
            # Kept without loss: a page that compressed these again would show its own artefacts.
            panels.append(FigurePanel(label, found[window], "map"))
            bits = _bits_of(data)
            if bits is not None:
                spent.append((encoder.name, bits))
    except BlemishError:
        return None
    name = task.item.name
    return DetailRows(
        ImageRow(name, panels=panels), ImageRow(name, panels=_bits_panels(pixels, window, spent))
    )


def _bits_of(data: bytes) -> NDArray[np.float64] | None:
    """Bits by luma block; None of a file whose sampling is not read here."""
    try:
        return bits_per_block(from_bytes(data))
    except ImageError:
        return None


def _bits_panels(
    pixels: NDArray[np.uint8],
    window: tuple[slice, slice],
    spent: Sequence[tuple[str, NDArray[np.float64]]],
) -> list[FigurePanel]:
    """The image, and a map of bits for each encoder, all with the detail framed."""
    if not spent:
        return []
    height, width = pixels.shape[:2]
    middle = 2 * float(np.mean([bits.mean() for _, bits in spent]))
    rgb = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
    panels = [FigurePanel("image", _framed(rgb, window), "map")]
    for name, bits in spent:
        map_ = heat(bits.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.float32), middle)
        rows, columns = (slice(side.start // 8, -(-side.stop // 8)) for side in window)
        share = bits[rows, columns].sum() / max(bits.sum(), 1)
        panels.append(
            FigurePanel(f"{name}: {share:.0%} of the bits in the frame", _framed(map_, window), "map")
        )
    return panels


def _framed(rgb: NDArray[np.uint8], window: tuple[slice, slice]) -> NDArray[np.uint8]:
    framed = rgb.copy()
    rows, columns = window
    line = max(1, max(rgb.shape[:2]) // BITS_SIDE) * 2
    for edge in (
        (slice(rows.start, rows.start + line), columns),
        (slice(max(rows.stop - line, 0), rows.stop), columns),
        (rows, slice(columns.start, columns.start + line)),
        (rows, slice(max(columns.stop - line, 0), columns.stop)),
    ):
        framed[edge] = (255, 255, 255)
    return framed


def nearest_rate(encoder: Codec, pixels: NDArray[np.uint8], bpp: float) -> tuple[int, bytes]:
    """The quality of 1 to 100 whose file comes nearest to ``bpp`` bits per pixel, and that file, by bisection."""
    size = bpp * pixels.shape[0] * pixels.shape[1] / 8
    low, high = 1, 100
    tried: dict[int, bytes] = {}
    while low <= high:
        middle = (low + high) // 2
        tried[middle] = encode_checked(encoder, pixels, middle)
        if len(tried[middle]) < size:
            low = middle + 1
        else:
            high = middle - 1
    return min(tried.items(), key=lambda pair: abs(len(pair[1]) - size))


def busiest(pixels: NDArray[np.uint8], side: int) -> tuple[slice, slice]:
    """The window of at most ``side`` × ``side`` pixels with the most change between neighbours.

    Examples
    --------
    >>> image = np.zeros((40, 40), np.uint8)
    >>> image[30:35, 4:9] = 255
    >>> busiest(image, 20)
    (slice(15, 35, None), slice(0, 20, None))
    """
    grey = pixels.mean(axis=2) if pixels.ndim == 3 else pixels.astype(np.float64)
    height, width = grey.shape
    change = np.zeros((height + 1, width + 1))  # summed area
    change[1:height, 1:width] = np.abs(np.diff(grey, axis=0))[:, 1:] + np.abs(np.diff(grey, axis=1))[1:]
    total = change.cumsum(0).cumsum(1)
    tops = range(0, max(height - side, 0) + 1, max(side // 4, 1))
    lefts = range(0, max(width - side, 0) + 1, max(side // 4, 1))

    def inside(corner: tuple[int, int]) -> float:
        top, left = corner
        bottom, right = min(top + side, height), min(left + side, width)
        return float(total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left])

    top, left = max(((top, left) for top in tops for left in lefts), key=inside)
    return slice(top, min(top + side, height)), slice(left, min(left + side, width))
