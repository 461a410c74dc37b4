"""Image scores: one number for an anomaly map.

Each score reduces in double precision, so that the same map gives the same number whatever machine,
batch or runtime computed it.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from blemish.errors import RecipeError

Score = Literal["mean", "max", "top-quantile", "smoothed-max", "multi-scale-max"]
SCORES: tuple[str, ...] = get_args(Score)
OCTAVES = (1, 2, 4)
"""Factors of ``sigma`` at which ``multi-scale-max`` smooths."""


def image_score(residual_map: ArrayLike, *, kind: str, quantile: float = 0.99, sigma: float = 4.0) -> float:
    """Reduce an anomaly map to the score of its image; larger means more anomalous.

    ``residual_map`` has shape (H, W), values >= 0. The kinds are

    - ``mean``: the mean residual, the reconstruction error of the papers;
    - ``max``: the largest residual;
    - ``top-quantile``: the mean of the values at or above the ``quantile`` of the map;
    - ``smoothed-max``: the largest value after a Gaussian of standard deviation ``sigma`` pixels, with the
      map mirrored at its border. It responds to a defect of some size, ``max`` to single pixels;
    - ``multi-scale-max``: the geometric mean of ``smoothed-max`` at ``sigma``, twice and four times that, so
      that no scale counts more because its values are larger.

    Raises RecipeError for an unknown kind or a setting out of range, ValueError for a map that is empty, not
    two-dimensional or not finite.

    >>> image_score([[0.0, 1.0], [2.0, 5.0]], kind="mean")
    2.0
    >>> image_score([[0.0, 1.0], [2.0, 5.0]], kind="top-quantile", quantile=0.5)
    3.5
    """
    values = np.asarray(residual_map, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"an anomaly map has shape (H, W) and at least one pixel, not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("the anomaly map holds values that are not finite")
    if kind == "mean":
        return float(values.mean())
    if kind == "max":
        return float(values.max())
    if kind == "top-quantile":
        if not 0 <= quantile <= 1:
            raise RecipeError(f"score quantile {quantile} is out of range; give a number from 0 to 1")
        # "higher" is a value of the map itself, so at least one pixel is always at or above it.
        level = np.quantile(values, quantile, method="higher")
        return float(values[values >= level].mean())
    if kind == "smoothed-max":
        if not sigma > 0:
            raise RecipeError(f"score sigma {sigma} is out of range; give a number of pixels above 0")
        return _smoothed_max(values, sigma)
    if kind == "multi-scale-max":
        if not sigma > 0:
            raise RecipeError(f"score sigma {sigma} is out of range; give a number of pixels above 0")
        maxima = [_smoothed_max(values, factor * sigma) for factor in OCTAVES]
        return float(math.prod(max(one, 0.0) ** (1 / len(OCTAVES)) for one in maxima))
    raise RecipeError(f"unknown score '{kind}'; choose one of {', '.join(SCORES)}")


def _smoothed_max(values: NDArray[np.float64], sigma: float) -> float:
    return float(ndimage.gaussian_filter(values, sigma, mode="reflect").max())
