"""The record of an inspection: one JSON line an image, in ``inspections.jsonl``.

Records are appended as images are finished, so that an inspection that is stopped keeps what it has done.
"""

from __future__ import annotations

from pathlib import Path

from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, FiniteFloat

from blemish.decision.classes import ClassScore, rejecting_peak
from blemish.decision.regions import Region, region_threshold
from blemish.storage.records_log import read_log


class Inspection(BaseModel):
    """Inspection of one image: its score, decision and regions.

    ``path`` is the image's name relative to the inspected folder, ``size`` its (width, height) in pixels,
    ``time`` the moment in UTC as ISO 8601, ``seconds`` the latency; ``label`` is None without labels. Numbers
    must be finite; they survive writing and reading unchanged to the last bit.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    size: tuple[int, int]
    score: FiniteFloat
    threshold: FiniteFloat
    p_value: FiniteFloat
    is_anomalous: bool
    regions: tuple[Region, ...]
    time: str
    seconds: FiniteFloat
    label: str | None = None
    other_kind: str | None = None
    """By what the image is of another kind than the good ones, so that it is rejected whatever its score."""
    classes: tuple[ClassScore, ...] = ()
    """Classes of regions with their scores and thresholds, the one that is furthest above its own first."""
    sha256: str | None = None
    """SHA-256 of the image file, or of the files of a scene; None in records of version 0.1 and earlier."""

    def region_threshold(self, anomaly_map: ArrayLike, pixel_threshold: float) -> float:
        """Value of the anomaly map (H, W) of this image above which pixels form its regions."""
        return region_threshold(
            anomaly_map,
            pixel_threshold,
            is_anomalous=self.score > self.threshold,
            peak=rejecting_peak(self.classes),
        )


def read_records(path: str | Path) -> list[Inspection]:
    """All records of the file, in the order they were written.

    A last line that was cut off, as a kill leaves it, is passed over. Raises FileError for a file that cannot
    be read or that holds any other line that is no record.
    """
    return read_log(
        path,
        Inspection,
        missing="name the inspections.jsonl that inspect wrote",
        remedy="delete the line, or inspect again",
    )
