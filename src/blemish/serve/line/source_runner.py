"""One source at work: frames to decisions, in a thread of its own, which may pause and go on."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeAlias

from blemish.errors import BlemishError, ImageError, ServeError
from blemish.serve.contracts import Frame, Source, StoredDecision, utc_now
from blemish.serve.line.triggers import AlwaysTrigger, Fired, Requests, TriggerError, TriggerPart
from blemish.serve.service import Outcome

LOOK = 0.2
"""Seconds between looks at whether to pause or to stop."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before a file is submitted again that could not be decided or stored; doubled each time."""


Submit: TypeAlias = Callable[[Frame, "str | None"], "Future[Outcome]"]
"""Hands a frame to the service; raises BusyError, a ServeError, where its queue is full."""


class _StopRunning(Exception):
    """The runner was stopped while it waited."""


class SourceRunner:
    """Takes frames from a source when its trigger fires, has them decided, and tells the source so.

    A file is only done when its decision is stored, and is submitted again until it is. Of a camera, only new frames
    count: those of a pause, or from before the trigger, are left out.

    Parameters
    ----------
    model: name of the model; None is the first.
    ahead: files or frames of a video that are submitted before the first of them is decided, so that workers are busy.
    """

    def __init__(
        self,
        source: Source,
        trigger: TriggerPart,
        submit: Submit,
        model: str | None = None,
        ahead: int = 4,
    ) -> None:
        self.source, self.trigger = source, trigger
        self._submit, self._model, self._ahead = submit, model, ahead
        self._paused = threading.Event()
        self._stopping = threading.Event()
        self._not_before: datetime | None = None
        self._pending: deque[tuple[Frame, Fired, Future[Outcome] | None]] = deque()
        self._counts = {"decisions": 0, "rejected": 0, "refused": 0, "triggers_failed": 0}
        self._last: int | None = None
        self._problem = ""
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name=f"source-{source.name}", daemon=True)

    def start(self, *, paused: bool = False) -> None:
        """Begin to take frames."""
        if paused:
            self._paused.set()
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether it takes no more frames, because there are none, or because of a fault."""
        return self._has_ended

    @property
    def is_paused(self) -> bool:
        """Whether it waits for :meth:`resume`."""
        return self._paused.is_set()

    def pause(self) -> None:
        """Take no more frames; camera, model and what is under way stay as they are."""
        self._paused.set()

    def resume(self) -> None:
        """Go on with what is there now."""
        self._not_before = utc_now()
        self._paused.clear()

    def fire(self, name: str | None = None) -> Future[StoredDecision]:
        """Trigger by hand.

        Raises
        ------
        TriggerError
            When the source has another trigger, is paused, has ended, or too many triggers wait.
        """
        if not isinstance(self.trigger, Requests):
            raise TriggerError(
                f"'{self.source.name}' has no trigger 'http'; give it one in the description of the line"
            )
        if self.is_paused:
            raise TriggerError(f"'{self.source.name}' is paused; resume it")
        if self._has_ended:
            raise TriggerError(
                f"'{self.source.name}' has ended: {self._problem or 'there are no more images'}"
            )
        return self.trigger.fire(name)

    def state(self) -> dict[str, Any]:
        """For the page: what the source, its trigger and the runner say."""
        own = self.source.state()
        message = self._problem or own["message"] or self.trigger.problem()
        is_ready = bool(own["is_ready"]) and not self._problem and not self._has_ended
        return {
            **own, **self._counts, "name": self.source.name, "model": self._model, "is_ready": is_ready, "message": message,
            "is_paused": self.is_paused, "has_ended": self._has_ended, "last": self._last,
        }  # fmt: skip

    def stop(self, seconds: float = 15.0) -> None:
        """Take no more frames, finish those that were submitted, and close the source."""
        self._stopping.set()
        self.trigger.close()
        if self._thread.is_alive():
            self._thread.join(seconds)
        self.source.close()

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.trigger.open()
            frames = self.source.frames()
            while not self._stopping.is_set():
                if self._paused.is_set():
                    self._settle(0)
                    self._stopping.wait(LOOK)
                    continue
                fired = self.trigger.wait(LOOK)
                if fired is not None and self._paused.is_set():
                    fired.fail(TriggerError(f"'{self.source.name}' is paused; resume it"))
                elif fired is not None and not self._take(frames, fired):
                    break
            self._settle(0)
        except _StopRunning:
            pass
        except BlemishError as error:
            self._problem = str(error)
        except Exception as error:  # a defect of one source must not be silent, nor end the server
            self._problem = f"unexpected {type(error).__name__}: {error}"
        self._has_ended = True
        self.trigger.close()

    def _take(self, frames: Iterator[Frame | None], fired: Fired) -> bool:
        """Take one frame and have it decided; False where the source has no more."""
        if fired.at is not None:
            self.source.fire()
        deadline = None if fired.timeout is None else time.monotonic() + fired.timeout
        while not self._stopping.is_set():
            frame = next(frames, _END)
            if isinstance(frame, _End):
                fired.fail(TriggerError(f"'{self.source.name}' has no more images"))
                return False
            if frame is not None and self._is_new(frame, fired):
                self._submit_one(frame if fired.name is None else replace(frame, name=fired.name), fired)
                return True
            if frame is None:
                self._settle(0)
                if isinstance(self.trigger, AlwaysTrigger):
                    return True
                if deadline is not None and time.monotonic() > deadline:
                    self._counts["triggers_failed"] += 1
                    reason = self.source.state()["message"] or "check the source"
                    fired.fail(
                        TriggerError(
                            f"'{self.source.name}' gave no image within {fired.timeout:g} s; {reason}"
                        )
                    )
                    return True
        fired.fail(TriggerError(f"'{self.source.name}' was stopped; trigger it again"))
        return True

    def _is_new(self, frame: Frame, fired: Fired) -> bool:
        if not self.source.is_live:
            return True
        return all(limit is None or frame.taken >= limit for limit in (fired.at, self._not_before))

    def _submit_one(self, frame: Frame, fired: Fired) -> None:
        future: Future[Outcome] | None
        try:
            future = self._submit(frame, self._model)
        except ServeError as error:
            self._problem = str(error)
            future = None
        self._pending.append((frame, fired, future))
        is_stream = isinstance(self.trigger, AlwaysTrigger) and not self.source.is_live
        self._settle(self._ahead - 1 if is_stream and future is not None else 0)

    def _settle(self, most: int) -> None:
        """Wait for submitted frames, the oldest first, until ``most`` of them are left."""
        while len(self._pending) > most:
            frame, fired, future = self._pending[0]
            self._decide(frame, fired, future)
            self._pending.popleft()

    def _decide(self, frame: Frame, fired: Fired, future: Future[Outcome] | None) -> None:
        """Wait for the decision on one frame; submit it again where that may help."""
        wait = FIRST_WAIT
        while not self._is_decided(frame, fired, future):
            if self._stopping.wait(wait):
                raise _StopRunning
            wait, future = min(LONGEST_WAIT, 2 * wait), None

    def _is_decided(self, frame: Frame, fired: Fired, future: Future[Outcome] | None) -> bool:
        """Wait for one decision; False where the frame is to be submitted again."""
        try:
            found = self._submit(frame, self._model) if future is None else future
            decision = found.result().decision
        except ImageError as error:
            self._counts["refused"] += 1
            self.source.refused(frame, str(error))
            fired.fail(error)
            return True
        except BlemishError as error:
            self._problem = str(error)
            self._counts["triggers_failed"] += fired.at is not None
            fired.fail(error)
            if self.source.is_live:  # a new frame comes, after a moment in which the fault may pass
                self._stopping.wait(LOOK)
            return self.source.is_live
        self._problem = ""
        self._counts["decisions"] += 1
        self._counts["rejected"] += decision.is_anomalous
        self._last = decision.id
        fired.succeed(decision)
        self._finish(frame)
        return True

    def _finish(self, frame: Frame) -> None:
        try:
            self.source.done(frame)
        except BlemishError as error:
            # Stored once, whatever becomes of its file.
            self._problem = str(error)


class _End:
    """No more frames."""


_END = _End()
