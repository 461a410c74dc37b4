"""Scores of one part of the data, and the unit that they are measured on."""

from __future__ import annotations

from typing import NamedTuple


class PartScores(NamedTuple):
    """Scores and map maxima of one part of the data."""

    scores: tuple[float, ...]
    map_maxima: tuple[float, ...]
    """Maximum of the anomaly map of each image or square."""


class CalibrationUnit(NamedTuple):
    """Unit that one calibration score is measured on; independent images by default."""

    square: int | None = None
    """Side in pixels, of squares of scenes."""
    groups: int | None = None
    """Number of groups of the images, where several images are of one."""
