"""Images that sinks deliver: the kept file, and an overlay drawn of it and its anomaly map."""

from __future__ import annotations

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from blemish.decision.classes import rejecting_peak
from blemish.decision.regions import region_threshold
from blemish.errors import BlemishError
from blemish.report.colours import overlay
from blemish.serve.contracts import Frame, StoredDecision
from blemish.serve.decode import decode
from blemish.serve.history import KeptImages
from blemish.serve.recent_images import RecentImages
from blemish.storage.leftovers import temporary_folder


class DeliveredImages:
    """Finds image and overlay of a decision, in memory or among the kept images.

    Parameters
    ----------
    max_pixels: of an image that is decoded.
    """

    def __init__(self, kept: KeptImages, recent: RecentImages, *, max_pixels: int) -> None:
        self._kept, self._recent, self._max_pixels = kept, recent, max_pixels

    def files(self, decision: StoredDecision) -> tuple[bytes | None, bytes | None]:
        """Image file, PNG of a camera's array, and overlay in PNG; None for what is not kept, or no longer."""
        found = self._recent.get(decision.id)
        content: bytes | None
        values: NDArray[np.float32] | None
        if found is not None:
            image = found.frame.image
            content = image if isinstance(image, bytes) else bytes(imagecodecs.png_encode(image))
            values = found.map
        else:
            content, values = self._kept.read(decision)
        if content is None or values is None:
            return content, None
        return content, self._overlay(decision, content, values)

    def _overlay(self, decision: StoredDecision, content: bytes, values: NDArray[np.float32]) -> bytes | None:
        try:
            with temporary_folder() as spool:
                frame = Frame(content, decision.name)
                image = decode(frame, channels=3, max_pixels=self._max_pixels, spool=spool)
        except (BlemishError, OSError):
            return None  # the image itself is delivered as it is
        peak = rejecting_peak(decision.classes)
        is_above = decision.score > decision.threshold
        level = region_threshold(values, decision.pixel_threshold, is_anomalous=is_above, peak=peak)
        return bytes(
            imagecodecs.png_encode(
                np.ascontiguousarray(overlay(image.pixels, values, level, decision.regions))
            )
        )
