"""Contracts of the server: the frame that comes in, the decision that is stored, and what sources and sinks are."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from blemish.decision.classes import ClassScore
from blemish.decision.regions import Region


def utc_now() -> datetime:
    """The time of the machine's clock in UTC."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Frame:
    """One image on its way to a decision.

    Parameters
    ----------
    image: content of an image file, or an array (H, W) or (H, W, 3) of uint8 or uint16 in RGB order, as cameras give it.
    name: what people call it; never a path to open.
    source: name of the source on the line, or ``api``.
    request: number of the request or the frame, unique; the history stores it once. A source that may give an image
        twice, as after a kill, gives it the same number both times.
    """

    image: bytes | NDArray[np.uint8] | NDArray[np.uint16]
    name: str
    source: str = "api"
    taken: datetime = field(default_factory=utc_now)
    request: str = field(default_factory=lambda: uuid.uuid4().hex)

    def sha256(self) -> str:
        """SHA-256 of the file's content; of an array, of its shape, type and values."""
        if isinstance(self.image, bytes):
            return hashlib.sha256(self.image).hexdigest()
        head = f"{self.image.shape} {self.image.dtype}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.image).tobytes()).hexdigest()


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NewDecision(_Row):
    """Decision on one image, before the history gives it a number."""

    request: str
    """Number of the request or the frame, unique; storing it twice stores it once."""
    time: datetime
    """When it was decided, by the machine's clock, in UTC."""
    model: str
    """Name of the model on the line."""
    model_sha256: str
    """SHA-256 of the weights."""
    source: str
    name: str
    image_sha256: str
    size: tuple[int, int]
    """(width, height) in pixels."""
    score: FiniteFloat
    threshold: FiniteFloat
    pixel_threshold: FiniteFloat
    p_value: FiniteFloat
    is_anomalous: bool
    other_kind: str | None = None
    regions: tuple[Region, ...] = ()
    classes: tuple[ClassScore, ...] = ()
    seconds: FiniteFloat
    """Latency from the receipt of the image to its decision."""
    kept: bool = False
    """Whether the image and its anomaly map are kept; of a decision in the history, whether they still are."""
    kept_bytes: int = Field(default=0, ge=0)
    """Size of the kept files; the retention by size adds them up."""
    until_delivered: bool = False
    """Whether they are kept for sinks alone, so that they may go once all have taken the decision."""


class StoredDecision(NewDecision):
    """Decision in the history; numbers rise in the order of storage, whatever the clock does."""

    id: int
    verdict: Verdict | None = None
    """The newest verdict on it."""


class Shape(_Row):
    """Polygon or box around a defect, in pixels of the image."""

    kind: Literal["polygon", "box"]
    points: tuple[tuple[FiniteFloat, FiniteFloat], ...] = Field(min_length=2)
    """(x, y) of the corners; of a box two opposite ones."""


class NewVerdict(_Row):
    """Judgement of an operator on a decision."""

    is_right: bool
    label: str | None = None
    """Type of the defect, ``good``, or None: then ``good`` or ``defective``, by the decision and whether it is right."""
    shapes: tuple[Shape, ...] = ()
    operator: str = ""
    note: str = ""


class Verdict(NewVerdict):
    """Verdict in the history."""

    id: int
    decision: int
    time: datetime


StoredDecision.model_rebuild()


class Delivery(_Row):
    """What one sink still owes: a decision on its way out, kept in the history until it has arrived."""

    id: int
    sink: str
    decision: StoredDecision
    attempts: int = 0


class Source(Protocol):
    """Gives frames until it is closed; a source that loses its camera waits for it and says so in ``state``."""

    name: str
    is_live: bool
    """Whether its frames show what is there now, so that after a trigger only those count that are taken after it."""

    def frames(self) -> Iterator[Frame | None]:
        """Frames as they come; None where nothing came for a while, so that the caller may stop or pause.

        Raises
        ------
        ServeError
            When it can never give one, as of a file that is no video.
        """

    def fire(self) -> None:
        """A trigger has come; a camera that exposes on demand does so now, and others do nothing."""

    def done(self, frame: Frame) -> None:
        """The decision on ``frame`` is stored; a folder may move or mark its file now."""

    def refused(self, frame: Frame, reason: str) -> None:
        """No decision can be made on ``frame``, as of a file that is no image; do not give it again."""

    def state(self) -> dict[str, Any]:
        """For the page: ``{"is_ready": bool, "message": str, …}``."""

    def close(self) -> None:
        """Let go of the camera or the file."""


class Sink(Protocol):
    """Takes decisions away: at least once, in order, each with its number."""

    name: str
    needs_images: bool
    """Whether it takes the image and the overlay too."""

    def open(self) -> None:
        """Begin to connect, where that takes time; a fault is raised by the first delivery."""

    def deliver(self, decision: StoredDecision, image: bytes | None, overlay: bytes | None) -> None:
        """Hand over one decision, with the kept image file and a PNG overlay where there are such.

        Raises
        ------
        DeliveryError
            When it did not arrive; it stays in the outbox and is tried again.
        """

    def close(self) -> None:
        """Let go of connections."""
