"""Offset of two images of one surface by phase correlation of their gradient magnitude.

Sensors of other wavelengths show other grey levels, but edges at the same places. The gradient magnitude keeps the
edges, whatever their sign, and the phase correlation gives all spatial frequencies the same weight (Kuglin and Hines, The
phase correlation image alignment method, Proc. IEEE Conf. Cybernetics and Society, 1975).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Array = NDArray[np.floating[Any]]

EDGE_SIGMA = 1.0
"""Standard deviation of the Gaussian whose derivatives give the gradient, in pixels."""
_PEAK_SIGMA = 1.0
_LEAST_PRESENT = 0.75


class Offset(NamedTuple):
    """Displacement of a second image against a first one."""

    dx: float
    """Pixels to the right: what the first shows at x, the second shows at x + dx."""
    dy: float
    """Pixels down."""
    confidence: float
    """Height of the correlation's peak above its mean, in standard deviations; noise alone reaches 4 to 6."""


def edge_strength(pixels: Array) -> Array | None:
    """Compute the gradient magnitude of an image (C, H, W), averaged over channels: (H, W), 0 at absent values.

    None where more than a quarter of the pixels are absent (NaN).
    """
    there: NDArray[np.bool_] = np.asarray(np.isfinite(pixels).all(0))
    if there.mean() < _LEAST_PRESENT:
        return None
    total = np.zeros(there.shape, np.float32)
    for plane in pixels:
        filled = plane if there.all() else np.where(there, plane, plane[there].mean())
        total += ndimage.gaussian_gradient_magnitude(filled.astype(np.float32), EDGE_SIGMA, mode="nearest")
    if not there.all():
        total *= ndimage.binary_erosion(there, iterations=round(3 * EDGE_SIGMA) + 1, border_value=1)
    return total / len(pixels)


def cross_power(first: Array, second: Array) -> NDArray[Any]:
    """Compute the normalised cross-power spectrum of two planes (H, W) under a Hann window: (H, W // 2 + 1)."""
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in first.shape)).astype(np.float32)
    spectra = [fft.rfft2((plane - plane.mean()) * window) for plane in (first, second)]
    product = spectra[1] * spectra[0].conj()
    size = np.abs(product)
    normalised: NDArray[Any] = product / np.maximum(size, 1e-9 * max(float(size.max()), 1e-30))
    return normalised


def find_peak(spectrum: NDArray[Any], shape: tuple[int, int], reach: float = 0.25) -> Offset:
    """Find the offset that a cross-power spectrum, or a sum of several, speaks for.

    Parameters
    ----------
    spectrum: (H, W // 2 + 1).
    shape: (H, W) of the planes.
    reach: largest offset that is looked for, as a share of each side.
    """
    surface = fft.fftshift(ndimage.gaussian_filter(fft.irfft2(spectrum, shape), _PEAK_SIGMA, mode="wrap"))
    centre = [side // 2 for side in shape]
    near = [max(2, int(reach * side)) for side in shape]
    part = surface[
        centre[0] - near[0] : centre[0] + near[0] + 1, centre[1] - near[1] : centre[1] + near[1] + 1
    ]
    row, column = np.unravel_index(int(part.argmax()), part.shape)
    deviation = float(surface.std())
    confidence = (float(part[row, column]) - float(surface.mean())) / deviation if deviation > 0 else 0.0
    dy, dx = int(row) - near[0], int(column) - near[1]
    dy_part = _vertex(*(surface[centre[0] + dy + step, centre[1] + dx] for step in (-1, 0, 1)))
    dx_part = _vertex(*(surface[centre[0] + dy, centre[1] + dx + step] for step in (-1, 0, 1)))
    return Offset(dx + dx_part, dy + dy_part, confidence)


def find_offset(first: Array, second: Array, reach: float = 0.25) -> Offset:
    """Find the offset of one plane of edge strengths (H, W) against another of the same size.

    Examples
    --------
    >>> plane = ndimage.gaussian_filter(np.random.default_rng(0).random((64, 64)), 1)
    >>> found = find_offset(plane, np.roll(plane, (3, -5), (0, 1)))
    >>> round(found.dx), round(found.dy), found.confidence > 10
    (-5, 3, True)
    """
    return find_peak(cross_power(first, second), (first.shape[0], first.shape[1]), reach)


def _vertex(before: float, peak: float, after: float) -> float:
    """Place of the vertex of the Gaussian through three values, from -1/2 to 1/2."""
    if min(before, peak, after) <= 0:
        return 0.0
    low, middle, high = np.log([before, peak, after])
    bend = low - 2 * middle + high
    return float(np.clip((low - high) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0
