"""Measures of the encoder's tunes on real files, for the search of their constants and tables."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.ssimulacra2_scores import Scorer
from blemish.data.datasets import find_images
from blemish.jpeg.benchmark.baselines import PILLOW_420
from blemish.jpeg.benchmark.bd_rate import RateCurve, bd_rate
from blemish.jpeg.distortion import Tune, ms_ssim_sensitivity, pyramid
from blemish.jpeg.file import to_bytes
from blemish.jpeg.learn_tables import crop
from blemish.jpeg.rate_distortion import CoefficientImage, assemble, prepare, select
from blemish.jpeg.source_image import read_source
from blemish.jpeg.tables import Ladder

Pixels = NDArray[np.uint8]
Figures = dict[str, float]

QUALITIES = (8, 22, 38, 54, 68, 80, 90)
RANGES = {"low": (0.2, 1.0), "high": (0.5, 2.0)}


class Photo:
    """A photograph and what is computed once for all of its files."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = np.ascontiguousarray(pixels)
        self.image: CoefficientImage = prepare(self.pixels, "4:2:0")
        self.image.pyramid  # noqa: B018 (computed once)
        self._scorer = Scorer(self.pixels)
        self._pyramids = [pyramid(plane) for plane in self._planes(self.pixels)]
        qualities = (3, 10, 20, 30, 45, 60, 75, 88, 94)
        self.anchor = self.curves([PILLOW_420.encode(self.pixels, quality) for quality in qualities])

    @staticmethod
    def _planes(pixels: Pixels) -> list[NDArray[np.float32]]:
        return [np.ascontiguousarray(pixels[..., c].astype(np.float32) - 128) for c in range(3)]

    def measure(self, data: bytes) -> tuple[float, Figures]:
        decoded = np.asarray(Image.open(io.BytesIO(data)))
        error = float(((decoded.astype(np.float32) - self.pixels) ** 2).mean())
        similar = fmean(
            1 - ms_ssim_sensitivity(x, pyramid(y)).loss
            for x, y in zip(self._pyramids, self._planes(decoded), strict=True)
        )
        return 8 * len(data) / (self.pixels.shape[0] * self.pixels.shape[1]), {
            "psnr": 10 * math.log10(255**2 / error),
            "ms_ssim": -10 * math.log10(1 - similar),
            "ssimulacra2": self._scorer.score(decoded),
        }

    def curves(self, files: Sequence[bytes]) -> dict[str, RateCurve]:
        measured = [self.measure(data) for data in files]
        rates = [rate for rate, _ in measured]
        names = measured[0][1]
        return {name: RateCurve.through(rates, [figures[name] for _, figures in measured]) for name in names}


def photographs(folder: Path, count: int, side: int, offset: int = 0) -> list[Photo]:
    items = find_images(folder)
    chosen = [items[i] for i in np.linspace(0, len(items) - 1, 2 * count).round().astype(int)][offset::2]
    return [Photo(crop(read_source(item.path, keep_metadata=False).pixels, side)) for item in chosen]


def figures(
    photos: Sequence[Photo], encode: Callable[[Photo, float], bytes], qualities: Sequence[float] = QUALITIES
) -> Figures:
    """Mean BD-rate by measure and range."""
    found: dict[str, list[float]] = {}
    for photo in photos:
        curves = photo.curves([encode(photo, quality) for quality in qualities])
        for name, curve in curves.items():
            for label, (low, high) in RANGES.items():
                rate = bd_rate(photo.anchor[name], curve, (low, high))
                if rate is not None:
                    found.setdefault(f"{name} {label}", []).append(rate)
    return {name: fmean(rates) for name, rates in found.items()}


def encoder(ladder: Ladder, tune: Tune) -> Callable[[Photo, float], bytes]:
    def encode(photo: Photo, quality: float) -> bytes:
        tables = ladder.at(quality, tune)
        return to_bytes(assemble(photo.image, select(photo.image, tables, tune), tables))

    return encode
