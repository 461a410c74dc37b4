"""Affine maps between the pixels of two sensors, and resampling of windows through them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Transform = tuple[tuple[float, float, float], tuple[float, float, float]]
"""((a, b, c), (d, e, f)): a place (x, y) of the grid is (a x + b y + c, d x + e y + f) in the modality's own pixels.

Places are continuous, with pixel i from i to i + 1 along an axis, so that its centre is at i + 1/2."""

Read = Callable[[int, int, int, int], NDArray[np.float32]]
"""(top, left, height, width) to the pixels (C, height, width) of that window, NaN where absent."""


def as_matrix(transform: Transform) -> NDArray[np.float64]:
    """The transform as a 3 × 3 matrix on (x, y, 1)."""
    return np.array([*transform, (0.0, 0.0, 1.0)])


def as_transform(matrix: NDArray[np.float64]) -> Transform:
    """The first two rows of a 3 × 3 matrix."""
    (a, b, c), (d, e, f) = matrix[:2].tolist()
    return (a, b, c), (d, e, f)


def scaling(across: float, down: float) -> NDArray[np.float64]:
    """3 × 3 matrix that multiplies x and y."""
    return np.diag([across, down, 1.0])


def scale_of(matrix: NDArray[np.float64]) -> float:
    """Own pixels along a side for each pixel of the grid."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))


def places(
    matrix: NDArray[np.float64], x: NDArray[Any], y: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Places (x, y) through the matrix."""
    (a, b, c), (d, e, f) = matrix[:2]
    return a * x + b * y + c, d * x + e * y + f


def covered_share(matrix: NDArray[np.float64], grid: tuple[int, int], own: tuple[int, int]) -> float:
    """Share of a grid of (height, width) pixels on which an image of ``own`` (height, width) lies.

    >>> covered_share(as_matrix(((1, 0, 50), (0, 1, 0))), (100, 100), (100, 100))
    0.5
    """
    y, x = np.mgrid[0.5:40, 0.5:40] / 40
    across, down = places(matrix, x * grid[1], y * grid[0])
    return float(((across >= 0) & (across <= own[1]) & (down >= 0) & (down <= own[0])).mean())


def resample_affine(
    read: Read,
    size: tuple[int, int],
    channels: int,
    matrix: NDArray[np.float64],
    window: tuple[int, int, int, int],
) -> NDArray[np.float32]:
    """Resample a window of the grid from an image that is read by windows: (C, height, width).

    Bilinear. Where the image is finer than the grid, means of its pixels over whole steps are taken first, so that
    nothing aliases. A pixel depends on its place alone, never on the window. It is NaN beyond the image, and where one
    that it is made of is NaN.

    Parameters
    ----------
    read: reads the image's own pixels.
    size: (height, width) of the image in its own pixels.
    channels: C of the image.
    matrix: 3 × 3, from the grid to the image.
    window: top, left, height and width in the grid.

    Examples
    --------
    >>> image = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    >>> cut = lambda top, left, height, width: image[:, top : top + height, left : left + width]
    >>> resample_affine(cut, (3, 4), 1, as_matrix(((1, 0, 1), (0, 1, 0))), (0, 0, 2, 4))[0].tolist()
    [[1.0, 2.0, 3.0, nan], [5.0, 6.0, 7.0, nan]]
    """
    top, left, height, width = window
    step = max(1, math.floor(scale_of(matrix) + 1e-9))
    rows, columns = max(1, size[0] // step), max(1, size[1] // step)
    y, x = np.mgrid[top : top + height, left : left + width] + 0.5
    across, down = places(matrix, x, y)
    beyond = (across < 0) | (across > size[1]) | (down < 0) | (down > size[0])
    result = np.full((channels, height, width), np.nan, np.float32)
    if beyond.all():
        return result
    u, v = np.clip(across / step - 0.5, 0, columns - 1), np.clip(down / step - 0.5, 0, rows - 1)
    first_column, first_row = np.floor(u).astype(np.intp), np.floor(v).astype(np.intp)
    inside = ~beyond
    row_0, column_0 = int(first_row[inside].min()), int(first_column[inside].min())
    row_1 = min(rows, int(first_row[inside].max()) + 2)
    column_1 = min(columns, int(first_column[inside].max()) + 2)
    source = read(row_0 * step, column_0 * step, (row_1 - row_0) * step, (column_1 - column_0) * step)
    if step > 1:
        source = source.reshape(channels, row_1 - row_0, step, column_1 - column_0, step).mean((2, 4))
    total = np.zeros((channels, int(inside.sum())))
    u_part, v_part = (u - first_column)[inside], (v - first_row)[inside]
    for down_step, of_row in ((0, 1 - v_part), (1, v_part)):
        for across_step, of_column in ((0, 1 - u_part), (1, u_part)):
            weight = of_row * of_column
            row = np.minimum(first_row[inside] + down_step, row_1 - 1) - row_0
            column = np.minimum(first_column[inside] + across_step, column_1 - 1) - column_0
            # NaN beside a pixel that it has no weight in leaves it as it is.
            total += np.where(weight > 0, source[:, row, column] * weight, 0)
    result[:, inside] = total
    return result
