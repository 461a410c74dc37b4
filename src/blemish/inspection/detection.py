"""Results of an inspection of one image."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blemish.data.appearance import stretched
from blemish.data.image import LoadedImage
from blemish.decision import Inspection, Region, region_mask
from blemish.decision.classes import ClassScore, MeasuredClass


class ScoredImage(NamedTuple):
    """Score of an image before any decision; arrays at the image's own size."""

    score: float
    map: NDArray[np.float32]
    """(H, W), at least 0."""
    planes: Callable[[], Iterator[NDArray[np.float32]]] | None
    """Gives the planes (H, W) of the reconstruction in [0, 1]; None of a model that reconstructs nothing."""
    other_kind: str | None = None
    """By what the image is of another kind than the good ones; None of one that is of their kind."""
    classes: tuple[MeasuredClass, ...] = ()
    """Classes of regions, in the order of the model; none of a model without."""

    @property
    def reconstruction(self) -> NDArray[np.float32] | None:
        """(C, H, W) in [0, 1]; None of a model that reconstructs nothing."""
        return None if self.planes is None else np.stack(list(self.planes()))


@dataclass(frozen=True)
class Detection:
    """Decision on one image, with its anomaly map and regions; arrays at the image's own size."""

    name: str
    size: tuple[int, int]
    """(width, height)."""
    score: float
    threshold: float
    p_value: float
    is_anomalous: bool
    """Whether it is rejected: its score is above the threshold, or it is of another kind."""
    map: NDArray[np.float32]
    """Anomaly map (H, W), at least 0; larger is less like the good images."""
    pixel_threshold: float
    """Pixel threshold of the detector, the same for every image."""
    region_threshold: float
    """Map value above which a pixel belongs to a region: no pixel of an accepted image, at least the strongest place of
    a rejected one."""
    regions: tuple[Region, ...]
    loaded: LoadedImage
    """The image as it was read."""
    planes: Callable[[], Iterator[NDArray[np.float32]]] | None
    """Gives the planes (H, W) of the reconstruction in [0, 1]; None of a model that reconstructs nothing."""
    seconds: float
    other_kind: str | None = None
    """By what the image is of another kind than the good ones; None of one that is of their kind."""
    classes: tuple[ClassScore, ...] = ()
    """Score and threshold of each class of regions, the one that is furthest above its threshold first; none of a model
    without classes. The image's score is the largest of theirs in units of their usual scores, and so is the map."""
    brightness: float = 1.0
    """Factor by which the image is brightened where people look at it, as reports do with values of 10 or 12 bits."""

    def __repr__(self) -> str:
        regions = f"{len(self.regions)} region{'s' * (len(self.regions) != 1)}"
        return (
            f"Detection({self.name!r}, {self.size[0]} × {self.size[1]} pixels, score {self.score:.4g}, "
            f"threshold {self.threshold:.4g}, p = {self.p_value:.3g}, "
            f"{'rejected' if self.is_anomalous else 'accepted'}"
            f"{' as of another kind' if self.other_kind is not None else ''}"
            f"{f' by class {self.classes[0].name!r}' if self.classes and self.classes[0].is_above else ''}, {regions})"
        )

    def _repr_html_(self) -> str:
        """Card for notebooks: the decision in words, the image, and its anomaly map over it."""
        from blemish.report.notebook import detection_card
        from blemish.report.views import ImageViews

        shown = ImageViews(stretched(self.loaded.pixels, self.brightness), None, self.map)
        return detection_card(self.record(), shown, self.pixel_threshold, self.region_threshold)

    @property
    def image(self) -> NDArray[np.float32]:
        """(C, H, W) as read, in [0, 1]."""
        return self.loaded.floats()

    @property
    def reconstruction(self) -> NDArray[np.float32] | None:
        """(C, H, W) in [0, 1]; None of a model that reconstructs nothing."""
        return None if self.planes is None else np.stack(list(self.planes()))

    @property
    def level(self) -> float:
        """The former name of :attr:`pixel_threshold`."""
        _warn_of("level", "pixel_threshold")
        return self.pixel_threshold

    @property
    def picture(self) -> NDArray[np.float32]:
        """The former name of :attr:`image`."""
        _warn_of("picture", "image")
        return self.image

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W), True inside the regions."""
        return region_mask(self.map, self.region_threshold)

    def record(self, label: str | None = None, sha256: str | None = None) -> Inspection:
        """The line of this image in ``inspections.jsonl``, with the SHA-256 of its file."""
        return Inspection(
            path=self.name,
            size=self.size,
            score=self.score,
            threshold=self.threshold,
            p_value=self.p_value,
            is_anomalous=self.is_anomalous,
            regions=self.regions,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=self.seconds,
            label=label,
            other_kind=self.other_kind,
            classes=self.classes,
            sha256=sha256,
        )


def _warn_of(former: str, now: str) -> None:
    warnings.warn(
        f"Detection.{former} is now Detection.{now}; the old name goes with the next release",
        FutureWarning,
        stacklevel=3,
    )
