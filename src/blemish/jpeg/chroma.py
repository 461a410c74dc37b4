"""Chroma at half the width and height, chosen so that a decoder's upsampling comes nearest to the original.

libjpeg-turbo, and what decodes like it, upsamples by a triangle: U of (n, m), m = ceil(n / 2), with taps 3/4 and 1/4
along each side. The plane x of least |U x - y|² is the pseudo-inverse, (UᵀU)⁻¹ Uᵀ y, along rows and columns in turn.
UᵀU is tridiagonal (5/4 on the diagonal, 3/8 beside it, but for the borders), so it takes time in proportion to the pixels.
Means of 2 × 2 pixels, the usual choice, are blurred by the upsampling once more.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from blemish.jpeg.numba_jit import compiled
from blemish.jpeg.transform import Floats

NEAR, FAR = 0.75, 0.25

NARROWEST_FANCY = 3
"""Columns of a halved plane below which libjpeg repeats samples instead (``jdsample.c``, ``do_fancy``)."""


def _gram(length: int, triangle: bool) -> tuple[NDArray[np.float64], float]:
    """UᵀU for ``length`` full-size samples: its diagonal, and the number beside it."""
    count = -(-length // 2)
    if not triangle:
        diagonal = np.full(count, 2.0)
        diagonal[-1] -= length % 2
        return diagonal, 0.0
    diagonal = np.full(count, 2 * (NEAR**2 + FAR**2))
    border = (NEAR + FAR) ** 2 - NEAR**2 - FAR**2  # where a sample stands in for its missing neighbour
    diagonal[0] += border
    if length == 1:
        diagonal[0] = (NEAR + FAR) ** 2
    elif length % 2:
        diagonal[-1] -= NEAR**2 + FAR**2
    else:
        diagonal[-1] += border
    return diagonal, 2 * NEAR * FAR


@lru_cache(maxsize=16)
def _factors(length: int, triangle: bool) -> tuple[Floats, Floats]:
    """The elimination of UᵀU for ``length`` full-size samples: reciprocal pivots, and what is taken off going back."""
    diagonal, beside = _gram(length, triangle)
    count = len(diagonal)
    pivots, back = np.empty(count), np.zeros(count)
    for i in range(count):
        pivots[i] = 1 / (diagonal[i] - (beside * back[i - 1] if i else 0.0))
        back[i] = beside * pivots[i]
    return pivots.astype(np.float32), back.astype(np.float32)


@compiled
def _add_rows(
    rows: Floats,
    top: int,
    triangle: bool,
    pivots: Floats,
    back: Floats,
    tall: bool,
    sums: Floats,
) -> float:
    """Solve each row along its width, and add it to the sums (Uᵀ of the columns); returns the energy of the rows."""
    near, far = np.float32(0.75), np.float32(0.25)
    one = np.float32(1)
    beside = np.float32(0.375) if triangle else np.float32(0)
    width, count, height = rows.shape[1], sums.shape[1], sums.shape[0]
    solved = np.empty(count, np.float32)
    energy = 0.0
    for y in range(rows.shape[0]):
        row = rows[y]
        of_row = np.float32(0)
        for x in range(width):
            of_row += row[x] * row[x]
        energy += float(of_row)
        for i in range(count):
            even = row[2 * i]
            odd = row[2 * i + 1] if 2 * i + 1 < width else np.float32(0)
            if triangle:
                value = (near if i else one) * even
                if i:
                    value += far * row[2 * i - 1]
                if 2 * i + 1 < width:
                    value += (near if i + 1 < count else one) * odd
                if 2 * i + 2 < width:
                    value += far * row[2 * i + 2]
            else:
                value = even + odd
            if i:
                value -= beside * solved[i - 1]
            solved[i] = value * pivots[i]
        for i in range(count - 2, -1, -1):
            solved[i] -= back[i] * solved[i + 1]
        here = (top + y) // 2
        if tall:
            other = min(max(here + (1 if (top + y) % 2 else -1), 0), height - 1)
            for i in range(count):
                sums[here, i] += near * solved[i]
                sums[other, i] += far * solved[i]
        else:
            for i in range(count):
                sums[here, i] += solved[i]
    return energy


@compiled
def _solve_columns(sums: Floats, beside: float, pivots: Floats, back: Floats) -> None:
    off = np.float32(beside)
    for y in range(sums.shape[0]):
        for i in range(sums.shape[1]):
            if y:
                sums[y, i] -= off * sums[y - 1, i]
            sums[y, i] *= pivots[y]
    for y in range(sums.shape[0] - 2, -1, -1):
        for i in range(sums.shape[1]):
            sums[y, i] -= back[y] * sums[y + 1, i]


class HalvedPlane:
    """A plane of (height, width) that is halved strip by strip, so that no full-size one has to be kept."""

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width = height, width
        self._triangle = -(-width // 2) >= NARROWEST_FANCY
        self._sums = np.zeros((-(-height // 2), -(-width // 2)), np.float32)
        self._energy = 0.0

    def add(self, rows: NDArray[np.float32], top: int) -> None:
        """Add full-size rows, (n, width), the first of which is the ``top``-th; in order, each once."""
        pivots, back = _factors(self._width, self._triangle)
        rows = np.ascontiguousarray(rows, np.float32)
        self._energy += _add_rows(rows, top, self._triangle, pivots, back, self._triangle, self._sums)

    def plane(self) -> tuple[Floats, float]:
        """The halved plane, once all rows are there, and what it has lost; to be called once.

        Returns
        -------
        (ceil(height / 2), ceil(width / 2)), and |U x - y|², the squared error of its upsampling over all pixels.
        """
        pivots, back = _factors(self._height, self._triangle)
        _solve_columns(self._sums, 2 * NEAR * FAR if self._triangle else 0.0, pivots, back)
        # the error is orthogonal to what upsampling can reach, so that |U x - y|² = |y|² - |U x|²
        return self._sums, max(self._energy - self._upsampled_energy(), 0.0)

    def _upsampled_energy(self) -> float:
        """|U x|² = xᵀ (UᵀU ⊗ UᵀU) x."""
        plane = self._sums
        for length in (self._height, self._width):
            diagonal, beside = _gram(length, self._triangle)
            product = plane * diagonal[:, None].astype(np.float32)
            if beside:
                product[1:] += np.float32(beside) * plane[:-1]
                product[:-1] += np.float32(beside) * plane[1:]
            plane = product.T
        return float(np.einsum("ij,ij->", self._sums, plane, dtype=np.float64))


def halved_for_upsampling(plane: Floats) -> Floats:
    """(h, w) -> (ceil(h / 2), ceil(w / 2)), of which libjpeg's upsampling has the least squared error.

    Examples
    --------
    >>> ramp = np.tile(np.arange(8, dtype=np.float32), (4, 1))
    >>> [round(float(value), 2) for value in halved_for_upsampling(ramp)[0]]
    [0.16, 2.65, 4.35, 6.84]
    """
    halved = HalvedPlane(*plane.shape)
    halved.add(plane, 0)
    return halved.plane()[0]
