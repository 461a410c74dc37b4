"""Places of a preprocessed image that lie outside the image: NaN in every channel.

What is not in the image is absent: it is not scored, and no statistic of good images knows it. What has to be computed
on a whole rectangle nevertheless, such as a convolution, sees the nearest pixel of the image there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def inside_places(x: NDArray[np.floating]) -> Mask | None:
    """Mask (h, w) of the places of ``x`` (..., h, w) that lie inside the image; None where all do.

    Values that are absent in some channels only stay for the model to take or to refuse.

    >>> inside_places(np.array([[[0.0, np.nan]], [[1.0, np.nan]]])).tolist()
    [[True, False]]
    """
    is_absent = np.isnan(x).reshape(-1, *x.shape[-2:]).all(0)
    return ~is_absent if is_absent.any() else None


def filled(x: NDArray[np.float32], inside: Mask | None) -> NDArray[np.float32]:
    """``x`` (..., h, w) with the values of the nearest place inside at the other places; 0 where none is inside.

    >>> filled(np.array([[1.0, np.nan, np.nan]], np.float32), np.array([[True, False, False]])).tolist()
    [[1.0, 1.0, 1.0]]
    """
    if inside is None:
        return x
    if not inside.any():
        return np.zeros_like(x)
    rows, columns = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return np.ascontiguousarray(x[..., rows, columns])


def absent_outside(x: NDArray[np.float32], inside: Mask | None) -> NDArray[np.float32]:
    """``x`` (..., h, w) with NaN at the places that are not ``inside``."""
    return x if inside is None else np.where(inside, x, np.float32(np.nan))


def zero_outside(anomaly_map: NDArray[np.float32], inside: Mask | None) -> NDArray[np.float32]:
    """An anomaly map (h, w) with 0, its least value, at the places that are not ``inside``."""
    return anomaly_map if inside is None else np.where(inside, anomaly_map, np.float32(0))


def resized_mask(inside: Mask, size: tuple[int, int]) -> Mask:
    """``inside`` (h, w) at ``size`` (height, width): what the middle of each new place lies in.

    >>> resized_mask(np.array([[True, True, False, False]]), (1, 2)).tolist()
    [[True, False]]
    """
    rows, columns = (
        ((np.arange(to) + 0.5) * of / to).astype(int) for of, to in zip(inside.shape, size, strict=True)
    )
    return np.asarray(inside[np.ix_(rows, columns)])


def mask_at(inside: Mask, stride: int, offset: int, size: tuple[int, int]) -> Mask:
    """``inside`` (h, w) at places ``stride`` pixels apart, the first at ``offset``: (rows, columns) of ``size``."""
    rows, columns = (
        np.minimum(offset + stride * np.arange(to), of - 1) for of, to in zip(inside.shape, size, strict=True)
    )
    return np.asarray(inside[np.ix_(rows, columns)])
