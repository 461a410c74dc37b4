"""How much an error in each coefficient matters: distortion weights per block and frequency.

``psnr`` counts squared errors of R, G and B. ``ms-ssim`` counts what an error takes from MS-SSIM: with
σ_e² the local variance of the error, 1 - cs = σ_e² / (σ_x² + σ_y² + C2) exactly, so the weights are closed
form in the local variances of each scale. ``balanced`` adds the two in proportion to the relative change of
each measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from blemish.jpeg.coefficients import Sampling
from blemish.jpeg.compiling import compiled
from blemish.jpeg.entropy import ZIGZAG
from blemish.jpeg.transform import DCT, RGB_TO_YCC, halved

Floats: TypeAlias = NDArray[np.float32]
Tune: TypeAlias = Literal["psnr", "ms-ssim", "balanced"]

TUNES: tuple[Tune, ...] = ("psnr", "ms-ssim", "balanced")

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


def upsample(plane: Floats, height: int, width: int) -> Floats:
    """(h, w) -> (height, width), at most twice as many each way: libjpeg's fancy upsampling, taps 3/4 and 1/4."""
    taller = _doubled(plane)[:height]
    return np.ascontiguousarray(_doubled(taller.T).T[:, :width])


def _doubled(plane: Floats) -> Floats:
    near = plane * np.float32(0.75)
    far = np.pad(plane * np.float32(0.25), ((1, 1), (0, 0)), mode="edge")
    result = np.empty((2 * len(plane), plane.shape[1]), np.float32)
    result[0::2] = near + far[:-2]
    result[1::2] = near + far[2:]
    return result


@lru_cache(maxsize=2)
def scale_responses(factor: int) -> tuple[Floats, Floats]:
    """What an error of 1 in each coefficient of a block adds at each scale of MS-SSIM, summed over windows.

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


@dataclass(frozen=True)
class Scale:
    """One scale of a plane: (h, w) itself and its local mean and second moment, of every window inside."""

    plane: Floats
    mu: Floats
    square: Floats


def pyramid(plane: Floats) -> list[Scale]:
    """The scales of MS-SSIM at which a window fits, at most five, finest first.

    Parameters
    ----------
    plane: float32 (h, w), level-shifted luma, of a range of 255.
    """
    scales: list[Scale] = []
    for _ in SCALE_WEIGHTS:
        if min(plane.shape) < len(TAPS):
            break
        scales.append(Scale(plane, window_mean(plane), window_mean(plane * plane)))
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

    def weights(self, factor: int = 1) -> Floats:
        """The price of a squared error by block and coefficient, (N, 64) in zigzag order.

        ``factor`` is 1 for planes of full size, 2 for those halved each way.
        """
        variance, mean = scale_responses(factor)
        scales = self.prices.shape[2]
        prices, luminance = (
            pooled(values, factor).reshape(-1, values.shape[2])
            for values in (self.prices, self.luminance[..., None])
        )
        weights: Floats = prices @ variance[:scales]
        weights += luminance * mean[-1]
        return weights


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


def ms_ssim_sensitivity(original: list[Scale], decoded: list[Scale]) -> Sensitivity:
    """The price of an error in each luma block, measured by MS-SSIM around a decoded plane.

    1 - cs = σ_e² / (σ_x² + σ_y² + C2) at each window, e = x - y: the denominators are taken as they are around
    ``decoded``. MS-SSIM is the product of the means of cs, each to its β; its logarithm is linear in each mean.

    Parameters
    ----------
    original, decoded: ``pyramid`` of the two planes, of the same shape, at least one scale.
    """
    rows, columns = (-(-side // 8) for side in original[0].plane.shape)
    prices = np.zeros((rows, columns, len(original)), np.float32)
    luminance = np.zeros((rows, columns), np.float32)
    product = 1.0
    for scale, (x, y) in enumerate(zip(original, decoded, strict=True)):
        d = x.square - x.mu * x.mu
        d += y.square
        d -= y.mu * y.mu
        d += np.float32(C2)
        covariance = window_mean(x.plane * y.plane)
        covariance -= x.mu * y.mu
        cs = (2 * covariance + np.float32(C2)) / d
        similarity = cs
        last = scale == len(SCALE_WEIGHTS) - 1
        if last:
            # luma is level-shifted by 128; SSIM's luminance term is not
            mu_x, mu_y = x.mu + np.float32(128), y.mu + np.float32(128)
            similarity = cs * (2 * mu_x * mu_y + np.float32(C1)) / (mu_x**2 + mu_y**2 + np.float32(C1))
        total = max(float(similarity.mean(dtype=np.float64)), 1e-3)
        product *= total ** SCALE_WEIGHTS[scale]
        share = np.float32(SCALE_WEIGHTS[scale] / (total * cs.size))
        np.divide(share, d, out=d)  # now the price of σ_e² in each window
        prices[..., scale] = _per_block(d, scale, rows, columns)
        if last:
            luminance = _per_block(share / (2 * mu_x * mu_x + np.float32(C1)), scale, rows, columns)
    slope = np.float32(product)
    return Sensitivity(slope * prices, slope * luminance, 1 - product)


def _per_block(values: Floats, scale: int, rows: int, columns: int) -> Floats:
    """(rows, columns): what each block's pixels take, on average, of the values of the windows they lie in."""
    plane = window_mean(np.pad(values, len(TAPS) - 1))
    for _ in range(max(3 - scale, 0)):
        plane = halved(plane)
    for _ in range(max(scale - 3, 0)):
        plane = plane.repeat(2, 0).repeat(2, 1)
    height, width = plane.shape
    plane = np.pad(plane, ((0, max(rows - height, 0)), (0, max(columns - width, 0))), mode="edge")
    return np.ascontiguousarray(plane[:rows, :columns])


def luma_ssim(x: Floats, y: Floats) -> float:
    """Mean SSIM of two planes (h, w) of a range of 255: Gaussian window of 11, σ 1.5, mirrored borders.

    Source: Wang, Bovik, Sheikh, Simoncelli 2004, equation 13.
    """
    x, y = (np.pad(plane, len(TAPS) // 2, mode="symmetric") for plane in (x, y))
    mu_x, mu_y = window_mean(x), window_mean(y)
    # variances about 128, where sums of squares are smallest
    a, b = x - np.float32(128), y - np.float32(128)
    m_a, m_b = mu_x - np.float32(128), mu_y - np.float32(128)
    variances = window_mean(a * a) - m_a * m_a + window_mean(b * b) - m_b * m_b
    covariance = window_mean(a * b) - m_a * m_b
    contrast = (2 * covariance + np.float32(C2)) / (variances + np.float32(C2))
    luminance = (2 * mu_x * mu_y + np.float32(C1)) / (mu_x * mu_x + mu_y * mu_y + np.float32(C1))
    return float((contrast * luminance).mean(dtype=np.float64))
