"""Encode images with learned quantisation tables and trellis quantisation, tuned for a quality measure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from blemish.errors import UsageError, nearest
from blemish.jpeg.coefficients import Coefficients, Sampling
from blemish.jpeg.distortion import TUNES, Tune, luma_ssim
from blemish.jpeg.file import to_bytes
from blemish.jpeg.rate_distortion import CoefficientImage, assemble, check_importance, prepare, select
from blemish.jpeg.rate_targets import check_rate_targets
from blemish.jpeg.source_image import decode
from blemish.jpeg.tables import read_ladder, shipped_ladder
from blemish.jpeg.transform import luma_of

TOLERANCE = 0.01
"""Tolerance of a target: relative to the bits per pixel, and to 1 - SSIM."""

DEFAULT_QUALITY = 75.0

_MOST_TRIES = 16
_MOST_PRICES, _PRICES, _AWAY = 8, 12.0, (0.0, 1.0, 2.0)
"""Prices of a bit that are tried with the same tables, up to those of so much higher and lower a quality; and how far the
qualities of these tables are from the step.
"""
_FIRST_QUALITY = 50.0

_WORTH_A_TRY = 0.03
"""The share of what a 4:2:0 file costs that halving chroma has lost, from which 4:4:4 is tried; it is better from about
twice that share on.
"""


@dataclass(frozen=True)
class Encoded:
    """A standard JPEG file and what it holds.

    bits_per_pixel: of the whole file. quality: that of the tables, 1 to 100; with a target, the one found.
    ssim: of the decoded luma, where that was the target. notice: one line where a target was not met,
    otherwise empty.
    """

    data: bytes
    coefficients: Coefficients
    bits_per_pixel: float
    quality: float
    ssim: float | None = None
    notice: str = ""


class Encoder:
    """Encodes images as standard JPEG files that any decoder opens.

    Takes memory in proportion to the image: about 35 bytes a pixel at 4:2:0 and 52 at 4:4:4, its own 3 included.

    Parameters
    ----------
    tables: a file that ``blemish.jpeg.learn_tables`` wrote; by default the tables in the package.

    Raises
    ------
    ModelError
        ``tables`` is missing or is no such file.

    Examples
    --------
    >>> ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))
    >>> encoded = Encoder().encode(ramp, quality=60)
    >>> decode(encoded.data).shape
    (48, 64)
    """

    def __init__(self, tables: str | Path | None = None) -> None:
        self.ladder = shipped_ladder() if tables is None else read_ladder(Path(tables))

    def encode(
        self,
        pixels: NDArray[np.uint8],
        *,
        quality: float | None = None,
        target_bpp: float | None = None,
        target_ssim: float | None = None,
        tune: Tune = "balanced",
        sampling: Sampling | Literal["auto"] = "4:2:0",
        segments: bytes = b"",
        importance: NDArray[np.float32] | None = None,
    ) -> Encoded:
        """Encode one image, at a quality or as near as possible to a target.

        Parameters
        ----------
        pixels: uint8 (H, W) or (H, W, 3), RGB.
        quality: 1 to 100, any number; 75 when nothing is given. About as good as libjpeg's, in fewer bits.
        target_bpp: bits per pixel of the whole file, segments included, met within 1 %.
        target_ssim: SSIM of luma after decoding, met within 1 % of 1 - SSIM.
        tune: the measure that is to be best at a given size.
        sampling: of chroma; grey images have none. "auto" takes 4:4:4 where it costs less than what 4:2:0 loses.
        segments: APPn and COM markers to be put into the file.
        importance: (ceil(H / 8), ceil(W / 8)), above 0: weight of the errors in each block, 1 by default.

        Returns
        -------
        Encoded; of a target out of reach the nearest file, with a line in ``notice``.

        Raises
        ------
        UsageError
            More than one of quality and targets, one that is out of range, an unknown tune or sampling,
            pixels of another type or shape, or an importance of another shape.
        """
        _check(tune, sampling)
        image = prepare(pixels, "4:2:0" if sampling == "auto" else sampling)
        choosing = sampling == "auto" and len(image.components) > 1
        if importance is not None:
            check_importance(importance, image)

        def made(image: CoefficientImage, chosen: float, bits_at: float) -> tuple[Encoded, float, float]:
            """A file, the price of its errors and bits, and of what halving chroma has lost."""
            tables = self.ladder.at(chosen, tune, image.sampling)
            tables = replace(tables, lam=self.ladder.at(bits_at, tune, image.sampling).lam)
            planes = select(image, tables, tune, importance)
            found = encoded(assemble(image, planes, tables), chosen, segments)
            if not choosing:
                return found, 0.0, 0.0
            price = 8 * len(found.data) * tables.lam + planes[0].distortion(tables.luma)
            price += sum(plane.distortion(tables.chroma) for plane in planes[1:])
            return found, price, sum(plane.lost for plane in planes)

        full: list[CoefficientImage] = []

        def between(chosen: float, bits_at: float) -> Encoded:
            halved, price, lost = made(image, chosen, bits_at)
            if lost <= _WORTH_A_TRY * price:
                return halved
            if not full:
                full.append(prepare(pixels, "4:4:4"))
            larger, its_price, _ = made(full[0], chosen, bits_at)
            return larger if its_price < price else halved

        def at(chosen: float) -> Encoded:
            return between(chosen, chosen)

        return encode_to_target(
            at,
            image.luma,
            quality=quality,
            target_bpp=target_bpp,
            target_ssim=target_ssim,
            between=between,
        )


def encoded(coefficients: Coefficients, quality: float, segments: bytes) -> Encoded:
    """``coefficients`` as a file."""
    data = to_bytes(coefficients, segments=segments)
    return Encoded(data, coefficients, 8 * len(data) / (coefficients.width * coefficients.height), quality)


def encode_to_target(
    at: Callable[[float], Encoded],
    luma: NDArray[np.float32],
    *,
    quality: float | None = None,
    target_bpp: float | None = None,
    target_ssim: float | None = None,
    between: Callable[[float, float], Encoded] | None = None,
) -> Encoded:
    """Encode at a quality, or as near as possible to a target; ``Encoder.encode`` documents both.

    Parameters
    ----------
    at: the file at a quality of 1 to 100; better and larger the higher it is.
    luma: (H, W), level-shifted, of the image.
    between: the file with the tables of one quality and the price of a bit of another, for targets that lie between the
        files of two integer tables.

    Raises
    ------
    UsageError
        More than one of quality and targets, or one that is out of range.
    """
    check_rate_targets(quality, target_bpp, target_ssim)
    if target_bpp is not None:
        found, met = _search(
            at, lambda encoded: math.log(encoded.bits_per_pixel), math.log(target_bpp), between
        )
        if not met:
            got = f"{found.bits_per_pixel:.4g}"
            return replace(
                found, notice=f"{target_bpp:g} bits per pixel is out of reach; the nearest is {got}"
            )
        return found
    if target_ssim is not None:

        def with_ssim(encoded: Encoded) -> Encoded:
            return replace(encoded, ssim=luma_ssim(luma, luma_of(decode(encoded.data))))

        def position(encoded: Encoded) -> float:
            return -math.log(max(1 - (encoded.ssim or 0.0), 1e-9))

        found, met = _search(
            lambda chosen: with_ssim(at(chosen)),
            position,
            -math.log(1 - target_ssim),
            None if between is None else lambda chosen, bits_at: with_ssim(between(chosen, bits_at)),
        )
        if not met:
            got = f"{found.ssim:.5g}"
            return replace(found, notice=f"an SSIM of {target_ssim:g} is out of reach; the nearest is {got}")
        return found
    return at(DEFAULT_QUALITY if quality is None else quality)


def _check(tune: str, sampling: str) -> None:
    if tune not in TUNES:
        raise UsageError(f"tune '{tune}' is unknown; {nearest(tune, TUNES)}")
    if sampling not in ("4:4:4", "4:2:0", "auto"):
        raise UsageError(f"sampling '{sampling}' is unknown; there are 4:4:4 and 4:2:0")


def _search(
    at: Callable[[float], Encoded],
    position: Callable[[Encoded], float],
    target: float,
    between: Callable[[float, float], Encoded] | None = None,
) -> tuple[Encoded, bool]:
    """The file whose position is nearest to ``target``, and whether it is within the tolerance.

    Positions rise with quality, in steps where integer tables change. Linear interpolation between the ends of
    the bracket and bisection take turns. Where the target lies within a step, tables near it are kept, and the price of a
    bit changes instead.
    """
    low, high = 1.0, 100.0
    values: dict[float, float] = {}
    best: tuple[float, Encoded] | None = None
    quality = _FIRST_QUALITY
    for attempt in range(_MOST_TRIES):
        encoded = at(quality)
        values[quality] = position(encoded)
        away = values[quality] - target
        if best is None or abs(away) < best[0]:
            best = abs(away), encoded
        if best[0] <= math.log1p(TOLERANCE):
            break
        if away < 0:
            low = quality
        else:
            high = quality
        if low in values and high in values:
            if high - low < 1e-3:
                break
            share = (target - values[low]) / (values[high] - values[low]) if attempt % 3 else 0.5
            quality = low + (high - low) * min(max(share, 0.05), 0.95)
        elif (low if away < 0 else high) in (1.0, 100.0):
            break  # even the end of the ladder is not far enough
        else:
            # no bracket yet: half-way to the end of the ladder, then the end itself
            end = 100.0 if away < 0 else 1.0
            quality = end if abs(end - quality) < 15 else (quality + end) / 2
    assert best is not None
    if between is None or not values.get(low, target) < target < values.get(high, target):
        return best[1], best[0] <= math.log1p(TOLERANCE)
    # Coarser tables with cheaper bits, then finer ones with dearer bits, farther and farther from the step.
    for away_from in _AWAY:
        for tables in (max(low - away_from, 1.0), min(high + away_from, 100.0)):
            dear, cheap = max(tables - _PRICES, 1.0), min(tables + _PRICES, 100.0)
            for _ in range(_MOST_PRICES):
                if best[0] <= math.log1p(TOLERANCE):
                    return best[1], True
                middle = (dear + cheap) / 2
                encoded = between(tables, middle)
                away = position(encoded) - target
                if abs(away) < best[0]:
                    best = abs(away), encoded
                dear, cheap = (middle, cheap) if away < 0 else (dear, middle)
    return best[1], best[0] <= math.log1p(TOLERANCE)
