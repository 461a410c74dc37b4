"""Images of the last decisions in memory, for the page and for answers; the history keeps others by its rule."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blemish.inspection.detection import Detection
from blemish.serve.contracts import Frame, StoredDecision

COUNT, BYTES = 64, 128 * 2**20


@dataclass(frozen=True)
class RecentImage:
    """A frame with its anomaly map (H, W)."""

    frame: Frame
    map: NDArray[np.float32]

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        image = self.frame.image
        return self.map.nbytes + (len(image) if isinstance(image, bytes) else image.nbytes)


class RecentImages:
    """The last images by the numbers of their decisions; at most :data:`COUNT`, and at most :data:`BYTES` in all."""

    def __init__(self, count: int = COUNT, size: int = BYTES) -> None:
        self._count, self._size = count, size
        self._lock = threading.Lock()
        self._images: OrderedDict[int, RecentImage] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._images)

    def add(self, decision: StoredDecision, frame: Frame, detection: Detection) -> None:
        """Take an image in, and let go of the oldest ones."""
        added = RecentImage(frame, detection.map)
        with self._lock:
            former = self._images.pop(decision.id, None)
            self._bytes += added.bytes - (former.bytes if former else 0)
            self._images[decision.id] = added
            while self._images and (len(self._images) > self._count or self._bytes > self._size):
                self._bytes -= self._images.popitem(last=False)[1].bytes

    def get(self, number: int) -> RecentImage | None:
        """The image of the decision ``number``; None once it is gone."""
        with self._lock:
            return self._images.get(number)
