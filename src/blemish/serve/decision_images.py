"""Images and anomaly maps of decisions, from memory or from the disk."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blemish.data.image import LoadedImage
from blemish.serve.contracts import Frame, StoredDecision
from blemish.serve.decode import decode
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
    """

    def __init__(self, recent: RecentImages, *, max_pixels: int) -> None:
        self._recent, self._max_pixels = recent, max_pixels

    def find(self, decision: StoredDecision) -> DecisionImage | None:
        """Image and map of a decision; None where they are not kept."""
        recent = self._recent.get(decision.id)
        return None if recent is None else DecisionImage(recent.frame, recent.map)

    def content(self, decision: StoredDecision) -> bytes | None:
        """Image file of a decision, a camera's array as PNG; None where it is not kept."""
        found = self.find(decision)
        if found is None:
            return None
        if isinstance(found.frame.image, bytes):
            return found.frame.image
        file = io.BytesIO()
        Image.fromarray(found.frame.image).save(file, format="PNG")
        return file.getvalue()

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
            return decode(frame, channels=channels, max_pixels=self._max_pixels, spool=spool)
