"""Resampling of one modality to the pixels of another, window by window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


@dataclass(frozen=True)
class ResamplingAxis:
    """Weights that resample an axis of ``of`` pixels to [start, stop) of an axis of ``to`` pixels of the same length.

    Bilinear, with the pixels' outer edges aligned: pixel i of the new axis has its centre at
    (i + ½) of / to. Where the new axis is the coarser one the triangle widens with it, so that nothing
    aliases. The weights of a new pixel depend on its place alone, never on the window.

    Examples
    --------
    >>> axis = ResamplingAxis(of=2, to=4, start=1, stop=3)
    >>> axis.first, axis.last
    (0, 2)
    >>> axis.weights.toarray().tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """

    of: int
    to: int
    start: int
    stop: int

    @property
    def first(self) -> int:
        """Index of the first old pixel that is needed."""
        return int(self._touched[0])

    @property
    def last(self) -> int:
        """Index past the last old pixel that is needed."""
        return int(self._touched[-1]) + 1

    @property
    def _touched(self) -> NDArray[np.intp]:
        old, weights = self._triangles()
        needed: NDArray[np.intp] = np.unique(old[weights > 0])
        return needed

    def _triangles(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Old pixels under each new one's triangle and their weights, (n, taps) each; weight 0 off the axis."""
        scale = self.of / self.to
        reach = max(1.0, scale)
        centres = (np.arange(self.start, self.stop) + 0.5) * scale
        taps = int(np.ceil(2 * reach)) + 1
        old = np.floor(centres - reach).astype(np.intp)[:, None] + np.arange(taps)  # (n, taps)
        weights = np.maximum(0, 1 - np.abs(old + 0.5 - centres[:, None]) / reach)
        weights[(old < 0) | (old >= self.of)] = 0
        return old, weights / weights.sum(axis=1, keepdims=True)

    @property
    def weights(self) -> sparse.csr_array[Any]:
        """(stop − start, last − first): new pixels from old ones; each row sums to one."""
        old, weights = self._triangles()
        rows, taps = np.nonzero(weights)
        columns = old[rows, taps]
        first, last = int(columns.min()), int(columns.max()) + 1
        shape = (self.stop - self.start, last - first)
        return sparse.csr_array((weights[rows, taps], (rows, columns - first)), shape=shape)


def resample(
    pixels: NDArray[np.floating[Any]], rows: ResamplingAxis, columns: ResamplingAxis
) -> NDArray[np.float32]:
    """Resample pixels (C, h, w), exactly those that ``rows`` and ``columns`` need, to the new grid.

    NaN stays local: a new pixel is NaN exactly where one that it is made of is.
    """
    down, across = rows.weights, columns.weights
    planes = [across.dot(down.dot(plane.astype(np.float64)).T).T for plane in pixels]
    return np.stack(planes).astype(np.float32)
