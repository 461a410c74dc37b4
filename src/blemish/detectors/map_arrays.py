"""Resampling and normalisation of maps as arrays, equal to those of :mod:`~blemish.detectors.map_normaliser` in torch."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from blemish.data.resampling import ResamplingAxis
from blemish.detectors.contracts import Floats

FLATTENING = 2.0
"""Times the mean spread, added to that of each place, so that none counts without limit."""
LEAST_SPREAD = 1e-6


def resized_array(x: Floats, size: tuple[int, int]) -> Floats:
    """``x`` (..., h, w) at ``size`` (height, width): bilinear, with the triangle widened where it becomes smaller.

    >>> resized_array(np.array([[0.0, 1.0]], np.float32), (1, 4)).round(2).tolist()
    [[0.0, 0.25, 0.75, 1.0]]
    """
    if x.shape[-2:] == size:
        return x
    return separable(x, axis_matrix(x.shape[-2], size[0]), axis_matrix(x.shape[-1], size[1]))


def separable(x: Floats, rows: Floats, columns: Floats) -> Floats:
    """``x`` (..., h, w) with its rows and its columns weighted: (..., len(rows), len(columns))."""
    made: Floats = np.ascontiguousarray(rows @ (x @ columns.T), dtype=np.float32)
    return made


@lru_cache(maxsize=64)
def axis_matrix(of: int, to: int) -> Floats:
    """Matrix (to, of) that resamples an axis of ``of`` pixels to ``to`` pixels."""
    if of == to:
        return np.eye(of, dtype=np.float32)
    axis = ResamplingAxis(of=of, to=to, start=0, stop=to)
    matrix = np.zeros((to, of), np.float32)
    matrix[:, axis.first : axis.last] = axis.weights.toarray()
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=64)
def places_matrix(places: int, stride: int, offset: int, side: int) -> Floats:
    """Matrix (side, places) of linear interpolation between places ``stride`` pixels apart, the first at ``offset``.

    Pixels beyond the first and the last place have the value of that place.

    >>> places_matrix(2, 2, 1, 5).tolist()
    [[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.0, 1.0]]
    """
    at = np.clip((np.arange(side) - offset) / stride, 0, places - 1)
    matrix: Floats = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(places))).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


class MapScale:
    """Mean and spread of maps of good images (h, w), as a fitted normaliser holds them.

    Parameters
    ----------
    mean, spread: of each place, or (1, 1) of all places.
    """

    def __init__(self, mean: Floats, spread: Floats) -> None:
        self.mean = mean
        self.spread = spread + np.float32(FLATTENING) * spread.mean() + np.float32(LEAST_SPREAD)
        self._at: dict[tuple[int, int], tuple[Floats, Floats]] = {}

    def __call__(self, values: Floats) -> Floats:
        """Spreads by which a map (h, w) of any size exceeds the mean, at least 0."""
        size = (values.shape[0], values.shape[1])
        if size not in self._at:
            self._at = {size: (resized_array(self.mean, size), resized_array(self.spread, size))}
        mean, spread = self._at[size]
        beyond: Floats = np.maximum((values - mean) / spread, np.float32(0))
        return beyond
