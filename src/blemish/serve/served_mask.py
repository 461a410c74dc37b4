"""Judged area of a served model: drawn on the page, applied before the score, and part of the calibration.

A new area is in use at once. Its threshold is first that of whole images, whose promise holds, because a part of a map has
no larger values than the whole. The stored good images then calibrate it anew, without training: what lies outside no
longer counts, so the threshold falls, and smaller defects are found at the same promise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blemish.decision import Calibration
from blemish.errors import BlemishError, FileError, Stopped
from blemish.inspection.detector import Detector
from blemish.observer import Observer
from blemish.preprocessing.judged_area import JudgedArea
from blemish.serve.area_drawing import AreaDrawing, Polygon
from blemish.serve.judged_area import AreaPromise, promise_of, with_area
from blemish.serve.served_model import ServedModel
from blemish.storage.atomic import write_json

MASK_FILE = "mask.json"
LOOK = 2.0
"""Seconds between looks at whether another version of a model is to be calibrated for its area."""


class _Calibrated(BaseModel):
    """Calibration of one version of a model for its area."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights_sha256: str
    good: tuple[str, ...]
    """Names of the stored good images, by which new ones are noticed."""
    calibration: Calibration | None
    """None where the threshold of whole images stays."""
    note: str


class StoredMask(BaseModel):
    """What ``mask.json`` beside the versions of a model holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    area: JudgedArea
    drawing: AreaDrawing | None
    """As it was drawn; None of one that came as an image."""
    calibrated: _Calibrated | None = None


class MaskState(BaseModel):
    """The judged area of a model as it is now; all fields but ``state`` are None or empty without one."""

    state: Literal["none", "calibrating", "ready"]
    width: int | None = None
    height: int | None = None
    share: float | None = None
    """Of the pixels that are judged."""
    judge: list[Polygon] = Field(default_factory=list)
    ignore: list[Polygon] = Field(default_factory=list)
    done: int = 0
    total: int = 0
    """Good images that are scored, and that are to be, while it is calibrated."""
    false_reject_rate: float | None = None
    promise: AreaPromise | None = None
    problem: str | None = None
    """Why it is not in use."""


class _CalibrationProgress(Observer):
    def __init__(self, stopping: threading.Event) -> None:
        self.done = self.total = 0
        self._stopping = stopping

    def count(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def should_stop(self) -> bool:
        return self._stopping.is_set()


class ServedMask:
    """Judged area of one served model, kept beside its versions.

    Parameters
    ----------
    good: folder of the stored good images of the model.

    Raises
    ------
    FileError
        When its file is none that this server wrote.
    """

    def __init__(self, served: ServedModel, good: Path) -> None:
        self.served, self._good = served, good
        self._path = served.home / MASK_FILE
        self._lock = threading.RLock()
        self._progress: _CalibrationProgress | None = None
        self._stored = self._read()
        self._problem: str | None = None
        if self._stored is not None:
            try:
                served.adjust("mask", self._adjust)
            except (
                BlemishError
            ) as error:  # the model was exchanged for one of other images while the server was down
                self._problem = str(error)

    def put(self, area: JudgedArea, drawing: AreaDrawing | None) -> None:
        """Judge ``area`` from the next image on, after a restart too.

        Raises
        ------
        UsageError
            When it does not fit the model; the former area stays.
        FileError
            When it cannot be written down; the former area stays.
        """
        with self._lock:
            former = self._stored
            self._stored = StoredMask(area=area, drawing=drawing)
            try:
                self.served.adjust("mask", self._adjust)
                self._write()
            except BlemishError:
                self._stored = former
                with suppress(BlemishError):
                    self.served.adjust("mask", None if former is None else self._adjust)
                raise
            self._problem = None

    def remove(self) -> None:
        """Judge whole images again."""
        with self._lock:
            self._stored, self._problem = None, None
            self.served.adjust("mask", None)
            with suppress(FileNotFoundError):
                self._path.unlink()

    @property
    def area(self) -> JudgedArea | None:
        """The area, where there is one."""
        return None if self._stored is None else self._stored.area

    def state(self) -> MaskState:
        """The area, what it promises, and how far its calibration is."""
        with self._lock:
            stored, progress = self._stored, self._progress
        if stored is None:
            return MaskState(state="none")
        calibrated = self._calibrated(stored, self.served.stored)
        detector = self.served.detector
        note = calibrated.note if calibrated is not None else "being calibrated on the stored good images"
        is_new = calibrated is not None and calibrated.calibration is not None
        promise = promise_of(detector, note, recalibrated=is_new)
        drawing = stored.drawing
        return MaskState(
            state="ready" if calibrated is not None or self._problem else "calibrating",
            width=stored.area.width,
            height=stored.area.height,
            share=sum(stored.area.runs[1::2]) / (stored.area.width * stored.area.height),
            judge=[] if drawing is None else drawing.judge,
            ignore=[] if drawing is None else drawing.ignore,
            done=0 if progress is None else progress.done,
            total=0 if progress is None else progress.total,
            false_reject_rate=promise.false_reject_rate,
            promise=promise,
            problem=self._problem,
        )

    def calibrate(self, stopping: threading.Event) -> bool:
        """Calibrate the running version for the area, where that is still to be done; True if anything is new."""
        with self._lock:
            stored, detector = self._stored, self.served.stored
            names = self._good_names()
            known = None if stored is None else self._calibrated(stored, detector)
            if stored is None or self._problem or (known is not None and known.good == names):
                return False
            progress = self._progress = _CalibrationProgress(stopping)
        try:
            found, promise = with_area(detector, stored.area, self._good, progress)
            calibration = found.decision.calibration if promise.is_recalibrated else None
            result = _Calibrated(
                weights_sha256=detector.file.weights_sha256,
                good=names,
                calibration=calibration,
                note=promise.note,
            )
        except Stopped:
            return False
        except BlemishError as error:
            with self._lock:
                self._problem = str(error)
            return True
        finally:
            with self._lock:
                self._progress = None
        with self._lock:
            if self._stored is not stored:
                return True  # another area was put meanwhile; it has its own turn
            self._stored = stored.model_copy(update={"calibrated": result})
            try:
                self.served.adjust("mask", self._adjust)
            except (
                BlemishError
            ) as error:  # as of a chosen false-reject rate that so few images cannot promise
                note = (
                    f"the threshold of whole images stays, whose promise holds for any part of them: {error}"
                )
                self._stored = stored.model_copy(
                    update={"calibrated": result.model_copy(update={"calibration": None, "note": note})}
                )
            try:
                self._write()
            except FileError as error:
                self._problem = str(error)
        return True

    def _adjust(self, detector: Detector) -> Detector:
        """The adjustment of :meth:`ServedModel.adjust`: area, and its calibration where it is of this version."""
        stored = self._stored
        if stored is None:
            return detector
        masked = detector.with_judged_area(stored.area)
        calibrated = self._calibrated(stored, detector)
        if calibrated is None or calibrated.calibration is None:
            return masked
        return masked.with_file(masked.file.model_copy(update={"calibration": calibrated.calibration}))

    @staticmethod
    def _calibrated(stored: StoredMask, detector: Detector) -> _Calibrated | None:
        found = stored.calibrated
        return found if found is not None and found.weights_sha256 == detector.file.weights_sha256 else None

    def _good_names(self) -> tuple[str, ...]:
        with suppress(OSError):
            return tuple(sorted(path.name for path in self._good.iterdir() if not path.name.startswith(".")))
        return ()

    def _read(self) -> StoredMask | None:
        try:
            return StoredMask.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise FileError(
                self._path,
                f"is no mask that the server wrote ({type(error).__name__})",
                "remove it, and draw the mask again",
            ) from None

    def _write(self) -> None:
        if self._stored is not None:
            write_json(self._path, self._stored.model_dump(mode="json"))


class ServedMasks(Mapping[str, ServedMask]):
    """Judged areas of all served models, and the thread that calibrates them.

    Parameters
    ----------
    good: gives the folder of the stored good images of a model.
    changed: called with the name of a model whose area was calibrated.
    """

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        good: Callable[[str], Path],
        changed: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._masks = {name: ServedMask(served, good(name)) for name, served in models.items()}
        self._changed = changed
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="masks", daemon=True)

    def __getitem__(self, name: str) -> ServedMask:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def start(self) -> None:
        """Begin to calibrate what needs it: a new area, another version, new good images."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there is a new area."""
        self._wake.set()

    def close(self) -> None:
        """End the thread; an area that is half calibrated begins anew at the next start."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def _run(self) -> None:
        while not self._stopping.is_set():
            for name, mask in self._masks.items():
                if mask.calibrate(self._stopping):
                    self._changed(name)
            self._wake.wait(LOOK)
            self._wake.clear()
