"""Camera as a source: a thread reads it, opens it again when it is lost, and keeps the newest frames alone."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from blemish.errors import BlemishError, ServeError
from blemish.serve.contracts import Frame, utc_now

Pixels: TypeAlias = bytes | NDArray[np.uint8] | NDArray[np.uint16]
Shot: TypeAlias = Callable[[], Pixels]
"""Gives the image when it is wanted: of frames that nobody wants, no colours need be converted."""
OpenCamera: TypeAlias = Callable[[], AbstractContextManager[Iterator[Shot | None]]]
"""Opens the camera; its frames as they come, None where none came for a while but none had to. Raises CameraLostError."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before a lost camera is opened again; doubled each time until a frame comes."""
IDLE = 0.25
"""Seconds after which the caller hears that nothing came."""


class CameraLostError(ServeError):
    """A camera that cannot be reached, or gives no more frames; it is tried again."""


class CameraSource:
    """Gives the newest frames of a camera, so that a slow model never works on a backlog.

    Parameters
    ----------
    waiting: frames that may wait; where more come, the oldest is dropped, and counted. With 1 that is the usual case,
        and a camera that is triggered by the parts themselves needs more.
    fire: exposes one frame, of a camera that does so on demand. Raises CameraLostError.
    """

    is_live = True

    def __init__(
        self, name: str, open_camera: OpenCamera, waiting: int = 1, fire: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self._open, self._fire = open_camera, fire
        self._shots: deque[tuple[Shot, datetime]] = deque(maxlen=waiting)
        self._news = threading.Condition()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_ready, self._message = False, f"{name}: is not open yet"
        self._frames = self._dropped = self._losses = 0

    # -- the contract ------------------------------------------------------------------------------

    def frames(self) -> Iterator[Frame | None]:
        """Frames that were not given yet, the newest ``waiting`` of them; None after a quarter of a second without one."""
        self._start()  # at once, so that the camera is ready for the first trigger
        return self._newest()

    def _newest(self) -> Iterator[Frame | None]:
        while not self._closed.is_set():
            with self._news:
                if not self._shots:
                    self._news.wait(IDLE)
                shot = self._shots.popleft() if self._shots else None
            if shot is None:
                yield None
                continue
            make, taken = shot
            try:
                pixels = make()
            except CameraLostError as error:
                self._message = str(error)
                yield None
                continue
            yield Frame(pixels, frame_name(self.name, taken), self.name, taken)

    def fire(self) -> None:
        """Expose a frame, of a camera that does so on demand; a fault shows in :meth:`state`."""
        if self._fire is None:
            return
        try:
            self._fire()
        except CameraLostError as error:
            self._message = str(error)

    def done(self, frame: Frame) -> None:
        """Nothing to do: a frame is gone once it is given."""

    def refused(self, frame: Frame, reason: str) -> None:
        """Show the reason."""
        self._message = reason

    def state(self) -> dict[str, Any]:
        """Whether frames come, what is wrong, and how many came, were dropped, and how often the camera was lost."""
        return {
            "is_ready": self._is_ready,
            "message": self._message,
            "frames": self._frames,
            "dropped": self._dropped,
            "losses": self._losses,
        }

    def close(self) -> None:
        """Let go of the camera."""
        self._closed.set()
        with self._news:
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join(2)  # a driver may wait longer; nothing waits for it then

    # -- the thread --------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"camera-{self.name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        wait = FIRST_WAIT
        while not self._closed.is_set():
            before, begun = self._frames, time.monotonic()
            try:
                with self._open() as shots:
                    for shot in shots:
                        if self._closed.is_set():
                            return
                        self._take(shot)
                message = f"{self.name}: the camera has ended its stream, and is opened again"
            except BlemishError as error:
                message = str(error)
            except Exception as error:  # of a driver; the thread must live, because the camera may come back
                message = f"{self.name}: unexpected {type(error).__name__}: {' '.join(str(error).split())}"
            if self._is_ready:
                self._losses += 1
            self._is_ready, self._message = False, message
            came = self._frames > before and time.monotonic() - begun > FIRST_WAIT
            wait = FIRST_WAIT if came else wait
            self._closed.wait(wait)
            wait = min(LONGEST_WAIT, 2 * wait)

    def _take(self, shot: Shot | None) -> None:
        if not self._is_ready:
            self._is_ready, self._message = True, ""
        if shot is None:
            return
        self._frames += 1
        with self._news:
            self._dropped += len(self._shots) == self._shots.maxlen
            self._shots.append((shot, utc_now()))
            self._news.notify()


def frame_name(source: str, taken: datetime) -> str:
    """Name of a frame: that of its source, and when it was taken, in UTC.

    >>> frame_name("belt", datetime(2026, 3, 1, 12, 0, 7, 1500))
    'belt-20260301-120007-001500'
    """
    return f"{source}-{taken:%Y%m%d-%H%M%S-%f}"
