"""Encoders side by side on real files: bytes and quality over a ladder, Bjøntegaard rates, encode times.

Every number is of one file: its bytes give the rate, and what Pillow decodes from it the quality.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from blemish._version import __version__
from blemish.data.datasets import Item, find_images
from blemish.errors import BlemishError, FileError, ImageError, UsageError
from blemish.jpeg import quality as measuring
from blemish.jpeg.benchmark import bd_rate as bd
from blemish.jpeg.benchmark.baselines import ANCHORS, PILLOW_420, Codec, Missing
from blemish.jpeg.benchmark.codecs import attempt, decoded, describe, find_codecs
from blemish.jpeg.quality import Measure
from blemish.jpeg.source_image import read_source, within_memory
from blemish.observer import Observer
from blemish.report.numbers import counted
from blemish.storage.atomic import write_json, write_text
from blemish.storage.run_folder import RunFolder
from blemish.workers import each

Pixels = NDArray[np.uint8]

LADDER = (4, 7, 11, 16, 23, 32, 42, 53, 64, 75, 85, 92)
"""Qualities whose files lie around 0.2 to 1 bits per pixel on photographs, with neighbours on both sides."""

RECORDS_FILE, EVALUATION_FILE = "records.jsonl", "evaluation.json"
TABLE_FILE, REPORT_FILE = "evaluation.md", "report.html"

COMPARED: dict[Measure, str] = {
    "psnr_rgb": "PSNR-RGB",
    "psnr_y": "PSNR-Y",
    "ms_ssim": "MS-SSIM",
    "ssimulacra2": "SSIMULACRA2",
    "lpips": "LPIPS",
}
"""Measures that encoders are compared by, and their names in tables."""

CONVENTIONS = (
    "Rate: all bytes of the file. Decoder: Pillow (libjpeg-turbo). PSNR-RGB: of the mean squared error over R, G "
    "and B; PSNR-Y: of Y = 0.299 R + 0.587 G + 0.114 B, not rounded. MS-SSIM: mean of that of R, G and B, window "
    "11, σ 1.5, five scales, windows inside the image (as pytorch-msssim); its BD-rate is over "
    "-10 log10(1 - MS-SSIM). BD-rate: per image, pchip over "
    "log rate, both curves limited to the rates named, then the mean over images with its 95 % bootstrap "
    "interval; negative is better."
)


class CodecRecord(BaseModel):
    """One file: a line of ``records.jsonl``.

    It is used again while the image's bytes, the encoder's description and the quality are the same and the
    measures asked for are among its own.
    """

    model_config = ConfigDict(frozen=True)

    image: str
    image_sha256: str
    encoder: str
    description: str
    quality: int
    width: int
    height: int
    bytes: int
    seconds: float
    measures: dict[Measure, float | None]

    @property
    def bits_per_pixel(self) -> float:
        """Of all the file's bytes."""
        return 8 * self.bytes / (self.width * self.height)


class BdRate(BaseModel):
    """A mean BD-rate in percent with its 95 % interval, over the images that have one."""

    model_config = ConfigDict(frozen=True)

    anchor: str
    encoder: str
    measure: Measure
    mean: float
    low: float
    high: float
    images: int

    def __str__(self) -> str:
        return f"{self.mean:+.1f} % [{self.low:+.1f}, {self.high:+.1f}]"


class Point(BaseModel):
    """Means over all images at one quality; a measure is None where some image has none."""

    model_config = ConfigDict(frozen=True)

    quality: int
    bits_per_pixel: float
    measures: dict[Measure, float | None]


class Evaluated(BaseModel):
    """One encoder: its mean curve and its time.

    ``relative_rate`` has, by measure, points (rate of Pillow 4:2:0, this encoder's bits over Pillow's at equal
    quality), the geometric mean over images.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    description: str
    points: tuple[Point, ...]
    milliseconds_per_image: float
    times_pillow: float | None
    relative_rate: dict[Measure, tuple[tuple[float, float], ...]]


class CodecEvaluation(BaseModel):
    """``evaluation.json``."""

    model_config = ConfigDict(frozen=True)

    images: tuple[str, ...]
    bpp_range: tuple[float, float]
    encoders: tuple[Evaluated, ...]
    rates: tuple[BdRate, ...]
    missing: dict[str, str]
    """What could not take part, and the mend."""
    command: str
    versions: dict[str, str]
    machine: str
    workers: int

    @property
    def measures(self) -> list[Measure]:
        """The measures that any BD-rate is of."""
        return [measure for measure in COMPARED if any(rate.measure == measure for rate in self.rates)]

    def rate(self, anchor: str, encoder: str, measure: Measure) -> BdRate | None:
        """The BD-rate of ``encoder`` against ``anchor``; None where no image has one."""
        wanted = (anchor, encoder, measure)
        return next((r for r in self.rates if (r.anchor, r.encoder, r.measure) == wanted), None)

    def rows(self, anchor: str) -> list[list[str]]:
        """One row an encoder: its BD-rates against ``anchor`` by measure, and its time."""
        return [
            [
                encoder.name,
                *(str(self.rate(anchor, encoder.name, measure) or "–") for measure in self.measures),
                f"{encoder.milliseconds_per_image:.0f}",
                "–" if encoder.times_pillow is None else f"{encoder.times_pillow:.1f}",
            ]
            for encoder in self.encoders
            if encoder.name != anchor
        ]

    def columns(self) -> list[str]:
        """Of ``rows``."""
        return [
            "encoder",
            *(COMPARED[measure] for measure in self.measures),
            "ms an image",
            "× Pillow 4:2:0",
        ]

    def in_words(self) -> str:
        """Both tables as plain text."""
        parts = [f"{counted(len(self.images), 'image')}, {self.rates_in_words()}"]
        for anchor in ANCHORS:
            cells = [self.columns(), *self.rows(anchor.name)]
            widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
            lines = [
                "  ".join(
                    cell.ljust(w) if place == 0 else cell.rjust(w)
                    for place, (cell, w) in enumerate(zip(row, widths, strict=True))
                )
                for row in cells
            ]
            parts.append("\n".join([f"BD-rate against {anchor.name}", *lines]))
        parts += [f"Without {name}: {mend}." for name, mend in self.missing.items()]
        return "\n\n".join(parts)

    def rates_in_words(self) -> str:
        """The range of rates that is compared."""
        return f"{self.bpp_range[0]:g} to {self.bpp_range[1]:g} bits per pixel"

    def markdown(self) -> str:
        """The tables, their conventions and what made them."""
        lines = ["# JPEG encoders compared", ""]
        lines += [f"{counted(len(self.images), 'image')}, {self.rates_in_words()}. {CONVENTIONS}", ""]
        for anchor in ANCHORS:
            lines += [f"## BD-rate against {anchor.name}", ""]
            for row in (self.columns(), ["---"] * len(self.columns()), *self.rows(anchor.name)):
                lines.append(f"| {' | '.join(row)} |")
            lines.append("")
        lines += ["## Encoders", ""]
        lines += [f"- {encoder.name}: {encoder.description}" for encoder in self.encoders]
        lines += [f"- without {name}: {mend}" for name, mend in self.missing.items()]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        made = f"Made by `{self.command}` on {self.machine}" if self.command else f"Made on {self.machine}"
        lines += ["", f"{made}, {counted(self.workers, 'process')}; {versions}.", ""]
        return "\n".join(lines)


def evaluate(
    images: str | Path,
    out: str | Path,
    *,
    encoders: Sequence[Codec] | None = None,
    qualities: Sequence[int] = LADDER,
    bpp_range: tuple[float, float] = bd.BPP_RANGE,
    ssimulacra2: bool = True,
    lpips: bool = True,
    workers: int = 1,
    crops: int = 3,
    overwrite: bool = False,
    command: str = "",
    observer: Observer | None = None,
) -> CodecEvaluation:
    """Encode every image with every encoder at every quality, and compare; files that are done stay done.

    ``out`` gets ``records.jsonl`` (a line a file, from which a later run goes on), ``evaluation.json``,
    ``evaluation.md`` and ``report.html``. Images are taken upright and without metadata. The first encode of
    an encoder in a process, of a corner of the image, is not counted in its time.

    Parameters
    ----------
    images: an image, a folder of images, or a CSV list.
    encoders: by default all of ``find_encoders()``; both Pillow anchors are added where they are missing.
    qualities: whole numbers of 1 to 100; an encoder that has a ``ladder`` of its own is evaluated at that.
    bpp_range: bits per pixel between which BD-rates are taken.
    ssimulacra2, lpips: whether to take these measures, which are slow, where they can be taken.
    workers: processes. Times are of each encoder as it is on a machine with that much else to do.
    crops: images of which details are shown side by side, all encoders at about one rate.
    overwrite: measure all anew.

    Raises
    ------
    UsageError, FileError
        In one line.
    Stopped
        When the observer asked to stop; finished files stay in ``records.jsonl``.
    """
    observer = observer or Observer()
    _check_qualities(qualities)
    bd.RateCurve.through([], []).within(bpp_range)  # refuses a wrong range before any work
    if encoders is None:
        encoders, missing = find_codecs()
    else:
        missing = []
    encoders = list({encoder.name: encoder for encoder in (*ANCHORS, *encoders)}.values())
    measures, without = measuring.measures(ssimulacra2=ssimulacra2, lpips=lpips)
    items = find_images(images)
    out = Path(out)
    run = RunFolder(out)
    if overwrite:
        run.remove(RECORDS_FILE)
    journal = run.records(RECORDS_FILE, CodecRecord)
    tasks = _tasks(items, encoders, sorted(set(qualities)), measures, observer)
    wanted = {task.key(quality) for task in tasks for quality in task.qualities}
    known = {_key(record): record for record in journal.records if record.measures.keys() >= set(measures)}
    open_tasks = [
        task
        for task in (
            replace(task, qualities=tuple(q for q in task.qualities if task.key(q) not in known))
            for task in tasks
        )
        if task.qualities
    ]
    observer.stage(
        f"Evaluating {counted(len(encoders), 'encoder')} on {counted(len(items), 'image')}: "
        f"{counted(sum(len(task.qualities) for task in open_tasks), 'file')} to measure, "
        f"{len(wanted & known.keys())} already done"
    )
    told: set[str] = set()
    for result in each(run_task, open_tasks, workers=workers, observer=observer):
        if isinstance(result, BlemishError):
            if str(result) not in told:  # a damaged image fails with every encoder
                observer.problem(result)
                told.add(str(result))
            continue
        for record in result:
            journal.append(record)
            known[_key(record)] = record
    records = [known[key] for key in sorted(wanted & known.keys())]
    if not records:
        raise FileError(Path(images), "holds no image that could be encoded", "see the lines above")
    working = {record.encoder for record in records}
    missing += [Missing(one.name, "it failed on every image") for one in encoders if one.name not in working]
    encoders = [encoder for encoder in encoders if encoder.name in working]
    evaluation = summarise(
        records,
        encoders,
        bpp_range=bpp_range,
        missing={one.name: one.mend for one in (*missing, *without)},
        command=command,
        workers=workers,
    )
    write_json(out / EVALUATION_FILE, evaluation.model_dump(mode="json"))
    write_text(out / TABLE_FILE, evaluation.markdown())

    from blemish.jpeg.benchmark.page import write_evaluation_page

    shown = {record.image for record in records}
    write_evaluation_page(
        out / REPORT_FILE,
        evaluation,
        [item for item in items if item.name in shown],
        encoders,
        crops=crops,
        workers=workers,
        observer=observer,
    )
    return evaluation


@dataclass(frozen=True)
class Task:
    """One image for one encoder."""

    item: Item
    sha256: str
    encoder: Codec
    qualities: tuple[int, ...]
    measures: tuple[Measure, ...]

    def key(self, quality: int) -> tuple[str, str, str, str, int]:
        """What a record must agree in to be this task's; see :class:`CodecRecord`."""
        return (self.item.name, self.sha256, self.encoder.name, describe(self.encoder), quality)


def _key(record: CodecRecord) -> tuple[str, str, str, str, int]:
    return (record.image, record.image_sha256, record.encoder, record.description, record.quality)


def _tasks(
    items: Sequence[Item],
    encoders: Sequence[Codec],
    qualities: Sequence[int],
    measures: Sequence[Measure],
    observer: Observer,
) -> list[Task]:
    tasks = []
    for item in items:
        try:
            sha256 = hashlib.sha256(item.path.read_bytes()).hexdigest()
        except OSError as error:
            observer.problem(
                ImageError(item.path, f"cannot be read ({error.strerror})", "check its permissions")
            )
            continue
        tasks += [
            Task(item, sha256, encoder, tuple(getattr(encoder, "ladder", qualities)), tuple(measures))
            for encoder in encoders
        ]
    return tasks


def run_task(task: Task) -> list[CodecRecord] | BlemishError:
    """Encode, decode and measure; runs in a worker process."""
    try:
        with within_memory(task.item.path):
            pixels = read_source(task.item.path, keep_metadata=False).pixels
            _warm_up(task.encoder, pixels)
            return [_record(task, pixels, quality) for quality in task.qualities]
    except BlemishError as error:
        return error


_warm: set[str] = set()


def _warm_up(encoder: Codec, pixels: Pixels) -> None:
    """Let an encoder load and compile what it needs, once a process."""
    if encoder.name not in _warm:
        attempt(encoder, np.ascontiguousarray(pixels[:64, :64]), 50)
        _warm.add(encoder.name)


def _record(task: Task, pixels: Pixels, quality: int) -> CodecRecord:
    begun = time.perf_counter()
    data = attempt(task.encoder, pixels, quality)
    seconds = time.perf_counter() - begun
    found = decoded(task.encoder, data)
    if found.shape != pixels.shape:
        raise ImageError(
            task.item.path, f"came back from {task.encoder.name} as {found.shape}", "leave the encoder out"
        )
    return CodecRecord(
        image=task.item.name,
        image_sha256=task.sha256,
        encoder=task.encoder.name,
        description=describe(task.encoder),
        quality=quality,
        width=pixels.shape[1],
        height=pixels.shape[0],
        bytes=len(data),
        seconds=seconds,
        measures=measuring.measure(pixels, found, task.measures),
    )


def summarise(
    records: Sequence[CodecRecord],
    encoders: Sequence[Codec],
    *,
    bpp_range: tuple[float, float] = bd.BPP_RANGE,
    missing: dict[str, str] | None = None,
    command: str = "",
    workers: int = 1,
) -> CodecEvaluation:
    """BD-rates, mean curves and times of what was measured.

    Of each encoder only images that all encoders could encode are counted, so that all are compared on the
    same ones.
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
        for anchor in ANCHORS
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
        Evaluated(
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
    """The BD-rate of one encoder against another by their files; None where no image has one.

    Parameters
    ----------
    records: of these two and any others.
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
    """The measure as rates are compared by it: growing with quality, MS-SSIM in dB, about even over log rate."""
    if measure == "ms_ssim":
        return -10 * math.log10(1 - value) if value < 1 else math.inf
    return -value if measure == "lpips" else value


def _points(records: Sequence[CodecRecord]) -> tuple[Point, ...]:
    points = []
    for quality in sorted({record.quality for record in records}):
        here = [record for record in records if record.quality == quality]
        points.append(
            Point(
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


def _check_qualities(qualities: Sequence[int]) -> None:
    wrong = [quality for quality in qualities if not 1 <= quality <= 100]
    if wrong:
        raise UsageError(f"--qualities: {wrong[0]} is not between 1 and 100")
    if len(set(qualities)) < 2:
        raise UsageError("--qualities: give at least two, or there is no curve")


def _versions() -> dict[str, str]:
    found = {"blemish": __version__, "python": platform.python_version()}
    for package in ("numpy", "scipy", "pillow", "bjontegaard"):
        found[package] = metadata.version(package)
    return found
