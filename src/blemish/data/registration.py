"""Registration of one image to another of the same surface: translation or affine map, coarse to fine.

Offsets of windows come from the phase correlation of edges (:mod:`blemish.data.phase_correlation`). A first search goes
over scales and rotations at low resolution where the images do not agree as they are; then windows all over the image,
at each level of resolution, correct the map by least squares without outliers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.affine import resample_affine, scale_of, scaling
from blemish.data.phase_correlation import Array, cross_power, edge_strength, find_offset, find_peak

Motion = Literal["translation", "affine"]
"""Maps that are looked for: the same offset everywhere; or scale, rotation and shear as well."""

SURE, SURE_WINDOW = 20.0, 12.0
"""Confidence of an offset over many windows, and of one window, from which it is believed. Windows of unrelated
surfaces reach 6 to 16."""
COARSE_SIDE, LEVEL_SIDE = 192, 384
_SCALES = np.exp(np.linspace(-math.log(2), math.log(2), 47))
_DEGREES = np.arange(-8, 9, 2)
_LEAST_WINDOWS = 6
_ROUNDS = 4


class Registration(NamedTuple):
    """Result of :func:`register`."""

    matrix: NDArray[np.float64]
    """3 × 3, from places of the reference to places of the moving image, in pixels of each."""
    confidence: float
    """Median confidence of the windows that the map rests on."""
    agreeing: int
    """Number of these windows."""
    windows: int
    """Number of windows that were compared."""
    error: float
    """Root mean square of what the agreeing windows still depart from the map, in pixels of the reference."""

    @property
    def is_sure(self) -> bool:
        """True if enough windows agree on the map."""
        return self.agreeing >= _LEAST_WINDOWS and self.confidence >= SURE_WINDOW


def register(reference: Array, moving: Array, motion: Motion = "affine") -> Registration | None:
    """Find the map from an image to another one of the same surface; None where none is sure.

    Images that show other parts of the surface, or share no edges, have none.

    Parameters
    ----------
    reference: (C, H, W), NaN where absent.
    moving: (c, h, w), of any size.
    motion: kind of map. A translation keeps the scale that the sizes of the two images give, and 1 where their aspect
        ratios differ.

    Examples
    --------
    >>> from scipy import ndimage
    >>> plane = ndimage.gaussian_filter(np.random.default_rng(0).random((1, 300, 300)), (0, 1.5, 1.5))
    >>> found = register(plane[:, 20:276, 20:276], plane[:, 8:264, 13:269], "translation")
    >>> found.matrix[:2, 2].round().tolist(), found.is_sure
    ([7.0, 12.0], True)
    """
    (height, width), (own_height, own_width) = reference.shape[1:], moving.shape[1:]
    start = scaling(own_width / width, own_height / height)
    if abs(own_width * height - own_height * width) > max(width, height) * 2:
        # Of another aspect ratio: pixels of one size, until a search over scales has a better one.
        start = np.eye(3)
    for search in (_translated, _searched) if motion == "affine" else (_translated,):
        found = search(reference, moving, start)
        result = None if found is None else _at_all_levels(reference, moving, found, motion)
        if result is not None and result.is_sure:
            return result
    return None


def window_offsets(
    reference: Array, moving: Array, side: int
) -> Iterator[tuple[float, float, float, float, float]]:
    """Give centre (x, y), offset (dx, dy) and confidence of windows of two images of one size."""
    height, width = reference.shape[1:]
    for top in _spread(height, side):
        for left in _spread(width, side):
            window = (slice(None), slice(top, top + side), slice(left, left + side))
            first, second = edge_strength(reference[window]), edge_strength(moving[window])
            if first is not None and second is not None:
                yield left + side / 2, top + side / 2, *find_offset(first, second)


def common_offset(reference: Array, moving: Array, side: int) -> tuple[float, float, float] | None:
    """Find the offset that all windows of two images of one size share; None where nothing is present."""
    height, width = reference.shape[1:]
    total: NDArray[Any] | None = None
    for top in _spread(height, side):
        for left in _spread(width, side):
            window = (slice(None), slice(top, top + side), slice(left, left + side))
            first, second = edge_strength(reference[window]), edge_strength(moving[window])
            if first is not None and second is not None:
                power = cross_power(first, second)
                total = power if total is None else total + power
    return None if total is None else find_peak(total, (side, side))


def fit_map(
    centres: NDArray[np.float64], targets: NDArray[np.float64], motion: Motion, tolerance: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Fit a map from ``centres`` (n, 2) to ``targets`` (n, 2) by least squares on those that agree with it.

    Returns
    -------
    The 3 × 3 matrix, and which of the points are within ``tolerance`` of it.
    """
    best = np.zeros(len(centres), np.bool_)
    rng = np.random.default_rng(0)
    needed = 1 if motion == "translation" else 3
    for _ in range(200):  # random samples (RANSAC, Fischler and Bolles 1981)
        chosen = rng.choice(len(centres), needed, replace=False)
        agreeing = _residuals(_fitted(centres[chosen], targets[chosen], motion), centres, targets) < tolerance
        if agreeing.sum() > best.sum():
            best = agreeing
    if best.sum() < needed:
        return np.eye(3), best
    for _ in range(3):
        matrix = _fitted(centres[best], targets[best], motion)
        best = _residuals(matrix, centres, targets) < tolerance
        if best.sum() < needed:
            break
    return matrix, best


def _fitted(
    centres: NDArray[np.float64], targets: NDArray[np.float64], motion: Motion
) -> NDArray[np.float64]:
    matrix = np.eye(3)
    if motion == "translation":
        matrix[:2, 2] = (targets - centres).mean(0)
        return matrix
    design = np.column_stack([centres, np.ones(len(centres))])
    matrix[:2] = np.linalg.lstsq(design, targets, rcond=None)[0].T
    return matrix


def _residuals(
    matrix: NDArray[np.float64], centres: NDArray[np.float64], targets: NDArray[np.float64]
) -> NDArray[np.float64]:
    predicted = centres @ matrix[:2, :2].T + matrix[:2, 2]
    distances: NDArray[np.float64] = np.hypot(*(predicted - targets).T)
    return distances


def _at_all_levels(
    reference: Array, moving: Array, found: NDArray[np.float64], motion: Motion
) -> Registration | None:
    result = None
    scale = scale_of(found)
    for side in _levels(max(reference.shape[1:])):
        refined = _refined(*_reduced(reference, side), *_reduced(moving, side * scale), found, motion)
        if refined is not None:
            result, found = refined, refined.matrix
    return result


def _translated(reference: Array, moving: Array, start: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The start with the offset of the whole images at low resolution; None where it is not sure."""
    small, shrink = _reduced(reference, LEVEL_SIDE)
    warped = _warped(*_reduced(moving, LEVEL_SIDE * scale_of(start)), small, shrink, start)
    offset = _whole_offset(small, warped)
    if offset is None or offset[2] < SURE:
        return None
    return start @ _moved(offset[0] / shrink, offset[1] / shrink)


def _searched(reference: Array, moving: Array, start: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The best of many scales and rotations at low resolution; None where none is sure."""
    small, shrink = _reduced(reference, COARSE_SIDE)
    other, other_shrink = _reduced(moving, COARSE_SIDE * scale_of(start))
    centre = np.array([small.shape[2] / 2 / shrink, small.shape[1] / 2 / shrink, 1])
    own_centre = np.array([moving.shape[2] / 2, moving.shape[1] / 2])
    best, confidence = None, SURE / 2
    for scale in _SCALES:
        for degrees in _DEGREES:
            angle = math.radians(degrees)
            turned = np.eye(3)
            turned[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            candidate = start @ scaling(scale, scale) @ turned
            candidate[:2, 2] += own_centre - (candidate @ centre)[:2]
            offset = _whole_offset(small, _warped(other, other_shrink, small, shrink, candidate))
            if offset is not None and offset[2] > confidence:
                confidence = offset[2]
                best = candidate @ _moved(offset[0] / shrink, offset[1] / shrink)
    return best


def _refined(
    small: Array,
    shrink: float,
    other: Array,
    other_shrink: float,
    found: NDArray[np.float64],
    motion: Motion,
) -> Registration | None:
    """The map corrected by windows of the images at one level of resolution."""
    side = max(32, min(128, 2 ** int(math.log2(min(small.shape[1:]) / 4))))
    result = None
    for _ in range(_ROUNDS):
        warped = _warped(other, other_shrink, small, shrink, found)
        measured = np.array(list(window_offsets(small, warped, side))).reshape(-1, 5)
        sure = measured[measured[:, 4] >= SURE_WINDOW]
        if len(sure) < _LEAST_WINDOWS:
            return result
        centres = sure[:, :2] / shrink
        # The window shows at its centre what the other one shows at centre + offset.
        matrix, agreeing = fit_map(centres, centres + sure[:, 2:4] / shrink, motion, 1.5 / shrink)
        if agreeing.sum() < _LEAST_WINDOWS:
            return result
        residuals = _residuals(matrix, centres[agreeing], centres[agreeing] + sure[agreeing, 2:4] / shrink)
        found = found @ matrix
        result = Registration(
            found,
            float(np.median(sure[agreeing, 4])),
            int(agreeing.sum()),
            len(measured),
            float(np.sqrt((residuals**2).mean())),
        )
    return result


def _whole_offset(first: Array, second: Array) -> tuple[float, float, float] | None:
    there: NDArray[np.bool_] = np.asarray(np.isfinite(second).all(0))
    if there.mean() < 0.2:
        return None
    filled = np.where(there, second, second[:, there].mean(1)[:, None, None])
    edges = edge_strength(first), edge_strength(filled)
    if edges[0] is None or edges[1] is None:
        return None
    within = ndimage.binary_erosion(there, iterations=4, border_value=1)
    return find_offset(edges[0], edges[1] * within, 0.45)


def _warped(
    other: Array, other_shrink: float, small: Array, shrink: float, matrix: NDArray[np.float64]
) -> Array:
    """The reduced moving image on the pixels of the reduced reference."""
    through = scaling(other_shrink, other_shrink) @ matrix @ scaling(1 / shrink, 1 / shrink)
    size = (other.shape[1], other.shape[2])

    def read(top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        return np.asarray(other[:, top : top + height, left : left + width], np.float32)

    return resample_affine(read, size, len(other), through, (0, 0, small.shape[1], small.shape[2]))


def _moved(dx: float, dy: float) -> NDArray[np.float64]:
    matrix = np.eye(3)
    matrix[:2, 2] = dx, dy
    return matrix


def _reduced(pixels: Array, side: float) -> tuple[Array, float]:
    """The image by means over whole steps, so that its longer side is at least ``side``, and reduced pixels for each."""
    step = max(1, int(max(pixels.shape[1:]) / side))
    height, width = (length // step for length in pixels.shape[1:])
    cut = pixels[:, : height * step, : width * step]
    return cut.reshape(len(pixels), height, step, width, step).mean((2, 4)), 1 / step


def _levels(longest: int) -> Sequence[int]:
    """Longer sides of the levels of resolution, from coarse to the full one."""
    sides = [LEVEL_SIDE]
    while sides[-1] * 2 < longest:
        sides.append(sides[-1] * 2)
    return [*(side for side in sides if side < longest), longest]


def _spread(length: int, side: int) -> list[int]:
    """Starts of windows from one end to the other, about a window apart and at most eight."""
    last = max(0, length - side)
    count = min(8, max(2, round(length / side) + 1)) if last else 1
    return sorted({round(last * number / max(1, count - 1)) for number in range(count)})
