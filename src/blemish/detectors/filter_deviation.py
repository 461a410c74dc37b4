"""Filter bank: an anomaly model of classical filters, each in spreads of good images at its place.

It is what a user could have for free, so it is a member of the default detector and not only a row of its tables: on
stochastic surfaces with thin lines it finds more than memory bank and network do.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from blemish.detectors.contracts import AnomalyMaps, Floats
from blemish.detectors.filter_responses import CELL, LEAST_SIDE, Illumination, filter_responses
from blemish.detectors.map_arrays import axis_matrix, resized_array, separable
from blemish.errors import TooSmallError, UsageError
from blemish.preprocessing.absent import absent_outside, filled, inside_places, mask_at, zero_outside

ILLUMINATIONS: tuple[Illumination, ...] = ("log", "local")


class FilterDeviation:
    """Anomaly model: at each place the largest deviation of any filter from good images, in their spread.

    The responses are :func:`~blemish.detectors.filter_responses.filter_responses`, once of the logarithm of
    brightness and once of the image without slow changes of brightness; the map is the mean of both.
    """

    takes_absent = False
    is_normalised = True
    keeps_good_images = True
    sees_areas = True
    title = "deviation of classical filters"

    @property
    @abstractmethod
    def reference(self) -> tuple[Floats, Floats]:
        """Mean and spread (2, k, h, w) of the responses of good images; empty before they are measured."""

    @property
    def is_empty(self) -> bool:
        """True before the good images are measured."""
        return self.reference[0].size == 0

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        """The whole image, because responses are in units of its contrast."""
        _check_size(*size)
        return slice(0, size[0]), slice(0, size[1])

    def maps(self, x: Floats, *, hidden: Sequence[slice] = ()) -> AnomalyMaps:
        """As :meth:`~blemish.detectors.contracts.AnomalyModel.maps`."""
        _check_size(*x.shape[1:])
        inside = inside_places(x)
        if np.isnan(filled(x, inside)).any():
            raise UsageError(
                "the image has absent values (NaN), which filters cannot take; use fp-cae-add, fp-cae-concat or "
                "fp-cae, or fill them"
            )
        if self.is_empty:
            raise UsageError("the filters know no good images; fit them first")
        responses = responses_of(x)  # (2, k, h, w)
        mean, spread = (
            resized_array(part, (responses.shape[2], responses.shape[3])) for part in self.reference
        )
        deviation = largest_deviation(responses, mean, spread)
        deviation = filled(deviation, inside_places(deviation))
        return AnomalyMaps(zero_outside(_at_pixels(deviation, x.shape[1:]), inside), None)


def responses_of(x: Floats) -> Floats:
    """Responses of an image (C, H, W) under each illumination: (2, k, h, w); NaN in cells outside the image."""
    inside = inside_places(x)
    x = filled(x, inside)
    responses = np.stack([filter_responses(x, illumination, inside) for illumination in ILLUMINATIONS])
    if inside is None:
        return responses
    size = (responses.shape[2], responses.shape[3])
    return absent_outside(responses, mask_at(inside, CELL, CELL // 2, size))


def largest_deviation(responses: Floats, mean: Floats, spread: Floats) -> Floats:
    """Largest deviation of any filter, and of that the mean over the illuminations: (2, k, h, w) to (h, w)."""
    deviation: Floats = np.abs((responses - mean) / spread).max(1).mean(0)
    return deviation


def _check_size(height: int, width: int) -> None:
    if min(height, width) < LEAST_SIDE:
        raise TooSmallError((height, width), LEAST_SIDE, "for the filters")


def _at_pixels(values: Floats, shape: tuple[int, ...]) -> Floats:
    """Values (h, w) of cells at each pixel of an image (H, W), whose last rows and columns no cell may cover."""
    rows, columns = (
        np.pad(axis_matrix(count, CELL * count), ((0, side - CELL * count), (0, 0)), mode="edge")
        for count, side in zip(values.shape, shape, strict=True)
    )
    return separable(values, rows, columns)
