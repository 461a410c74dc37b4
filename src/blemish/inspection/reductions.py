"""Reductions of maps: means and maxima of squares of pixels, and sums of planes; NaN where absent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blemish.inspection.scene_records import Sum


def means(values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Mean of the finite values in each ``factor`` × ``factor`` pixels of (K, h, w); NaN where there is none."""
    if factor == 1:
        return values
    parts = _parts(values, factor)
    there = np.isfinite(parts)
    # Down first, along which memory lies in line: half the time of both axes at once.
    count = there.sum(axis=-3, dtype=np.float32).sum(axis=-1)
    total = np.where(there, parts, 0).sum(axis=-3).sum(axis=-1, dtype=np.float64)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return np.asarray(mean, np.float32)


def maxima(values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Largest value in each ``factor`` × ``factor`` pixels of (h, w); NaN where there is none."""
    if factor == 1:
        return values
    return np.asarray(np.fmax.reduce(_parts(values, factor), axis=(-3, -1)), np.float32)


def sums(values: NDArray[np.float32]) -> tuple[Sum, ...]:
    """Sum of the finite values of each plane of (M, h, w), and their number."""
    return tuple(
        Sum(float(plane.sum(where=there, dtype=np.float64)), int(there.sum()))
        for plane, there in zip(values, np.isfinite(values), strict=True)
    )


def _parts(values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """(…, h, w) as (…, h / factor, factor, w / factor, factor), filled up with NaN."""
    *before, height, width = values.shape
    below, right = -height % factor, -width % factor
    filled = np.pad(values, [(0, 0)] * len(before) + [(0, below), (0, right)], constant_values=np.nan)
    parts: NDArray[np.float32] = filled.reshape(
        *before, (height + below) // factor, factor, (width + right) // factor, factor
    )
    return parts
