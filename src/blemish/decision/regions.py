"""Regions of an image: connected pixels whose anomaly map is above the pixel threshold.

Take as pixel threshold the conformal threshold of the largest map value of each calibration image: the
maximum of its map is above it on at most the promised share of good images. :func:`region_threshold` makes regions agree
with the decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

_STRONGEST = 0.9
"""Share of the largest value from which on pixels are the strongest place of a rejected image."""
EIGHT_CONNECTED = np.ones((3, 3), dtype=np.int8)


class Region(BaseModel):
    """One connected region: its box and area in pixels of the image, the largest and mean value of its map.

    The box covers columns ``x`` to ``x + width − 1`` and rows ``y`` to ``y + height − 1``.
    """

    model_config = ConfigDict(frozen=True)

    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float
    mean: float
    region_class: str | None = None
    """Class of regions at its strongest pixel; None of a model without classes."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return ((key, value) for key, value in super().__repr_args__() if key != "region_class" or value)


def find_regions(anomaly_map: ArrayLike, pixel_threshold: float) -> tuple[Region, ...]:
    """Find the 8-connected regions where the anomaly map is above ``pixel_threshold``.

    ``anomaly_map`` has shape (H, W). Regions come by falling peak; equal peaks by falling area, then from
    top to bottom and left to right.

    >>> find_regions([[0, 0, 3], [0, 2, 0], [0, 0, 0]], pixel_threshold=1)
    (Region(x=1, y=0, width=2, height=2, area=2, peak=3.0, mean=2.5),)
    """
    values = _map(anomaly_map)
    above = _above(values, pixel_threshold)
    if not above.any():
        return ()
    labels, _ = ndimage.label(above, structure=EIGHT_CONNECTED)
    regions = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = values[box][labels[box] == label].astype(np.float64)
        rows, columns = box
        regions.append(
            Region(
                x=columns.start,
                y=rows.start,
                width=columns.stop - columns.start,
                height=rows.stop - rows.start,
                area=inside.size,
                peak=float(inside.max()),
                mean=float(inside.mean()),
            )
        )
    return tuple(sorted(regions, key=lambda region: (-region.peak, -region.area, region.y, region.x)))


def region_threshold(
    anomaly_map: ArrayLike, pixel_threshold: float, *, is_anomalous: bool, peak: float | None = None
) -> float:
    """Map value above which pixels form the regions of a decision, so that both say the same.

    An accepted image shows no region, a rejected one at least its strongest place: pixel threshold and threshold are
    calibrated on other figures of the maps, and need not agree on every image. ``peak`` is the largest value where a
    rejected image is to show a region, in place of that of the whole map: in the class of regions that rejects it.

    >>> anomaly_map = [[0, 0, 4], [0, 2, 0]]
    >>> region_threshold(anomaly_map, 3, is_anomalous=True), region_threshold(anomaly_map, 3, is_anomalous=False)
    (3.0, 4.0)
    >>> round(region_threshold(anomaly_map, 5, is_anomalous=True), 3)
    3.6
    """
    largest = float(_map(anomaly_map).max())
    if not is_anomalous:
        return max(float(pixel_threshold), largest)
    return min(float(pixel_threshold), _STRONGEST * (peak if peak is not None and peak > 0 else largest))


def region_mask(anomaly_map: ArrayLike, pixel_threshold: float) -> NDArray[np.bool_]:
    """Mask, boolean (H, W), of the regions that ``find_regions`` gives for the same arguments.

    >>> region_mask([[0, 0, 3], [2, 0, 0], [2, 0, 0]], pixel_threshold=1).astype(int).tolist()
    [[0, 0, 1], [1, 0, 0], [1, 0, 0]]
    """
    return _above(_map(anomaly_map), pixel_threshold)


def _above(values: NDArray[np.floating[Any]], pixel_threshold: float) -> NDArray[np.bool_]:
    # Compared in float64, as scores are, whatever the type of the map.
    return np.asarray(values > np.float64(pixel_threshold), dtype=np.bool_)


def _map(anomaly_map: ArrayLike) -> NDArray[np.floating[Any]]:
    values = np.asarray(anomaly_map)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    if values.ndim != 2:
        raise ValueError(f"an anomaly map has shape (H, W), not {values.shape}")
    return values
