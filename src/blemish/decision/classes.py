"""Scores of the classes of regions of an image, and the threshold of each.

An image has one score: the largest of the scores of its classes, each divided by the usual score of the class, which is
measured on images that do not calibrate. So the score is a function that was fixed before the calibration, and one
conformal threshold on it promises the false-reject rate of the whole image (Diquigiovanni, Fontana, Vantini, Journal of
Multivariate Analysis 189, 2022: the supremum of a deviation over a modulation function of the training set).
The threshold of a class is that one times its usual score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat

from blemish.decision.regions import Region

USUAL = 0.9
"""Quantile of the scores of good images that is the usual score of a class: near the threshold, where classes are to
compare, and not decided by one image."""


class MeasuredClass(NamedTuple):
    """A class of regions in one image, before any decision."""

    name: str
    score: float
    """By the recipe's rule, on the places of the class alone."""
    scale: float
    """Usual score of the class."""
    peak: float
    """Largest value of the image's anomaly map in the class; that map is in units of usual scores."""

    @property
    def relative(self) -> float:
        """The score in units of the usual one."""
        return self.score / self.scale


class ClassScore(BaseModel):
    """Score and decision of one class of regions of an image."""

    model_config = ConfigDict(frozen=True)

    name: str
    score: FiniteFloat
    threshold: FiniteFloat
    is_above: bool
    """Whether the score is above the threshold, so that the image is rejected."""
    peak: FiniteFloat
    """Largest value of the anomaly map in the class."""


def class_scores(measured: Sequence[MeasuredClass], threshold: float) -> tuple[ClassScore, ...]:
    """Decision on each class, the one that is furthest above its threshold first.

    ``threshold`` is that of the image's score.

    >>> measured = [MeasuredClass("lid", 2.0, 1.0, 3.0), MeasuredClass("seal", 0.5, 0.2, 4.0)]
    >>> [(one.name, one.threshold, one.is_above) for one in class_scores(measured, 2.0)]
    [('seal', 0.4, True), ('lid', 2.0, False)]
    """
    return tuple(
        ClassScore(
            name=one.name,
            score=one.score,
            threshold=class_threshold(threshold, one.scale),
            is_above=one.relative > threshold,
            peak=one.peak,
        )
        for one in sorted(measured, key=lambda one: -one.relative)
    )


def rejecting_peak(classes: Sequence[ClassScore]) -> float | None:
    """The least of the largest map values of the classes that reject an image; None where none does."""
    return min((one.peak for one in classes if one.is_above), default=None)


def class_threshold(threshold: float, scale: float) -> float:
    """Threshold of a class of the usual score ``scale``: the largest score that is not above ``threshold`` relative to it.

    A score that is the threshold itself stays accepted, also where the product is rounded.

    >>> class_threshold(2.0, 0.2)
    0.4
    """
    found = threshold * scale
    while found / scale > threshold:
        found = math.nextafter(found, -math.inf)
    while math.nextafter(found, math.inf) / scale <= threshold:
        found = math.nextafter(found, math.inf)
    return found


def usual_scores(scores: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Usual score of each class by its scores in good images, (images, classes); above 0.

    >>> usual_scores([[1.0, 20.0], [2.0, 10.0]])
    (1.9, 19.0)
    """
    values = np.quantile(np.array(scores, np.float64), USUAL, axis=0)
    # A class without any deviation in good images: the least one there is to be one that counts.
    least = 1e-3 * float(values.max()) or 1.0
    return tuple(np.maximum(values, least).tolist())


def whole_scores(scores: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Image scores by those of their classes, (images, classes), in units of the usual ones of these images.

    >>> [round(score, 3) for score in whole_scores([[1.0, 20.0], [2.0, 10.0]])]
    [1.053, 1.053]
    """
    relative = np.array(scores, np.float64) / usual_scores(scores)
    return tuple(relative.max(1).tolist())


def with_classes(
    regions: Sequence[Region],
    anomaly_map: NDArray[np.floating],
    labels: NDArray[np.uint8],
    names: Sequence[str],
) -> tuple[Region, ...]:
    """Regions with the class of their strongest pixel, by the numbers (H, W) of the classes from 1."""
    found = []
    for region in regions:
        box = slice(region.y, region.y + region.height), slice(region.x, region.x + region.width)
        place = np.unravel_index(
            int((anomaly_map[box] == region.peak).argmax()), (region.height, region.width)
        )
        number = int(labels[box][place])
        found.append(region.model_copy(update={"region_class": names[number - 1]}) if number else region)
    return tuple(found)
