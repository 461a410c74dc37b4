"""Direct search of the encoder's constants and tables: files are encoded, decoded and measured, nothing is modelled.

    python -m benchmarks.jpeg_tunes ssimulacra2 PHOTOS --tables LADDER --out benchmarks/results/jpeg_tunes-ssimulacra2.json
    python -m benchmarks.jpeg_tunes balanced PHOTOS …

starts from the constants of ``blemish.jpeg.tuning`` and a ladder of tables that ``blemish.jpeg.learn_tables`` wrote, and moves
one number at a time by a pace of its own, as long as the aim falls: the constants, and smooth changes of the tables (level,
DC, slope and curvature over frequency, each at both ends of the ladder) and of λ. The aim is the sum of mean BD-rates against
Pillow 4:2:0 optimised over 0.2 to 1 and 0.5 to 2 bits per pixel: of the measure that a tune is named after; for ``balanced``,
of PSNR-RGB and MS-SSIM, and half of SSIMULACRA2's. Every second of the chosen photographs is held out and measured before and after. The ladder
with the changed tables is written over ``--tables``; the constants are in the JSON file, to be copied to ``tuning.py``.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blemish.data.datasets import find_images
from blemish.jpeg.benchmark.baselines import PILLOW_420
from blemish.jpeg.benchmark.bd_rate import RateCurve, bd_rate
from blemish.jpeg.distortion import TUNES, Tune, ms_ssim_sensitivity, pyramid
from blemish.jpeg.file import to_bytes
from blemish.jpeg.learn_tables import crop
from blemish.jpeg.rate_distortion import CoefficientImage, assemble, prepare, select
from blemish.jpeg.source_image import read_source
from blemish.jpeg.ssimulacra2 import Ssimulacra2
from blemish.jpeg.tables import Knot, Ladder, as_json, read_ladder
from blemish.jpeg.tuning import TUNINGS, Tuning, fixed_chroma
from blemish.storage.atomic import write_text

Pixels = NDArray[np.uint8]
Figures = dict[str, float]

QUALITIES = (8, 22, 38, 54, 68, 80, 90)
RANGES = {"low": (0.2, 1.0), "high": (0.5, 2.0)}


class Photo:
    """A photograph and what is computed once for all of its files."""

    def __init__(self, pixels: Pixels, *, psnr_alone: bool = False) -> None:
        self._psnr_alone = psnr_alone
        self.pixels = np.ascontiguousarray(pixels)
        self.image: CoefficientImage = prepare(self.pixels, "4:2:0")
        self.image.pyramid  # noqa: B018 (computed once)
        self._scorer = Ssimulacra2(self.pixels)
        self._pyramids = [pyramid(plane) for plane in self._planes(self.pixels)]
        qualities = (3, 10, 20, 30, 45, 60, 75, 88, 94)
        self.anchor = self.curves([PILLOW_420.encode(self.pixels, quality) for quality in qualities])

    @staticmethod
    def _planes(pixels: Pixels) -> list[NDArray[np.float32]]:
        return [np.ascontiguousarray(pixels[..., c].astype(np.float32) - 128) for c in range(3)]

    def measure(self, data: bytes) -> tuple[float, Figures]:
        """Bits per pixel, and the measures; those besides PSNR are left out for ``psnr``, which then is several times as fast."""
        decoded = np.asarray(Image.open(io.BytesIO(data)))
        error = float(((decoded.astype(np.float32) - self.pixels) ** 2).mean())
        figures = {"psnr": 10 * math.log10(255**2 / error)}
        if not self._psnr_alone:
            similar = fmean(
                1 - ms_ssim_sensitivity(x, pyramid(y)).loss
                for x, y in zip(self._pyramids, self._planes(decoded), strict=True)
            )
            figures["ms_ssim"] = -10 * math.log10(1 - similar)
            figures["ssimulacra2"] = self._scorer.score(decoded)
        return 8 * len(data) / (self.pixels.shape[0] * self.pixels.shape[1]), figures

    def curves(self, files: Sequence[bytes]) -> dict[str, RateCurve]:
        measured = [self.measure(data) for data in files]
        rates = [rate for rate, _ in measured]
        names = measured[0][1]
        return {name: RateCurve.through(rates, [figures[name] for _, figures in measured]) for name in names}


def photographs(
    folder: Path, count: int, side: int, offset: int = 0, *, psnr_alone: bool = False
) -> list[Photo]:
    items = find_images(folder)
    chosen = [items[i] for i in np.linspace(0, len(items) - 1, 2 * count).round().astype(int)][offset::2]
    pieces = [crop(read_source(item.path, keep_metadata=False).pixels, side) for item in chosen]
    return [Photo(piece, psnr_alone=psnr_alone) for piece in pieces]


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


CONSTANTS = (
    "squared", "ms_ssim", "ssimulacra2", "luma_scales", "chroma_squared", "chroma_ms_ssim", "chroma_scales",
    "compensation",
)  # fmt: skip
WEIGHTS = {"psnr": 1.0, "ms_ssim": 1.2, "ssimulacra2": 0.4}
"""Of the three measures in ``balanced``: SSIMULACRA2, whose BD-rates move most, at half, or it alone would decide."""
WARPS = ("λ", "luma", "luma DC", "luma slope", "luma curvature", "chroma", "chroma DC", "chroma slope")
LEAST = 1e-4
"""Constants are searched by their logarithms; 0 stays 0."""

_ROW, _COLUMN = np.mgrid[:8, :8]
_RADIUS = np.hypot(_ROW, _COLUMN) / np.hypot(7, 7)
_DC = (_RADIUS == 0).astype(float)


def flat(tuning: Tuning) -> NDArray[np.float64]:
    return np.concatenate([np.ravel(getattr(tuning, name)) for name in CONSTANTS])


def tuning_of(values: NDArray[np.float64]) -> Tuning:
    found, at = {}, 0
    for name in CONSTANTS:
        shape = np.shape(getattr(Tuning(), name))
        size = int(np.prod(shape, dtype=int))
        part = np.round(values[at : at + size], 4).reshape(shape).tolist()
        found[name] = tuple(map(tuple, part)) if len(shape) == 2 else tuple(part) if shape else part
        at += size
    return Tuning(**found)


def warped(knots: Sequence[Knot], warps: NDArray[np.float64]) -> list[Knot]:
    """``warps``: (8, 2), the logarithm of each change at the coarse and at the fine end of the ladder."""
    result = []
    for knot in knots:
        share = float(np.clip((np.log(knot.lam) - np.log(900)) / (np.log(4) - np.log(900)), 0, 1))
        lam, luma, dc, slope, curvature, chroma, chroma_dc, chroma_slope = (
            warps[:, 0] * (1 - share) + warps[:, 1] * share
        )
        tables = {
            "luma": luma + dc * _DC + slope * _RADIUS + curvature * _RADIUS * (1 - _RADIUS),
            "chroma": chroma + chroma_dc * _DC + chroma_slope * _RADIUS,
        }
        changed = {
            name: np.clip(np.asarray(getattr(knot, name)) * np.exp(change), 1, 255).round(2).tolist()
            for name, change in tables.items()
        }
        result.append(Knot(quality=knot.quality, lam=knot.lam * float(np.exp(lam)), **changed))
    return result


def aim(tune: Tune, found: Figures) -> float:
    """The sum of the BD-rates of the measure that a tune is named after; of ``balanced``, of all three by ``WEIGHTS``."""
    own = {tune.replace("-", "_"): 1.0} if tune != "balanced" else WEIGHTS
    return sum(own.get(name.split()[0], 0.0) * value for name, value in found.items())


class Search:
    """One number at a time, up or down by a pace that grows with success and shrinks without."""

    def __init__(self, tune: Tune, ladder: Ladder, photos: Sequence[Photo]) -> None:
        self.tune, self.ladder, self.photos = tune, ladder, photos
        start = flat(TUNINGS[tune])
        # Proportions of a single measure are none.
        mixed = len(np.flatnonzero(start[:-1])) > 2
        self.free = np.flatnonzero(start[:-1] > 0) if mixed else np.array([], int)
        self.start = start
        self.x = np.zeros(len(self.free) + 2 * len(WARPS))
        self.pace = np.concatenate([np.full(len(self.free), 0.5), np.full(2 * len(WARPS), 0.2)])
        self.tries = 0

    def tuning(self, x: NDArray[np.float64]) -> Tuning:
        values = self.start.copy()
        values[self.free] = np.maximum(values[self.free] * np.exp(x[: len(self.free)]), LEAST)
        return tuning_of(values)

    def tables(self, x: NDArray[np.float64]) -> Ladder:
        warps = x[len(self.free) :].reshape(len(WARPS), 2)
        tunes = {**self.ladder.tunes, self.tune: warped(self.ladder.tunes[self.tune], warps)}
        return self.ladder.model_copy(update={"tunes": tunes})

    def measured(self, x: NDArray[np.float64], photos: Sequence[Photo]) -> Figures:
        TUNINGS[self.tune] = self.tuning(x)
        fixed_chroma.cache_clear()
        return figures(photos, encoder(self.tables(x), self.tune), SEARCHED)

    def run(self, seconds: float, report: Callable[[str], None]) -> None:
        rng = np.random.default_rng(0)
        best = aim(self.tune, self.measured(self.x, self.photos))
        report(f"{self.tune}: {best:.2f}")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for place in rng.permutation(len(self.x)):
                for sign in (1, -1):
                    y = self.x.copy()
                    y[place] += sign * self.pace[place]
                    found = self.measured(y, self.photos)
                    self.tries += 1
                    if aim(self.tune, found) < best - 0.01:
                        self.x, best = y, aim(self.tune, found)
                        self.pace[place] = min(1.4 * sign * self.pace[place], 1.0, key=abs)
                        shown = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
                        report(f"{self.tries}: {best:.2f} ({shown})")
                        break
                else:
                    self.pace[place] *= 0.6
                if time.monotonic() > end:
                    break


SEARCHED = (12, 34, 58, 84)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tune", choices=TUNES)
    parser.add_argument("photos", type=Path)
    parser.add_argument(
        "--tables", type=Path, required=True, help="ladder to start from, and to be written over"
    )
    parser.add_argument("--count", type=int, default=8, help="photographs to search on; as many are held out")
    parser.add_argument("--side", type=int, default=288, help="pixels of the piece of each")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    ladder = read_ladder(options.tables)
    photos, held_out = (
        photographs(options.photos, options.count, options.side, offset, psnr_alone=options.tune == "psnr")
        for offset in (0, 1)
    )
    search = Search(options.tune, ladder, photos)
    zero = search.x.copy()
    before = {"searched": search.measured(zero, photos), "held out": search.measured(zero, held_out)}

    def write() -> None:
        after = {
            "searched": search.measured(search.x, photos),
            "held out": search.measured(search.x, held_out),
        }
        names = [f"{name} at the {end} end" for name in WARPS for end in ("coarse", "fine")]
        tuning = search.tuning(search.x)
        result = {
            "command": shlex.join(["python", "-m", "benchmarks.jpeg_tunes", *sys.argv[1:]]),
            "tries": search.tries,
            "bd_rate_before": before,
            "bd_rate_after": after,
            "constants": {name: getattr(tuning, name) for name in CONSTANTS},
            "changes_of_tables": dict(
                zip(names, search.x[len(search.free) :].round(4).tolist(), strict=True)
            ),
        }
        write_text(options.out, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        write_text(options.tables, as_json(search.tables(search.x)))

    try:
        search.run(60 * options.minutes, lambda line: print(line, flush=True))
    finally:
        write()


if __name__ == "__main__":
    main()
