"""Images and anomaly maps of decisions, from memory or from the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from blemish.data.appearance import stretched
from blemish.data.image import LoadedImage
from blemish.data.maps import encode_map, stored_values
from blemish.decision.classes import rejecting_peak
from blemish.decision.regions import region_threshold
from blemish.errors import BlemishError
from blemish.report import overlay
from blemish.serve.contracts import Frame, StoredDecision
from blemish.serve.decode import decode
from blemish.serve.history import KeptImages
from blemish.serve.history.kept_images import full_scale
from blemish.serve.recent_images import RecentImages
from blemish.storage.leftovers import temporary_folder

COLOUR = 3


@dataclass(frozen=True)
class DecisionImage:
    """The image of a decision with its anomaly map (H, W)."""

    frame: Frame
    map: NDArray[np.float32]


class DecisionImages:
    """Finds the images of decisions.

    Parameters
    ----------
    recent: those in memory.
    max_pixels: of an image that is decoded.
    kept: those on the disk.
    brightness: factor by which the images of a model are brightened where people look at them.
    """

    def __init__(
        self,
        recent: RecentImages,
        *,
        max_pixels: int,
        kept: KeptImages,
        brightness: Callable[[str], float] = lambda model: 1.0,
    ) -> None:
        self._recent, self._max_pixels, self._kept = recent, max_pixels, kept
        self._brightness = brightness

    def find(self, decision: StoredDecision) -> DecisionImage | None:
        """Image and map of a decision; None where they are not kept.

        The map has the values of its file, from the memory too, so that an overlay is the same after a restart.
        """
        recent = self._recent.get(decision.id)
        if recent is not None:
            return DecisionImage(recent.frame, stored_values(recent.map, full_scale=full_scale(decision)))
        if not decision.kept:
            return None
        content, anomaly_map = self._kept.read(decision)
        if content is None or anomaly_map is None:
            return None
        return DecisionImage(Frame(content, decision.name, decision.source), anomaly_map)

    def content(self, decision: StoredDecision) -> bytes | None:
        """Image file of a decision, a camera's array as PNG; None where it is not kept."""
        found = self.find(decision)
        if found is None:
            return None
        return found.frame.image if isinstance(found.frame.image, bytes) else _png(found.frame.image)

    def map_file(self, decision: StoredDecision) -> bytes | None:
        """The map of a decision as a PNG of 16 bits with its scale (:func:`~blemish.data.maps.read_map`)."""
        kept = self._kept.map(decision) if decision.kept else None
        if kept is not None:
            return kept.read_bytes()
        found = self.find(decision)
        if found is None:
            return None
        return encode_map(found.map, full_scale=full_scale(decision))

    def overlay(self, decision: StoredDecision) -> bytes | None:
        """Image with heat and boxes where the map is above the threshold of regions, as PNG at the image's size.

        Raises
        ------
        ImageError
            When its file is damaged.
        """
        found = self.find(decision)
        if found is None:
            return None
        return _png(
            overlay(
                self.shown(decision, found.frame),
                found.map,
                self.level(decision, found.map),
                decision.regions,
            )
        )

    def shown(self, decision: StoredDecision, frame: Frame) -> NDArray[Any]:
        """Pixels (C, H, W) of the image of a decision as people look at it: brightened where its model's images are dark."""
        return stretched(self.decoded(frame).pixels, self._brightness(decision.model))

    @staticmethod
    def level(decision: StoredDecision, anomaly_map: NDArray[np.float32]) -> float:
        """Value of the map of a decision above which it forms regions."""
        return region_threshold(
            anomaly_map,
            decision.pixel_threshold,
            is_anomalous=decision.score > decision.threshold,
            peak=rejecting_peak(decision.classes),
        )

    def files(self, decision: StoredDecision) -> tuple[bytes | None, bytes | None]:
        """Image file and overlay of a decision for sinks, as far as they are still there."""
        content = self.content(decision)
        try:
            return content, self.overlay(decision)
        except (BlemishError, OSError):
            return content, None

    def loaded(self, decision: StoredDecision, channels: int) -> LoadedImage | None:
        """Image of a decision, decoded for a model of so many channels; None where it is not kept.

        Raises
        ------
        ImageError
            When its file is damaged.
        """
        found = self.find(decision)
        return None if found is None else self.decoded(found.frame, channels)

    def decoded(self, frame: Frame, channels: int | None = None) -> LoadedImage:
        """A frame decoded, as the service decodes it; without a model in the channels that it has."""
        if channels is None:
            channels = 1 if not isinstance(frame.image, bytes) and frame.image.ndim == 2 else COLOUR
        with temporary_folder() as spool:
            return decode(frame, channels=channels, max_pixels=self._max_pixels, spool=Path(spool))


def _png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))  # of 16 bits in colour, too
