"""Distortion weights: the cost of an error in each coefficient, by block and frequency.

``psnr`` counts squared errors of R, G and B. ``ms-ssim`` counts what an error takes from MS-SSIM: with
σ_e² the local variance of the error, 1 - cs = σ_e² / (σ_x² + σ_y² + C2) exactly, so the weights are closed
form in the local variances of each scale. SSIMULACRA2 is taken for the same with other prices of its scales, and
fixed prices of chroma. :mod:`blemish.jpeg.tuning` says in what proportions a tune adds the three.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from blemish.jpeg.coefficients import Sampling
from blemish.jpeg.entropy import ZIGZAG
from blemish.jpeg.numba_jit import compiled
from blemish.jpeg.transform import DCT, RGB_TO_YCC, halved, multiplied

Floats: TypeAlias = NDArray[np.float32]
Tune: TypeAlias = Literal["psnr", "ms-ssim", "balanced", "ssimulacra2"]

TUNES: tuple[Tune, ...] = ("psnr", "ms-ssim", "balanced", "ssimulacra2")

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""β of MS-SSIM's scales, from the finest (Wang, Simoncelli, Bovik 2003, section 3.2)."""

C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2


def _gaussian() -> Floats:
    offsets = np.arange(-5, 6)
    taps = np.exp(-(offsets**2) / (2 * 1.5**2))
    normalised: Floats = (taps / taps.sum()).astype(np.float32)
    return normalised


TAPS = _gaussian()
"""(11,): SSIM's window, σ = 1.5."""

REACH = len(TAPS) - 1
"""Steps from a window's first pixel to its last."""
MIDDLE = REACH // 2


def _colour_products() -> NDArray[np.float64]:
    ycc_to_rgb = np.linalg.inv(RGB_TO_YCC.astype(np.float64))
    return ycc_to_rgb.T @ ycc_to_rgb / 3


COLOUR = _colour_products()
"""(3, 3): the mean squared error of R, G, B is e' COLOUR e for an error e = (Y, Cb, Cr)."""


@lru_cache(maxsize=2)
def chroma_response(sampling: Sampling) -> Floats:
    """(64,) in zigzag order: squared error of the upsampled plane's pixels by squared error of a coefficient.

    For 4:2:0 the decoder's upsampling, taps 3/4 and 1/4 along each side, passes a frequency ω of the halved
    plane with |3/4 + 1/4 e^{jω}|² = (10 + 6 cos ω) / 16, on twice the samples.
    """
    if sampling == "4:4:4":
        return np.ones(64, np.float32)
    along = 2 * (10 + 6 * np.cos(np.pi * np.arange(8) / 8)) / 16
    return np.outer(along, along).ravel()[ZIGZAG].astype(np.float32)


@compiled
def _window_mean(plane: Floats, taps: Floats) -> Floats:
    height, width = plane.shape[0] - len(taps) + 1, plane.shape[1] - len(taps) + 1
    result = np.empty((height, width), np.float32)
    row = np.empty(plane.shape[1], np.float32)
    for y in range(height):
        for x in range(plane.shape[1]):
            row[x] = taps[0] * plane[y, x]
        for k in range(1, len(taps)):
            for x in range(plane.shape[1]):
                row[x] += taps[k] * plane[y + k, x]
        for x in range(width):
            result[y, x] = taps[0] * row[x]
        for k in range(1, len(taps)):
            for x in range(width):
                result[y, x] += taps[k] * row[x + k]
    return result


def window_mean(plane: Floats) -> Floats:
    """(h, w) -> (h - 10, w - 10): SSIM's Gaussian mean of every window inside the plane."""
    return _window_mean(np.ascontiguousarray(plane, np.float32), TAPS)


@compiled
def _upsample(plane: Floats, top: int, result: Floats) -> None:
    near, far = np.float32(0.75), np.float32(0.25)
    height, width = plane.shape
    row = np.empty(width, np.float32)
    for y in range(result.shape[0]):
        here = (top + y) // 2
        beside = min(max(here + (1 if (top + y) % 2 else -1), 0), height - 1)
        for x in range(width):
            row[x] = near * plane[here, x] + far * plane[beside, x]
        for x in range(result.shape[1] // 2):
            result[y, 2 * x] = near * row[x] + far * row[max(x - 1, 0)]
            result[y, 2 * x + 1] = near * row[x] + far * row[min(x + 1, width - 1)]
        if result.shape[1] % 2:
            result[y, -1] = near * row[width - 1] + far * row[max(width - 2, 0)]


def upsample(plane: Floats, height: int, width: int, top: int = 0) -> Floats:
    """(h, w) -> (height, width), the rows from ``top``: libjpeg's fancy upsampling by 2, taps 3/4 and 1/4."""
    result = np.empty((height, width), np.float32)
    _upsample(plane, top, result)
    return result


@lru_cache(maxsize=2)
def scale_responses(factor: int) -> tuple[Floats, Floats]:
    """Effect of an error of 1 in each coefficient of a block at each scale of MS-SSIM, summed over windows.

    Parameters
    ----------
    factor: 1 for planes of full size, 2 for those that are upsampled by 2 each way.

    Returns
    -------
    float32 (5, 64) each, in zigzag order: Σ σ_e² (the variance under the window) and Σ μ_e² (its squared mean).
    """
    variance, mean = np.empty((5, 64), np.float32), np.empty((5, 64), np.float32)
    for place in range(64):
        v, u = divmod(place, 8)
        plane = np.zeros((192 // factor, 192 // factor), np.float32)
        start = 96 // factor
        plane[start : start + 8, start : start + 8] = np.outer(DCT[v], DCT[u])
        if factor == 2:
            plane = upsample(plane, 192, 192)
        for scale in range(5):
            if scale:
                plane = halved(plane)
            squares = float((window_mean(np.pad(plane, 10)) ** 2).sum())
            mean[scale, place] = squares
            variance[scale, place] = max(float((plane**2).sum()) - squares, 0.0)
    return variance[:, ZIGZAG], mean[:, ZIGZAG]


def pyramid(plane: Floats) -> list[Floats]:
    """The plane at the scales of MS-SSIM at which a window fits, at most five, finest first.

    Parameters
    ----------
    plane: float32 (h, w), level-shifted luma, of a range of 255.
    """
    scales: list[Floats] = []
    for _ in SCALE_WEIGHTS:
        if min(plane.shape) < len(TAPS):
            break
        scales.append(plane)
        plane = halved(plane)
    return scales


@dataclass(frozen=True)
class Sensitivity:
    """The price in 1 - MS-SSIM of the error's variance at each scale, by luma block.

    prices: float32 (rows, columns, scales). luminance: (rows, columns), the price of the error's squared mean
    at the coarsest scale. loss: 1 - MS-SSIM of the decoded plane.
    """

    prices: Floats
    luminance: Floats
    loss: float

    def by_block(self, factor: int = 1) -> tuple[Floats, Floats]:
        """The factors whose product is :meth:`weights`: by block, (N, scales + 1), and by coefficient, (scales + 1, 64).

        ``factor`` is 1 for planes of full size, 2 for those halved each way. The last of the scales + 1 is luminance.
        """
        variance, mean = scale_responses(factor)
        prices = np.dstack([self.prices, self.luminance])  # (rows, columns, scales + 1)
        responses = np.vstack([variance[: prices.shape[2] - 1], mean[-1]])
        return pooled(prices, factor).reshape(-1, len(responses)), responses

    def weights(self, factor: int = 1) -> Floats:
        """The price of a squared error by block and coefficient, (N, 64) in zigzag order."""
        return multiplied(*self.by_block(factor))


def pooled(values: Floats, factor: int) -> Floats:
    """(rows, columns, scales) -> the means of (factor, factor) blocks."""
    if factor == 1:
        return values
    rows, columns = values.shape[:2]
    values = np.pad(values, ((0, rows % 2), (0, columns % 2), (0, 0)), mode="edge")
    means: Floats = (
        values[0::2, 0::2] + values[1::2, 0::2] + values[0::2, 1::2] + values[1::2, 1::2]
    ) / np.float32(4)
    return means


@compiled
def _compare(
    x: Floats,
    y: Floats,
    with_luminance: bool,
    cell: int,
    down: Floats,
    across: Floats,
    rows: int,
    columns: int,
) -> tuple[float, Floats]:
    """``_compared`` row by row, so that nothing but sums by cell is kept.

    With s = x + y and e = x - y, σ_x² + σ_y² is (σ_s² + σ_e²) / 2, and 1 - cs is σ_e² / (σ_x² + σ_y² + C2).
    """
    half, one, two, level = np.float32(0.5), np.float32(1), np.float32(2), np.float32(128)
    c1, c2 = np.float32(C1), np.float32(C2)
    height, width = x.shape
    windows = width - REACH
    # s, e, s² and e² in the rows under a window
    fields = np.empty((4, REACH + 1, width), np.float32)
    column = np.empty(width, np.float32)
    mean = np.empty((4, windows), np.float32)
    similarity = np.empty(windows, np.float32)
    contrast = np.empty(windows, np.float32)
    luminance = np.empty(windows, np.float32)
    tall = np.zeros((2 if with_luminance else 1, rows, windows), np.float32)
    total = 0.0
    for row in range(height):
        # each row by a name of its own: numba makes vector code of that
        place = row % (REACH + 1)
        of_x, of_y = x[row], y[row]
        s, e, ss, ee = fields[0, place], fields[1, place], fields[2, place], fields[3, place]
        for i in range(width):
            plus, minus = of_x[i] + of_y[i], of_x[i] - of_y[i]
            s[i] = plus
            e[i] = minus
            ss[i] = plus * plus
            ee[i] = minus * minus
        if row < REACH:
            continue
        for field in range(4):
            centre = fields[field, (row - MIDDLE) % (REACH + 1)]
            tap = TAPS[MIDDLE]
            for i in range(width):
                column[i] = tap * centre[i]
            for k in range(MIDDLE):
                tap = TAPS[k]
                above = fields[field, (row - REACH + k) % (REACH + 1)]
                below = fields[field, (row - k) % (REACH + 1)]
                for i in range(width):
                    column[i] += tap * (above[i] + below[i])
            average = mean[field]
            tap = TAPS[MIDDLE]
            for i in range(windows):
                average[i] = tap * column[i + MIDDLE]
            for k in range(MIDDLE):
                tap = TAPS[k]
                for i in range(windows):
                    average[i] += tap * (column[i + k] + column[i + REACH - k])
        mu_s, mu_e, square_s, square_e = mean[0], mean[1], mean[2], mean[3]
        for i in range(windows):
            variance_e = square_e[i] - mu_e[i] * mu_e[i]
            variance_s = square_s[i] - mu_s[i] * mu_s[i]
            contrast[i] = one / (half * (variance_s + variance_e) + c2)
            similarity[i] = one - variance_e * contrast[i]
        if with_luminance:
            for i in range(windows):
                # the planes are level-shifted; SSIM's luminance term is not
                mu_x = half * (mu_s[i] + mu_e[i]) + level
                mu_y = mu_x - mu_e[i]
                similarity[i] *= (two * mu_x * mu_y + c1) / (mu_x * mu_x + mu_y * mu_y + c1)
                luminance[i] = one / (two * mu_x * mu_x + c1)
        for i in range(windows):
            total += similarity[i]
        window = row - REACH
        for k in range(down.shape[1]):
            share = down[window, k]
            if share > 0:
                cells = tall[0, window // cell + k]
                for i in range(windows):
                    cells[i] += share * contrast[i]
                if with_luminance:
                    cells = tall[1, window // cell + k]
                    for i in range(windows):
                        cells[i] += share * luminance[i]
    by_cell = np.zeros((2, rows, columns), np.float32)
    for number in range(len(tall)):
        for row in range(rows):
            for i in range(windows):
                for k in range(across.shape[1]):
                    if across[i, k] > 0:
                        by_cell[number, row, i // cell + k] += across[i, k] * tall[number, row, i]
    return total / ((height - REACH) * windows), by_cell


@lru_cache(maxsize=16)
def _shares(length: int, cell: int) -> tuple[Floats, int]:
    """Along one side: what the value of a window adds to the mean over each cell of what its pixels take of it.

    Returns
    -------
    (windows, most cells under one window), from the cell of the window's first pixel on; and the cells there are.
    """
    windows, cells = length - REACH, -(-length // cell)
    first = np.arange(windows)
    shares = np.zeros((windows, REACH // cell + 2), np.float32)
    for k, tap in enumerate(TAPS):
        under = (first + k) // cell
        shares[first, under - first // cell] += tap / np.minimum(cell, length - under * cell)
    return shares, cells


def _compared(x: Floats, y: Floats, cell: int, *, with_luminance: bool) -> tuple[float, Floats, Floats]:
    """SSIM of two level-shifted planes, and what it is sensitive to, by cells of (cell, cell) pixels.

    Returns
    -------
    The mean of cs, times l where asked for; by cell, the mean over its pixels of what the windows over them have
    as 1 / (σ_x² + σ_y² + C2); the same of 1 / (2 μ_x² + C1), zeros where l is not asked for.
    """
    (down, rows), (across, columns) = (_shares(side, cell) for side in x.shape)
    x, y = (np.ascontiguousarray(plane, np.float32) for plane in (x, y))
    similarity, (contrast, luminance) = _compare(x, y, with_luminance, cell, down, across, rows, columns)
    return similarity, contrast, luminance


def ms_ssim_sensitivity(original: list[Floats], decoded: list[Floats]) -> Sensitivity:
    """The price of an error in each luma block, measured by MS-SSIM around a decoded plane.

    1 - cs = σ_e² / (σ_x² + σ_y² + C2) at each window, e = x - y: the denominators are taken as they are around
    ``decoded``. MS-SSIM is the product of the means of cs, each to its β; its logarithm is linear in each mean.

    Parameters
    ----------
    original, decoded: ``pyramid`` of the two planes, of the same shape, at least one scale.
    """
    rows, columns = (-(-side // 8) for side in original[0].shape)
    prices = np.empty((rows, columns, len(original)), np.float32)
    luminance = np.zeros((rows, columns), np.float32)
    product = 1.0
    for scale, (x, y) in enumerate(zip(original, decoded, strict=True)):
        last = scale == len(SCALE_WEIGHTS) - 1
        similarity, contrast, mean = _compared(x, y, max(8 >> scale, 1), with_luminance=last)
        if scale > 3:  # a pixel is several blocks
            wide = 1 << scale - 3
            contrast, mean = (
                each.repeat(wide, 0).repeat(wide, 1)[:rows, :columns] for each in (contrast, mean)
            )
        total = max(similarity, 1e-3)
        product *= total ** SCALE_WEIGHTS[scale]
        windows = (x.shape[0] - REACH) * (x.shape[1] - REACH)
        share = np.float32(SCALE_WEIGHTS[scale] / (total * windows))
        prices[..., scale] = share * contrast
        if last:
            luminance = share * mean
    slope = np.float32(product)
    return Sensitivity(slope * prices, slope * luminance, 1 - product)


def luma_ssim(x: Floats, y: Floats) -> float:
    """Mean SSIM of two planes (h, w) of a range of 255: Gaussian window of 11, σ 1.5, mirrored borders.

    Source: Wang, Bovik, Sheikh, Simoncelli 2004, equation 13.

    Parameters
    ----------
    x, y: float32, level-shifted luma.
    """
    x, y = (np.pad(plane, MIDDLE, mode="symmetric") for plane in (x, y))
    return _compared(x, y, 8, with_luminance=True)[0]
