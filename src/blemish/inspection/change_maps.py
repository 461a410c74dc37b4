"""Maps of what changed between two registered images of one surface, in grey level and in structure.

Two photographs of one surface differ in exposure and by a fraction of a pixel everywhere. Both are taken out before they
are compared: grey levels by a line for each channel, places by the best of the shifts by one pixel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]

REACH = 12
"""Pixels around a place that its values depend on."""
STRUCTURE = 0.25
"""Share of structure in the change; the rest is grey level, as in the map of ``modal-difference``."""
_SSIM_SIGMA, _SMOOTHING = 1.5, 2.0
_C1, _C2 = 0.01**2, 0.03**2
_KEPT, _ROUNDS = 0.8, 5
_USUAL = 4.0
_LEAST_PRESENT = 1e-3


class ChangeMaps(NamedTuple):
    """Maps (h, w) of one modality; NaN where one of the two images is absent."""

    difference: Floats
    """|before − after|, mean over the channels: the baseline."""
    grey: Floats
    """|before − after| with the levels of both brought together, at the best shift by up to one pixel."""
    structure: Floats
    """1 − SSIM of the grey images."""


def match_levels(before: Floats, after: Floats) -> tuple[tuple[float, float], ...]:
    """Fit gain and offset that bring each channel of ``after`` (C, h, w) to ``before``, by trimmed least squares.

    The fifth of the pixels that fits worst is left out in five rounds, so that what changed does not count. A channel
    without contrast, or with too few common pixels, keeps its levels.

    >>> before = np.linspace(0, 1, 200, dtype=np.float32).reshape(1, 10, 20)
    >>> [(round(gain, 3), round(offset, 3)) for gain, offset in match_levels(before, before * 0.5 + 0.1)]
    [(2.0, -0.2)]
    """
    found = []
    for one, other in zip(before, after, strict=True):
        there = np.isfinite(one) & np.isfinite(other)
        x, y = other[there].astype(np.float64), one[there].astype(np.float64)
        gain, offset = 1.0, 0.0
        kept = np.ones(len(x), np.bool_)
        for _ in range(_ROUNDS):
            if kept.sum() < 16 or x[kept].std() < 1e-3 or y[kept].std() < 1e-3:
                break
            gain, offset = (float(value) for value in np.polyfit(x[kept], y[kept], 1))
            wrong = np.abs(gain * x + offset - y)
            kept = wrong <= np.quantile(wrong, _KEPT)
        found.append((gain, offset) if 0.1 < gain < 10 else (1.0, 0.0))
    return tuple(found)


def change_maps(before: Floats, after: Floats, levels: tuple[tuple[float, float], ...]) -> ChangeMaps:
    """Compare two registered images (C, h, w) in [0, 1], with the ``levels`` of :func:`match_levels`.

    The shift is the local adjustment of Theiler and Wohlberg, "Local coregistration adjustment for anomalous change
    detection", 2012: the larger one of the residuals with either image shifted, each at its best shift, so that a line
    which is only in one of them stays.
    """
    nowhere = ~(np.isfinite(before).all(0) & np.isfinite(after).all(0))
    gains, offsets = (np.array(values, np.float32)[:, None, None] for values in zip(*levels, strict=True))
    matched = after * gains + offsets
    difference = np.abs(before - after).mean(0)
    grey = np.fmax(_least_residual(before, matched), _least_residual(matched, before))
    structure = 1 - _ssim(before.mean(0), matched.mean(0))
    return ChangeMaps(
        *(np.where(nowhere, np.nan, one).astype(np.float32) for one in (difference, grey, structure))
    )


def combined(maps: ChangeMaps, usual: float) -> Floats:
    """Change (h, w) in [0, 1] of one modality: a quarter structure, the rest 1 − exp(−d / (4 ``usual``)).

    d is the grey residual, smoothed by a Gaussian over 2 pixels, and ``usual`` its usual size, so that what is usual stays
    far from saturation.
    """
    smooth = _blurred(maps.grey, _SMOOTHING)
    grey = 1 - np.exp(-smooth / (_USUAL * max(usual, 1e-3)))
    found = STRUCTURE * np.clip(maps.structure, 0, 1) + (1 - STRUCTURE) * grey
    return np.where(np.isfinite(maps.grey), found, np.nan).astype(np.float32)


def usual_size(grey: Floats) -> float:
    """Usual size of a grey residual: the root mean square of its smaller four fifths."""
    present = grey[np.isfinite(grey)]
    if not present.size:
        return 0.0
    kept = present[present <= np.quantile(present, _KEPT)]
    return float(np.sqrt((kept.astype(np.float64) ** 2).mean()))


def _least_residual(fixed: Floats, moving: Floats) -> Floats:
    """The smallest mean absolute difference over the channels, of the shifts of ``moving`` by up to one pixel."""
    height, width = fixed.shape[1:]
    padded = np.pad(moving, ((0, 0), (1, 1), (1, 1)), mode="edge")
    least = np.full((height, width), np.nan, np.float32)
    for dy in range(3):
        for dx in range(3):
            shifted = padded[:, dy : dy + height, dx : dx + width]
            least = np.fmin(least, np.abs(fixed - shifted).mean(0))
    return least


def _blurred(values: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Gaussian mean of the present values."""
    there = np.isfinite(values)
    total = ndimage.gaussian_filter(np.where(there, values, 0), sigma, mode="reflect", truncate=3.5)
    if there.all():
        return np.asarray(total)
    weight = ndimage.gaussian_filter(there.astype(np.float64), sigma, mode="reflect", truncate=3.5)
    return np.asarray(total / np.maximum(weight, _LEAST_PRESENT))


def _ssim(x: Floats, y: Floats) -> NDArray[np.float64]:
    """SSIM of two planes (Wang et al. 2004) with a Gaussian window of 11 × 11, over the pixels present in both."""
    there = np.isfinite(x) & np.isfinite(y)
    a, b = (np.where(there, one, np.nan).astype(np.float64) for one in (x, y))
    mean_x, mean_y = _blurred(a, _SSIM_SIGMA), _blurred(b, _SSIM_SIGMA)
    var_x = _blurred(a * a, _SSIM_SIGMA) - mean_x**2
    var_y = _blurred(b * b, _SSIM_SIGMA) - mean_y**2
    covariance = _blurred(a * b, _SSIM_SIGMA) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    found: NDArray[np.float64] = luminance * (2 * covariance + _C2) / (var_x + var_y + _C2)
    return found
