"""Summarise measured files: BD-rates with bootstrap intervals, mean rate-distortion curves, encode times."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from blemish._version import __version__
from blemish.jpeg.benchmark import bd_rate as bd
from blemish.jpeg.benchmark.baselines import BASELINES, PILLOW_420
from blemish.jpeg.benchmark.codecs import Codec, describe
from blemish.jpeg.benchmark.records import (
    COMPARED,
    BdRate,
    CodecEvaluation,
    CodecRecord,
    CodecResult,
    RatePoint,
)
from blemish.jpeg.quality import Measure


def summarise(
    records: Sequence[CodecRecord],
    encoders: Sequence[Codec],
    *,
    bpp_range: tuple[float, float] = bd.BPP_RANGE,
    missing: dict[str, str] | None = None,
    command: str = "",
    workers: int = 1,
) -> CodecEvaluation:
    """Compute BD-rates, mean curves and times from the records.

    Only images that every encoder could encode are counted, so that all are compared on the same ones.
    """
    by_pair: dict[tuple[str, str], list[CodecRecord]] = {}
    for record in records:
        by_pair.setdefault((record.encoder, record.image), []).append(record)
    names = [encoder.name for encoder in encoders]
    images = [
        image
        for image in dict.fromkeys(record.image for record in records)
        if all((name, image) in by_pair for name in names)
    ]
    measures = [measure for measure in COMPARED if any(measure in record.measures for record in records)]
    curves = {
        (name, image, measure): _curve(by_pair[name, image], measure)
        for name in names
        for image in images
        for measure in measures
    }
    rates = [
        rate_between(records, anchor.name, name, measure, bpp_range, images)
        for anchor in BASELINES
        for name in names
        for measure in measures
        if name != anchor.name
    ]
    seconds = {
        name: fmean(record.seconds for image in images for record in by_pair[name, image])
        for name in names
        if images
    }
    grid = np.geomspace(*bpp_range, 9)
    evaluated = [
        CodecResult(
            name=encoder.name,
            description=describe(encoder),
            points=_points([record for image in images for record in by_pair[encoder.name, image]]),
            milliseconds_per_image=1000 * seconds[encoder.name],
            times_pillow=seconds[encoder.name] / seconds[PILLOW_420.name],
            relative_rate={
                measure: _relative(
                    grid,
                    [
                        bd.relative_rates(
                            curves[PILLOW_420.name, image, measure],
                            curves[encoder.name, image, measure],
                            grid,
                        )
                        for image in images
                    ],
                )
                for measure in measures
            },
        )
        for encoder in encoders
        if images
    ]
    return CodecEvaluation(
        images=tuple(images),
        bpp_range=bpp_range,
        encoders=tuple(evaluated),
        rates=tuple(rate for rate in rates if rate is not None),
        missing=missing or {},
        command=command,
        versions=_versions(),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        workers=workers,
    )


def rate_between(
    records: Sequence[CodecRecord],
    anchor: str,
    encoder: str,
    measure: Measure,
    bpp_range: tuple[float, float] = bd.BPP_RANGE,
    images: Sequence[str] | None = None,
) -> BdRate | None:
    """BD-rate of one encoder against another; None where no image has one.

    Parameters
    ----------
    records: of both encoders, perhaps among others.
    anchor, encoder: names.
    images: those to compare on; by default all of ``records``.
    """
    both: dict[tuple[str, str], list[CodecRecord]] = {}
    for record in records:
        if record.encoder in (anchor, encoder):
            both.setdefault((record.encoder, record.image), []).append(record)
    chosen = dict.fromkeys(record.image for record in records) if images is None else images
    values = [
        bd.bd_rate(
            _curve(both.get((anchor, image), []), measure),
            _curve(both.get((encoder, image), []), measure),
            bpp_range,
        )
        for image in chosen
    ]
    interval = bd.mean_interval([value for value in values if value is not None])
    if interval is None:
        return None
    return BdRate(
        anchor=anchor,
        encoder=encoder,
        measure=measure,
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        images=interval.images,
    )


def _curve(records: Sequence[CodecRecord], measure: Measure) -> bd.RateCurve:
    known = [(record.bits_per_pixel, record.measures.get(measure)) for record in records]
    points = [(rate, _scale(measure, value)) for rate, value in known if value is not None]
    return bd.RateCurve.through([rate for rate, _ in points], [value for _, value in points])


def _scale(measure: Measure, value: float) -> float:
    """The measure on the scale of the comparison: growing with quality, MS-SSIM in dB, about linear in log rate."""
    if measure == "ms_ssim":
        return -10 * math.log10(1 - value) if value < 1 else math.inf
    return -value if measure == "lpips" else value


def _points(records: Sequence[CodecRecord]) -> tuple[RatePoint, ...]:
    points = []
    for quality in sorted({record.quality for record in records}):
        here = [record for record in records if record.quality == quality]
        points.append(
            RatePoint(
                quality=quality,
                bits_per_pixel=fmean(record.bits_per_pixel for record in here),
                measures={
                    name: _mean([record.measures[name] for record in here]) for name in here[0].measures
                },
            )
        )
    return tuple(points)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _relative(
    grid: NDArray[np.float64], ratios: Sequence[NDArray[np.float64]]
) -> tuple[tuple[float, float], ...]:
    """(rate, geometric mean of the ratios) where at least half of the images have one."""
    logs = np.log(np.array(ratios))  # (images, rates)
    return tuple(
        (float(rate), float(np.exp(np.nanmean(column))))
        for rate, column in zip(grid, logs.T, strict=True)
        if 2 * np.isfinite(column).sum() >= len(column)
    )


def _versions() -> dict[str, str]:
    found = {"blemish": __version__, "python": platform.python_version()}
    for package in ("numpy", "scipy", "pillow", "bjontegaard"):
        found[package] = metadata.version(package)
    return found
