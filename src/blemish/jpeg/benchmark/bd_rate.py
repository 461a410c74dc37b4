"""Rate-distortion curves compared: the Bjøntegaard delta rate of each image, its mean and its interval.

Bjøntegaard, "Calculation of average PSNR differences between RD-curves", ITU-T VCEG-M33, 2001, with piecewise
cubic Hermite interpolation (pchip) in place of its one cubic, as JCT-VC and MPEG use it since.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

from blemish.errors import UsageError

Floats = NDArray[np.float64]

BPP_RANGE = (0.2, 1.0)
"""Bits per pixel between which encoders are compared by default."""


@dataclass(frozen=True)
class RateCurve:
    """Measured points of one encoder on one image: bits per pixel, and a quality that grows with the rate.

    Both are float64 (n,) and strictly increasing; a point that costs more than another and is not better is
    left out.
    """

    bpp: Floats
    quality: Floats

    @classmethod
    def through(cls, bpp: ArrayLike, quality: ArrayLike) -> RateCurve:
        """The curve through points in any order.

        Examples
        --------
        >>> RateCurve.through([0.5, 0.2, 0.4], [33.0, 29.0, 33.5]).quality.tolist()
        [29.0, 33.5]
        """
        points = sorted(zip(np.asarray(bpp, float), np.asarray(quality, float), strict=True))
        kept: list[tuple[float, float]] = []
        for rate, value in points:
            if kept and rate == kept[-1][0]:  # of two files of one size the better; it comes last
                kept.pop()
            if math.isfinite(value) and (not kept or value > kept[-1][1]):
                kept.append((rate, value))
        together = np.array(kept, np.float64).reshape(-1, 2)  # (n, 2)
        return cls(together[:, 0], together[:, 1])

    def within(self, bpp_range: tuple[float, float]) -> RateCurve:
        """The part between two rates; where the points go beyond them, with interpolated ends on them."""
        low, high = bpp_range
        if not 0 < low < high < math.inf:
            raise UsageError(
                f"bits per pixel from {low:g} to {high:g}; give two positive rates, the lower first"
            )
        inside = (self.bpp >= low) & (self.bpp <= high)
        rates = self.bpp[inside]
        if len(self.bpp) < 2 or self.bpp[-1] <= low or self.bpp[0] >= high:
            return RateCurve(rates, self.quality[inside])
        ends = [end for end in bpp_range if self.bpp[0] < end < self.bpp[-1] and end not in rates]
        rates = np.union1d(rates, ends)
        return RateCurve(rates, PchipInterpolator(np.log(self.bpp), self.quality)(np.log(rates)))

    def rates_at(self, quality: Floats) -> Floats:
        """Bits per pixel at which each quality is reached, log-interpolated; NaN beyond the curve's ends."""
        if len(self.bpp) < 2:
            return np.full(len(quality), np.nan)
        return np.exp(PchipInterpolator(self.quality, np.log(self.bpp), extrapolate=False)(quality))


def bd_rate(anchor: RateCurve, test: RateCurve, bpp_range: tuple[float, float] = BPP_RANGE) -> float | None:
    """Bits that ``test`` needs more (negative: less) than ``anchor`` at equal quality, in percent.

    Both curves are limited to ``bpp_range`` first; the mean of log rates is over the qualities that both then
    reach. None where there is none.

    Examples
    --------
    >>> bpp, psnr = [0.1, 0.3, 0.6, 1.2], [27.0, 31.0, 34.0, 37.0]
    >>> half = RateCurve.through([rate / 2 for rate in bpp], psnr)
    >>> round(bd_rate(RateCurve.through(bpp, psnr), half, (0.01, 2.0)), 6)
    -50.0
    """
    anchor, test = anchor.within(bpp_range), test.within(bpp_range)
    if min(len(anchor.bpp), len(test.bpp)) < 2:
        return None
    if min(anchor.quality[-1], test.quality[-1]) <= max(anchor.quality[0], test.quality[0]):
        return None
    import bjontegaard

    percent = bjontegaard.bd_rate(
        anchor.bpp,
        anchor.quality,
        test.bpp,
        test.quality,
        method="pchip",
        require_matching_points=False,
        min_overlap=0,
    )
    return float(percent)


@dataclass(frozen=True)
class Interval:
    """A mean over images and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    images: int


def mean_interval(values: Sequence[float], *, resamples: int = 10_000, seed: int = 0) -> Interval | None:
    """Mean and percentile bootstrap interval (Efron 1979) over images; None of no values.

    The seed is fixed, so that the same values give the same interval.

    Examples
    --------
    >>> mean_interval([-20.0, -20.0, -20.0])
    Interval(mean=-20.0, low=-20.0, high=-20.0, images=3)
    """
    if not values:
        return None
    sample = np.asarray(values, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(sample), (resamples, len(sample)))
    low, high = np.quantile(sample[drawn].mean(axis=1), (0.025, 0.975))
    return Interval(float(sample.mean()), float(low), float(high), len(sample))


def relative_rates(anchor: RateCurve, test: RateCurve, bpp: Floats) -> Floats:
    """``test``'s bits over ``anchor``'s, at the qualities that ``anchor`` has at the rates ``bpp``; NaN beyond.

    Examples
    --------
    >>> anchor = RateCurve.through([0.1, 0.5, 1.0], [28.0, 32.0, 35.0])
    >>> relative_rates(anchor, anchor, np.array([0.3, 2.0])).round(6).tolist()
    [1.0, nan]
    """
    if len(anchor.bpp) < 2:
        return np.full(len(bpp), np.nan)
    quality = PchipInterpolator(np.log(anchor.bpp), anchor.quality, extrapolate=False)(np.log(bpp))
    # By the anchor's own inverse, so that an encoder beside itself needs exactly as much.
    ratio: Floats = test.rates_at(quality) / anchor.rates_at(quality)
    return ratio
