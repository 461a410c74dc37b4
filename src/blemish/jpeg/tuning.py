"""Tunes of the encoder: how much each of three measures counts in the price of an error.

``psnr`` counts squared errors alone and ``ms-ssim`` MS-SSIM alone; ``balanced`` and ``ssimulacra2`` add them in the
proportions below, which ``benchmarks/jpeg_tunes.py`` found by a direct search on real files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from blemish.jpeg.coefficients import Sampling
from blemish.jpeg.distortion import Floats, Tune, chroma_response, scale_responses


@dataclass(frozen=True)
class Tuning:
    """Proportions in which a tune prices errors; at 0 a measure does not count.

    squared: of squared error. ms_ssim: of MS-SSIM; at 1 like squared error at 1, relative to what the image has lost of
    each. ssimulacra2: of SSIMULACRA2's luma. luma_scales: factors of MS-SSIM's price at each scale, from the finest, of
    which SSIMULACRA2's luma is made. chroma_squared, chroma_ms_ssim: of errors of chroma. chroma_scales: prices of the
    squared error of Cb and of Cr at each scale in SSIMULACRA2, that of luma at full size being 1. compensation: 0 to 1,
    how far luma and chroma make up for what the other loses of R, G and B.
    """

    squared: float = 0.0
    ms_ssim: float = 0.0
    ssimulacra2: float = 0.0
    luma_scales: tuple[float, ...] = (0.0,) * 5
    chroma_squared: float = 0.0
    chroma_ms_ssim: float = 0.0
    chroma_scales: tuple[tuple[float, ...], tuple[float, ...]] = ((0.0,) * 5, (0.0,) * 5)
    compensation: float = 1.0


TUNINGS: dict[Tune, Tuning] = {
    "psnr": Tuning(squared=1.0, chroma_squared=1.0),
    "ms-ssim": Tuning(ms_ssim=1.0, chroma_ms_ssim=1.0),
    "balanced": Tuning(
        squared=0.6595,
        ms_ssim=0.4,
        ssimulacra2=0.2473,
        luma_scales=(0.9068, 0.6595, 1.2, 1.8, 0.05),
        chroma_squared=0.4,
        chroma_ms_ssim=0.4,
        chroma_scales=((0.006, 0.0036, 0.018, 0.165, 0.6), (0.006, 0.0198, 0.07, 0.1649, 0.022)),
        compensation=1.0,
    ),
    "ssimulacra2": Tuning(
        squared=0.17,
        ssimulacra2=0.52,
        luma_scales=(0.55, 0.12, 1.6, 1.8196, 0.05),
        chroma_scales=((0.03, 0.03, 0.15, 0.8244, 1.8196), (0.0303, 0.0224, 0.36, 0.5, 0.18)),
        compensation=0.0,
    ),
}
"""SSIMULACRA2 takes nearly all that luma adds to it from the SSIM of scales 2 and 3, the rest mostly from the worst places of
scale 0; of chroma, errors as wide as several blocks count most: it looks at blue at scales 3 and 4 only.
"""


@lru_cache(maxsize=16)
def fixed_chroma(tuning: Tuning, sampling: Sampling) -> tuple[Floats, Floats, Floats]:
    """Prices of a squared error of a chroma coefficient that are the same in each block, (64,) in zigzag order.

    Returns
    -------
    That of squared error, and those of SSIMULACRA2 for Cb and for Cr. An error's variance at a scale is a mean over
    pixels of which there are a quarter as many as at the one before.
    """
    variance, _ = scale_responses(2 if sampling == "4:2:0" else 1)
    squared = np.float32(tuning.chroma_squared) * chroma_response(sampling)
    cb, cr = (
        (np.multiply(scales, 4.0 ** np.arange(len(scales))) @ variance).astype(np.float32)
        for scales in tuning.chroma_scales
    )
    return squared, cb, cr
