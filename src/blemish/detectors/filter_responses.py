"""Responses of classical filters at several scales: lines, edges, spots, roughness and brightness.

They cost milliseconds and learn nothing but their own spread on good images
(:class:`~blemish.detectors.filter_bank.FilterBank`). Of each octave of a pyramid of means:

- the difference of two Gaussians (spots and pits), its extremes and its root mean square;
- the gradient's magnitude (edges);
- the eigenvalues of the Hessian (dark and bright ridges; Frangi et al. 1998, section 2);
- the second derivative across a direction, averaged along it, where it is largest over eight directions: a faint line
  that is connected adds up, a speckle does not.

Beside them the logarithm of local contrast at two scales, the brightness, and the difference of each channel from it.
"""

from __future__ import annotations

import math
from functools import lru_cache, reduce
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Illumination = Literal["log", "local"]
"""``log``: the logarithm of brightness, so that a gain adds a constant; ``local``: without slow changes of brightness,
in units of the image's own contrast."""

CELL = 4
"""Pixels of an image to one place of a response."""
LEAST_SIDE = 32
"""Shortest side in pixels of an image."""
OCTAVES = 4
DIRECTIONS = 8
LENGTHS = (9, 7, 9)
"""Length of the lines of each of the finest octaves, in pixels of the image that they are averaged in."""
DARKEST = 0.05
"""Brightness below which the logarithm fades, in units of the data range."""
SLOW = 16.0
"""Standard deviation in pixels of the Gaussian that slow changes of brightness are taken out with."""
LARGEST_MATRIX = 384
"""Longer side of an image up to which Gaussians are products of matrices; their cost grows with its third power."""
QUIETEST = 1e-3
"""Contrast below which differences of its logarithm fade."""


def filter_responses(
    x: Floats, illumination: Illumination, inside: NDArray[np.bool_] | None = None
) -> Floats:
    """Responses of all filters to an image (C, H, W) in [0, 1]: (k, ⌊H / 8⌋ · 2, ⌊W / 8⌋ · 2).

    k is 31 for one channel, and 31 + C for C channels. Where some places lie outside the image, ``inside`` (H, W) marks
    the others, and the contrast of the whole image is theirs.

    Raises
    ------
    ValueError
        When a side is shorter than 32 pixels.

    >>> filter_responses(np.random.default_rng(0).random((3, 64, 96), dtype=np.float32), "log").shape
    (34, 16, 24)
    """
    if min(x.shape[1:]) < LEAST_SIDE:
        raise ValueError(f"filters need at least {LEAST_SIDE} pixels a side, not {x.shape[2]} × {x.shape[1]}")
    whole = (slice(x.shape[1] // 8 * 8), slice(x.shape[2] // 8 * 8))
    x = x[:, whole[0], whole[1]]
    grey = _even(x.mean(0, dtype=np.float32), illumination, None if inside is None else inside[whole])
    octaves = [grey]
    for _ in range(OCTAVES - 1):
        octaves.append(_reduced(octaves[-1], 2, "mean"))
    responses: list[Floats] = []
    for octave, image in enumerate(octaves):
        responses += _of_octave(image, octave)
    responses += [
        _reduced(_log_contrast(grey, 2.0, 4.0), CELL, "mean"),
        _log_contrast(octaves[2], 2.0, 3.0),
        _gaussian(octaves[2], 2.0),
    ]
    if len(x) > 1:
        cells = [_reduced(channel, CELL, "mean") for channel in x.astype(np.float32, copy=False)]
        mean = sum(cells) / len(cells)
        responses += [_gaussian(channel - mean, 1.0) for channel in cells]
    return np.stack(responses)


def _even(grey: Floats, illumination: Illumination, inside: NDArray[np.bool_] | None) -> Floats:
    if illumination == "log":
        return np.asarray(np.log(grey + np.float32(DARKEST)))
    detail = grey - _gaussian(grey, SLOW)
    counted = detail if inside is None or not inside.any() else detail[inside]
    contrast = np.sqrt(np.mean(counted * counted, dtype=np.float64)) + 0.005
    return np.asarray(detail / np.float32(contrast))


def _of_octave(image: Floats, octave: int) -> list[Floats]:
    """Responses (h, w) of one octave, brought to cells of 4 × 4 pixels of the finest."""
    cell = CELL >> octave
    detail = image - _gaussian(image, 2.5)
    edges = np.hypot(_gaussian(image, 1.0, (1, 0)), _gaussian(image, 1.0, (0, 1)))
    rows, columns, both = (_gaussian(image, 1.2, order) for order in ((2, 0), (0, 2), (1, 1)))
    middle: Floats = (rows + columns) * np.float32(0.5)
    radius: Floats = np.sqrt(np.square((rows - columns) * np.float32(0.5)) + both * both)
    found = [
        _reduced(detail, cell, "mean"),
        _reduced(edges, cell, "mean"),
        _reduced(middle + radius, cell, "max"),
        _reduced(middle - radius, cell, "min"),
    ]
    if cell > 1:
        contrast = np.sqrt(_reduced(detail * detail, cell, "mean"))
        found += [
            _reduced(detail, cell, "max"),
            _reduced(detail, cell, "min"),
            np.log(contrast + QUIETEST),
        ]
    if octave < len(LENGTHS):
        # A fine line is averaged at half the size, for a quarter of the work.
        half = 2 if cell > 1 else 1
        rows, columns, both = (_reduced(one, half, "mean") for one in (rows, columns, both))
        dark, bright = _lines(rows, columns, both, LENGTHS[octave])
        found += [_reduced(dark, cell // half, "max"), _reduced(bright, cell // half, "min")]
    return found if cell else [_doubled(one) for one in found]


def _lines(rows: Floats, columns: Floats, both: Floats, length: int) -> tuple[Floats, Floats]:
    """Largest and smallest second derivative across a line, averaged along it, over all directions: (h, w) twice."""
    reach = length // 2
    height, width = rows.shape
    above, beside = _mirrored(height, reach), _mirrored(width, reach)
    dark, bright = np.full_like(rows, -np.inf), np.full_like(rows, np.inf)
    for number in range(DIRECTIONS):
        angle = math.pi * number / DIRECTIONS
        sine, cosine = math.sin(angle), math.cos(angle)
        across = sine * sine * columns - 2 * sine * cosine * both + cosine * cosine * rows
        padded = across.take(above, 0).take(beside, 1)
        points = {(round(t * sine), round(t * cosine)) for t in range(-reach, reach + 1)}
        total = np.zeros_like(rows)
        for down, right in sorted(points):
            total += padded[reach + down : reach + down + height, reach + right : reach + right + width]
        total /= len(points)
        np.maximum(dark, total, out=dark)
        np.minimum(bright, total, out=bright)
    return dark, bright


@lru_cache(maxsize=32)
def _mirrored(side: int, reach: int) -> NDArray[np.intp]:
    """Places of an axis of ``side`` pixels, mirrored ``reach`` pixels beyond its border."""
    places = np.pad(np.arange(side), reach, mode="symmetric")
    places.setflags(write=False)
    return places


def _log_contrast(image: Floats, fine: float, window: float) -> Floats:
    detail = image - _gaussian(image, fine)
    variance = np.maximum(_gaussian(detail * detail, window), 0)
    return np.asarray(np.log(np.sqrt(variance) + np.float32(QUIETEST)))


def _gaussian(image: Floats, sigma: float, order: tuple[int, int] = (0, 0)) -> Floats:
    """Derivative of some order along each axis of a Gaussian of ``image`` (H, W), mirrored at its border."""
    if max(image.shape) > LARGEST_MATRIX:
        smooth: Floats = ndimage.gaussian_filter(image, sigma, order=order, mode="reflect", truncate=3)
        return smooth
    # Products of small matrices are quicker than filterings line by line.
    (rows, row_sum), (columns, column_sum) = (
        _gaussian_matrix(side, sigma, one) for side, one in zip(image.shape, order, strict=True)
    )
    # Relative to one value, because rounding of an even brightness would count where there is no contrast.
    level = image[0, 0]
    smooth = rows @ (image - level) @ columns.T + level * np.float32(row_sum * column_sum)
    return smooth


@lru_cache(maxsize=128)
def _gaussian_matrix(side: int, sigma: float, order: int) -> tuple[Floats, float]:
    """Matrix (side, side) of a Gaussian's derivative along one axis, and the sum of each of its rows."""
    matrix = ndimage.gaussian_filter1d(
        np.eye(side), sigma, axis=0, order=order, mode="reflect", truncate=3
    )  # a truncated second derivative does not add up to 0
    single: Floats = matrix.astype(np.float32)
    single.setflags(write=False)
    return single, float(matrix[0].sum())


def _reduced(image: Floats, cell: int, by: Literal["mean", "max", "min"]) -> Floats:
    """Mean, largest or smallest value of each cell: (H, W) to (H / cell, W / cell); of cells below 2 the image."""
    if cell < 2:
        return image
    joined = {"mean": np.add, "max": np.maximum, "min": np.minimum}[by]
    # Slices are several times as quick as a reduction over axes as short as a cell.
    rows = reduce(joined, [image[start::cell] for start in range(cell)])
    cells: Floats = reduce(joined, [rows[:, start::cell] for start in range(cell)])
    return cells / np.float32(cell * cell) if by == "mean" else cells


def _doubled(image: Floats) -> Floats:
    return np.repeat(np.repeat(image, 2, 0), 2, 1)
