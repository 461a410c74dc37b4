"""The tune ``ssimulacra2`` beside the other encoders, and with its constants changed, on a folder of photographs.

    python benchmarks/ssimulacra2_tune.py PHOTOS [--out benchmarks/results/ssimulacra2_tune.json]

Mean BD-rates in percent against Pillow 4:2:0 optimised, 0.2 to 1 bits per pixel, of a piece of each photograph;
negative is better. Changed constants are tried with the tables that ship.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blemish.data.datasets import find_images
from blemish.jpeg import distortion as tuning
from blemish.jpeg import rate_distortion as selection
from blemish.jpeg.benchmark.baselines import PILLOW_420
from blemish.jpeg.benchmark.bd_rate import RateCurve, bd_rate
from blemish.jpeg.benchmark.codecs import BlemishCodec
from blemish.jpeg.benchmark.find_codecs import find_codecs
from blemish.jpeg.benchmark.run import LADDER
from blemish.jpeg.learn_tables import CROP, crop
from blemish.jpeg.quality import Measure, measure
from blemish.jpeg.source_image import read_source
from blemish.jpeg.tables import shipped_sha256

Pixels = NDArray[np.uint8]
Encode = Callable[[Pixels, int], bytes]
Curves = list[dict[Measure, RateCurve]]
Constants = tuple[tuple[float, ...], tuple[float, ...], float]
"""Factors of luma's scales, prices of chroma's, the share of squared error."""

MEASURES: tuple[Measure, ...] = ("psnr_rgb", "ms_ssim", "ssimulacra2")
QUALITIES = LADDER[::2]


def curves(images: list[Pixels], encode: Encode, measures: tuple[Measure, ...]) -> Curves:
    found: Curves = []
    for pixels in images:
        rates, values = [], []
        for quality in QUALITIES:
            data = encode(pixels, quality)
            with Image.open(io.BytesIO(data)) as image:
                measured = measure(pixels, np.array(image), measures)
            rates.append(8 * len(data) / (pixels.shape[0] * pixels.shape[1]))
            values.append({name: rising(name, measured[name]) for name in measures})
        found.append({name: RateCurve.through(rates, [value[name] for value in values]) for name in measures})
    return found


def rising(name: Measure, value: float | None) -> float:
    """As BD-rates are taken over it: MS-SSIM in dB."""
    if value is None:
        return math.nan
    return -10 * math.log10(1 - value) if name == "ms_ssim" else value


def rates(anchor: Curves, test: Curves) -> dict[str, float]:
    return {
        name: round(
            fmean(
                rate
                for a, b in zip(anchor, test, strict=True)
                if (rate := bd_rate(a[name], b[name])) is not None
            ),
            2,
        )
        for name in test[0]
    }


@contextmanager
def changed(constants: Constants) -> Iterator[None]:
    before = tuning.SSIMULACRA2_LUMA, tuning.SSIMULACRA2_CHROMA, selection.SQUARED_SHARE["ssimulacra2"]
    put(constants)
    try:
        yield
    finally:
        put(before)


def put(constants: Constants) -> None:
    luma, chroma, share = constants
    vars(selection)["SSIMULACRA2_LUMA"] = luma
    vars(tuning)["SSIMULACRA2_CHROMA"] = chroma
    selection.SQUARED_SHARE["ssimulacra2"] = share
    tuning.ssimulacra2_chroma.cache_clear()


def variants() -> dict[str, Constants]:
    luma, chroma = tuning.SSIMULACRA2_LUMA, tuning.SSIMULACRA2_CHROMA
    share = selection.SQUARED_SHARE["ssimulacra2"]
    found: dict[str, Constants] = {
        "as it is": (luma, chroma, share),
        "luma's scales as MS-SSIM has them": ((1.0,) * 5, chroma, share),
        "chroma's price the same at each scale": (luma, (sum(chroma) / 5,) * 5, share),
    }
    for factor in (0.5, 2.0):
        found[f"share of squared error × {factor:g}"] = (luma, chroma, share * factor)
        found[f"luma's finest scale × {factor:g}"] = ((luma[0] * factor, *luma[1:]), chroma, share)
        found[f"chroma × {factor:g}"] = (luma, tuple(price * factor for price in chroma), share)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, help="where to write the figures, as JSON")
    options = parser.parse_args()
    items = find_images(options.photos)
    sources = [read_source(item.path, keep_metadata=False).pixels for item in items]
    images = [np.ascontiguousarray(crop(pixels)) for pixels in sources]
    anchor = curves(images, PILLOW_420.encode, MEASURES)
    by_encoder: dict[str, dict[str, float]] = {}
    for encoder in find_codecs()[0]:
        if encoder.name != PILLOW_420.name:
            by_encoder[encoder.name] = rates(anchor, curves(images, encoder.encode, MEASURES))
            print(encoder.name, by_encoder[encoder.name], flush=True)
    by_variant: dict[str, float] = {}
    for name, constants in variants().items():
        with changed(constants):
            found = curves(images, BlemishCodec("ssimulacra2").encode, ("ssimulacra2",))
        by_variant[name] = rates(anchor, found)["ssimulacra2"]
        print(name, by_variant[name], flush=True)
    results = {
        "command": shlex.join(["python", *sys.argv]),
        "images": [item.name for item in items],
        "piece": f"the middle, at most {CROP} pixels a side",
        "qualities": QUALITIES,
        "tables": shipped_sha256()[:12],
        "bd_rate": by_encoder,
        "ssimulacra2_with_other_constants": by_variant,
    }
    if options.out:
        partial = options.out.with_suffix(".partial")
        partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, options.out)


if __name__ == "__main__":
    main()
