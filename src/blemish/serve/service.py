"""Inspection service: frames in, stored decisions out, by workers that share one bounded queue.

A frame is decoded and inspected by one of several workers; the decisions that are ready at the same time are stored in one
transaction. A decision is given to whoever submitted the frame after it is stored, so what was acknowledged is in the
history whatever happens next.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from blemish.errors import BlemishError, ImageError, ServeError, printable
from blemish.inspection.detection import Detection
from blemish.inspection.detector import Detector
from blemish.runtime.sessions import threads
from blemish.serve.contracts import Frame, NewDecision, StoredDecision, utc_now
from blemish.serve.decode import decode
from blemish.serve.drift_watch import DriftWatch
from blemish.serve.live import Live
from blemish.serve.logs import LOGGER
from blemish.serve.metrics import Metrics
from blemish.serve.recent_images import RecentImages
from blemish.serve.served_model import ServedModel, ServedModels
from blemish.serve.settings import RequestLimits
from blemish.storage.leftovers import temporary_folder

MOST_AT_ONCE = 256
"""Decisions in one transaction."""
COLLECT_SECONDS = 0.1
"""For which decisions are collected for one transaction while more images wait than there are workers."""
NAME_CHARACTERS = 255
USUAL_SECONDS = 0.1
"""Of an inspection, until some were measured."""


class BusyError(ServeError):
    """The queue is full; the image was not accepted."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"all places in the queue are taken; try again in {retry_after} s")
        self.retry_after = retry_after


class StoppingError(ServeError):
    """The server finishes what it holds and takes no more."""


class TooLateError(ServeError):
    """The image waited longer than a request may take, and was not inspected."""


class RequestConflictError(ServeError):
    """Another image has this number of a request."""


@dataclass(frozen=True)
class Outcome:
    """Decision on a frame, in the history by now."""

    decision: StoredDecision
    detection: Detection


@dataclass
class _Job:
    frame: Frame
    model: ServedModel
    future: Future[Outcome]
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.future.add_done_callback(self._forget)

    def _forget(self, future: Future[Outcome]) -> None:
        # A place in the queue is small, an image is not: clients that send and hang up would fill the memory.
        if future.cancelled():
            self.frame = replace(self.frame, image=b"")


ToStore = TypeVar("ToStore")
"""What is stored of a decision: itself, and what else was prepared in the worker."""
Prepare = Callable[[Frame, Detection, NewDecision], ToStore]
"""Does for one image what takes processor time, such as encoding; it runs in several workers at once."""
Store = Callable[[Sequence[ToStore]], list[StoredDecision]]


@dataclass
class _Inspected(Generic[ToStore]):
    job: _Job
    detector: Detector
    detection: Detection
    decision: NewDecision
    to_store: ToStore


class Service(Generic[ToStore]):
    """Queue, workers and storage of decisions.

    Parameters
    ----------
    store: stores decisions in one transaction, which is on the disk when it returns. It is the only one that waits for
        the disk, in a thread of its own, while workers inspect.
    prepare: see :data:`Prepare`.
    workers: images that are inspected at one time; None is one for each core.

    Use it as a context: workers run within the block, and its end finishes what was accepted.
    """

    def __init__(
        self,
        models: ServedModels,
        store: Store[ToStore],
        prepare: Prepare[ToStore],
        *,
        limits: RequestLimits | None = None,
        workers: int | None = None,
        live: Live | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.models, self._store, self._prepare = models, store, prepare
        self.limits = limits or RequestLimits()
        self.workers = workers or threads()
        self.live = Live() if live is None else live  # one without subscriptions is false
        self.metrics = metrics or Metrics()
        self.drift, self.recent = DriftWatch(), RecentImages()
        self._jobs: queue.Queue[_Job | None] = queue.Queue(self.limits.queue)
        # Bounded as well, so that workers wait for a slow disk instead of filling the memory.
        self._inspected: queue.Queue[_Inspected[ToStore] | None] = queue.Queue(2 * self.workers + 2)
        self._threads: list[threading.Thread] = []
        self._storing: threading.Thread | None = None
        self._resources = ExitStack()
        self._spool: Path | None = None
        self._closing = threading.Lock()
        self._is_stopping = False
        self._mean_seconds = USUAL_SECONDS
        self.metrics.measure("blemish_queue_images", "Images that wait for a worker.", self._jobs.qsize)

    def __enter__(self) -> Service[ToStore]:
        self._spool = self._resources.enter_context(temporary_folder())
        self._storing = threading.Thread(target=self._store_all, name="store")
        self._storing.start()
        for number in range(self.workers):
            worker = threading.Thread(target=self._work, args=(self._spool,), name=f"inspect-{number}")
            worker.start()
            self._threads.append(worker)
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    @property
    def is_ready(self) -> bool:
        """True while frames are accepted and decided."""
        return bool(self._threads) and not self._is_stopping and all(one.is_alive() for one in self._threads)

    def __len__(self) -> int:
        return self._jobs.qsize()

    # -- in ---------------------------------------------------------------------------------------------

    def submit(self, frame: Frame, model: str | None = None, *, wait: float = 0.0) -> Future[Outcome]:
        """Accept a frame; its future has the stored decision, or the error that kept it from one.

        Parameters
        ----------
        model: name; None is the first one.
        wait: seconds to wait for a place in the queue, as a camera may that cannot send its frame again.

        Raises
        ------
        BusyError
            When the queue is full.
        StoppingError
            After :meth:`stop`.
        UnknownModelError
            When there is no such model.

        The future raises ImageError for an image that cannot be inspected, TooLateError, HistoryError or FileError where
        the decision could not be stored, and RequestConflictError where its number belongs to another image.
        """
        job = _Job(frame, self.models.named(model), Future())
        if self._is_stopping:
            raise StoppingError("the server is stopping; send it to another one, or later")
        try:
            self._jobs.put(job, block=wait > 0, timeout=wait or None)
        except queue.Full:
            raise BusyError(self.retry_after()) from None
        if self._is_stopping and not self._threads and job.future.cancel():
            raise StoppingError("the server is stopping; send it to another one, or later")
        return job.future

    def retry_after(self) -> int:
        """Seconds until the queue is expected to have places again, 1 to 60."""
        half = self._jobs.qsize() * self._mean_seconds / self.workers / 2
        return int(min(60, max(1, round(half))))

    def inspect(self, frame: Frame, model: str | None = None, *, wait: float = 0.0) -> Outcome:
        """:meth:`submit`, and wait for the outcome."""
        return self.submit(frame, model, wait=wait).result()

    # -- work -------------------------------------------------------------------------------------------

    def _work(self, spool: Path) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue  # whoever asked has gone
            try:
                inspected = self._inspect(job, spool)
            except Exception as error:  # whatever it is, it is this image's alone
                self._fail(job, error)
            else:
                self._inspected.put(inspected)
                del inspected
            del job

    def _inspect(self, job: _Job, spool: Path) -> _Inspected[ToStore]:
        frame, limit = job.frame, self.limits.request_seconds
        begun = time.monotonic()
        if frame.source == "api" and begun - job.begun > limit:
            raise TooLateError(
                f"waited more than {limit:g} s in the queue; send it again when there is less to do"
            )
        detector = job.model.detector
        image = decode(
            frame, channels=detector.file.preprocessing.channels, max_pixels=self.limits.pixels, spool=spool
        )
        detection = detector.inspect(image, name=frame.name)
        now = time.monotonic()
        self._mean_seconds += 0.05 * (now - begun - self._mean_seconds)
        self.metrics.inspection_seconds.labels(job.model.name).observe(now - begun)
        decision = NewDecision(
            request=frame.request,
            time=utc_now(),
            model=job.model.name,
            model_sha256=detector.file.weights_sha256,
            source=frame.source,
            name=printable(frame.name)[:NAME_CHARACTERS],
            image_sha256=frame.sha256(),
            size=detection.size,
            score=detection.score,
            threshold=detection.threshold,
            pixel_threshold=detection.pixel_threshold,
            p_value=detection.p_value,
            is_anomalous=detection.is_anomalous,
            other_kind=detection.other_kind,
            regions=detection.regions,
            classes=detection.classes,
            seconds=now - job.begun,
        )
        return _Inspected(job, detector, detection, decision, self._prepare(frame, detection, decision))

    def _store_all(self) -> None:
        while (first := self._inspected.get()) is not None:
            group, ended = [first], False
            deadline = time.monotonic() + COLLECT_SECONDS
            while len(group) < MOST_AT_ONCE and not ended:
                # An answer that is a little later costs nothing where images wait anyway, and a transaction more does.
                is_worth_it = self._jobs.qsize() >= self.workers and len(group) < self._inspected.maxsize
                left = deadline - time.monotonic() if is_worth_it else 0.0
                try:
                    following = self._inspected.get(block=left > 0, timeout=max(left, 0.0))
                except queue.Empty:
                    break
                if following is None:
                    ended = True
                else:
                    group.append(following)
            self._store_group(group)
            del group, first
            if ended:
                return

    def _store_group(self, group: list[_Inspected[ToStore]]) -> None:
        try:
            stored = self._store([one.to_store for one in group])
        except Exception as error:  # whatever it is, each request gets its answer, and the others go on
            if len(group) == 1 or isinstance(error, BlemishError):  # of the disk: all would fail likewise
                for one in group:
                    self._fail(one.job, error)
            else:
                for one in group:
                    self._store_group([one])
            return
        self.metrics.commits.observe(len(group))
        for one, decision in zip(group, stored, strict=True):
            self._give(one, decision)

    def _give(self, one: _Inspected[ToStore], decision: StoredDecision) -> None:
        if (decision.image_sha256, decision.model) != (one.decision.image_sha256, one.decision.model):
            error = RequestConflictError(
                f"the request number {decision.request} belongs to another image, decision {decision.id}; give each image "
                "a number of its own"
            )
            self._fail(one.job, error)
            return
        self.recent.add(decision, one.job.frame, one.detection)
        one.job.future.set_result(Outcome(decision, one.detection))
        kind = "rejected" if decision.is_anomalous else "accepted"
        self.metrics.decisions.labels(decision.model, decision.source, kind).inc()
        self.metrics.decision_seconds.labels(decision.model).observe(time.monotonic() - one.job.begun)
        if len(self.live):
            self.live.publish("decision", decision.model_dump(mode="json"), decision.id)
        if self.drift.update(decision, one.detector):
            LOGGER.warning("images drift from the calibration", extra={"fields": {"model": decision.model}})
            self.live.publish("drift", {"model": decision.model, **self.drift.state(decision.model)})

    def _fail(self, job: _Job, error: Exception) -> None:
        fields = {
            "model": job.model.name,
            "source": job.frame.source,
            "name": job.frame.name[:NAME_CHARACTERS],
        }
        if isinstance(error, BlemishError):
            kind = type(error).__name__
            level = "info" if isinstance(error, ImageError) else "error"
            getattr(LOGGER, level)(str(error), extra={"fields": fields})
        else:
            kind = "unexpected"
            LOGGER.error("unexpected error", exc_info=error, extra={"fields": fields})
        self.metrics.failures.labels(job.model.name, kind).inc()
        if not job.future.done():
            job.future.set_exception(error)

    # -- end --------------------------------------------------------------------------------------------

    def stop(self, seconds: float | None = None) -> int:
        """Take no more frames, finish those that were accepted, and let go of everything.

        Parameters
        ----------
        seconds: after which frames that no worker has begun fail with StoppingError; None is that of the limits.

        Returns
        -------
        Number of accepted frames that were not finished.
        """
        with self._closing:
            self._is_stopping = True
            if self._storing is None:
                return 0
            deadline = time.monotonic() + (self.limits.stop_seconds if seconds is None else seconds)
            while self._jobs.qsize() and time.monotonic() < deadline:
                time.sleep(0.01)
            left = self._drop_waiting()
            for _ in self._threads:
                self._jobs.put(None)
            for one in self._threads:
                one.join()
            self._threads.clear()
            left += self._drop_waiting()
            self._inspected.put(None)
            self._storing.join()
            self._storing = None
            self._resources.close()
            return left

    def _drop_waiting(self) -> int:
        dropped = 0
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return dropped
            if job is not None and job.future.set_running_or_notify_cancel():
                job.future.set_exception(
                    StoppingError("the server stopped before this image's turn; send it again")
                )
                dropped += 1
