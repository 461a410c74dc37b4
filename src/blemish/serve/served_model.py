"""Models while they are served: loaded whole, replaced in one step, with a threshold that can change."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, model_validator

from blemish.errors import BlemishError, FileError, ServeError, UsageError, nearest
from blemish.inspection.detector import Detector, load
from blemish.serve.model_versions import ModelVersion, ModelVersions
from blemish.storage.atomic import write_json

THRESHOLD_FILE = "threshold.json"

Stamp = frozenset[tuple[str, int, int, int]]
"""Names, numbers, sizes and times of the files of a folder, which differ once it was changed."""

Adjustment = Callable[[Detector], Detector]
"""Gives a detector with another decision or judged area, and the same anomaly model."""


class ThresholdChoice(BaseModel):
    """A threshold chosen while serving: a false-reject rate, or a value on the scores of one model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    false_reject_rate: FiniteFloat | None = None
    threshold: FiniteFloat | None = None
    weights_sha256: str | None = None
    """Of the model that ``threshold`` is a value of; another model keeps its own threshold."""

    @model_validator(mode="after")
    def _one_of_both(self) -> ThresholdChoice:
        if (self.false_reject_rate is None) == (self.threshold is None):
            raise ValueError("give either false_reject_rate or threshold")
        return self

    def applied(self, detector: Detector) -> Detector:
        """``detector`` with this threshold, or as it is where the value belongs to another model.

        Raises
        ------
        UsageError
            When the rate is not between 0 and 1, or the calibration images are too few for it.
        """
        if self.false_reject_rate is not None:
            return detector.with_false_reject_rate(self.false_reject_rate)
        assert self.threshold is not None
        if self.weights_sha256 not in (None, detector.file.weights_sha256):
            return detector
        return detector.with_threshold(self.threshold)


@dataclass(frozen=True)
class Loaded:
    """A version of a model as it was loaded, and as it decides."""

    version: ModelVersion
    stored: Detector
    detector: Detector
    note: str | None = None
    """Of what was chosen while serving and does not fit this version."""


class ServedModel:
    """One model on the line.

    :attr:`detector` is read once for each image; a change replaces it as a whole, so that no image is judged by parts of
    two models. The folder is copied as a version before it is served, so that it may change at any time.

    Parameters
    ----------
    folder: exported or fitted model of images.
    home: folder of the versions and of what is chosen while serving; its name is that of the model.

    Raises
    ------
    ModelError
        When the folder is no model of images, is damaged or edited.
    FileError
        When ``home`` cannot be written or read.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.given, self.home = folder, home
        self.versions = ModelVersions(home)
        self.name = self.versions.name
        self._failure: str | None = None
        self._lock = threading.RLock()
        self._adjustments: dict[str, Adjustment] = {}
        self._choice = self._read_choice()
        self._stamp = _stamp(folder)
        self._loaded = self._load(self.versions.adopt(folder))

    @property
    def detector(self) -> Detector:
        """The detector that decides now."""
        return self._loaded.detector

    @property
    def stored(self) -> Detector:
        """The detector as its version holds it, without what was chosen while serving."""
        return self._loaded.stored

    @property
    def version(self) -> ModelVersion:
        """The version that decides now."""
        return self._loaded.version

    @property
    def choice(self) -> ThresholdChoice | None:
        """Threshold that was chosen while serving; None is that of the version."""
        return self._choice

    @property
    def problem(self) -> str | None:
        """Why the newest content of the folder, or what was chosen while serving, is not in use; None if it is."""
        return self._failure or self._loaded.note

    # -- changes ----------------------------------------------------------------------------------------

    def promote(self, number: int) -> ModelVersion:
        """Serve another version from now on, after a restart too.

        Raises
        ------
        ServeError
            When there is none of this number.
        ModelError
            When it is damaged; the former version stays then.
        FileError
            When the choice cannot be written down; then it is not in use either.
        """
        with self._lock:
            loaded = self._load(self.versions.version(number))
            self.versions.promote(number)
            self._loaded = loaded
            return loaded.version

    def roll_back(self) -> ModelVersion:
        """Serve the version that ran before; errors as of :meth:`promote`."""
        with self._lock:
            previous = self.versions.previous()
            loaded = None if previous is None else self._load(previous)
            version = self.versions.roll_back()
            self._loaded = loaded if loaded is not None else self._load(version)
            return version

    def reload(self) -> bool:
        """Take over new content of the folder, or a version that another program promoted; True if it did.

        Content that is damaged or still being copied leaves the former version in place; :attr:`problem` has the line.
        """
        with self._lock:
            stamp = _stamp(self.given)
            try:
                if stamp != self._stamp and stamp:
                    self._stamp = stamp  # tried once, until it changes again
                    self._failure = None
                    self.versions.adopt(self.given)
                running = self.versions.running()
                if running is None or running == self.version:
                    return False
                self._loaded = self._load(running)
            except BlemishError as error:
                self._failure = str(error)
                return False
            self._failure = None
            return True

    def choose(self, choice: ThresholdChoice | None) -> Detector:
        """Decide by another threshold from now on, after a restart too; None is that of the folder.

        Raises
        ------
        UsageError
            When the model cannot have it.
        FileError
            When it cannot be written down; then it is not in use either.
        """
        with self._lock:
            if choice is not None and choice.threshold is not None:
                choice = choice.model_copy(update={"weights_sha256": self.stored.file.weights_sha256})
            former, self._choice = self._choice, choice
            try:
                changed = self._adjusted(self.stored)
                self._write_choice(choice)
            except BlemishError:
                self._choice = former
                raise
            self._loaded = replace(self._loaded, detector=changed, note=None)
            return changed

    def adjust(self, kind: str, adjustment: Adjustment | None) -> Detector:
        """Apply ``adjustment`` to the detector now and after each change of the model, before the threshold; None ends it.

        Parameters
        ----------
        kind: one adjustment of each kind is in use, such as ``"mask"``.

        Raises
        ------
        BlemishError
            Those of the adjustment; the former one stays then.
        """
        with self._lock:
            former = dict(self._adjustments)
            self._adjustments.pop(kind, None)
            if adjustment is not None:
                self._adjustments[kind] = adjustment
            try:
                changed = self._adjusted(self.stored)
            except BlemishError:
                self._adjustments = former
                raise
            self._loaded = replace(self._loaded, detector=changed, note=None)
            return changed

    def _adjusted(self, detector: Detector) -> Detector:
        for adjustment in self._adjustments.values():
            detector = adjustment(detector)
        return detector if self._choice is None else self._choice.applied(detector)

    def _load(self, version: ModelVersion) -> Loaded:
        stored = load(self.versions.folder_of(version.number))
        try:
            return Loaded(version, stored, self._adjusted(stored))
        except UsageError as error:
            # A new version may have too few calibration images for the rate, or another size than the mask. What it
            # promises by itself is safe; to stop the line is not.
            note = f"what was chosen for {self.name} does not fit version {version.number} and is not in use: {error}"
            return Loaded(version, stored, stored, note)

    # -- on disk ----------------------------------------------------------------------------------------

    @property
    def _choice_file(self) -> Path:
        return self.home / THRESHOLD_FILE

    def _read_choice(self) -> ThresholdChoice | None:
        try:
            return ThresholdChoice.model_validate_json(self._choice_file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise FileError(
                self._choice_file,
                f"is no threshold that the server wrote ({type(error).__name__})",
                "remove it, and choose the threshold again",
            ) from None

    def _write_choice(self, choice: ThresholdChoice | None) -> None:
        if choice is not None:
            write_json(self._choice_file, choice.model_dump(mode="json", exclude_none=True))
            return
        with suppress(FileNotFoundError):
            self._choice_file.unlink()


def _stamp(folder: Path) -> Stamp:
    found = set()
    with suppress(OSError):  # of a folder that is being replaced
        for entry in os.scandir(folder):
            status = entry.stat()
            found.add((entry.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return frozenset(found)


class ServedModels(Mapping[str, ServedModel]):
    """Models on the line by name; the first one is used where none is asked for.

    Parameters
    ----------
    folders: of the models, by name.
    home: folder of their versions, ``models/`` of the server.

    Raises
    ------
    ModelError, ServeError
        As :class:`ServedModel`, or without any model.
    """

    def __init__(self, folders: Mapping[str, Path], home: Path) -> None:
        if not folders:
            raise ServeError("there is no model to serve; name one or more folders that blemish export made")
        self._models = {name: ServedModel(folder, home / name) for name, folder in folders.items()}
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def __getitem__(self, name: str) -> ServedModel:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def named(self, name: str | None) -> ServedModel:
        """The model called ``name``; the first one for None.

        Raises
        ------
        UnknownModelError
            When there is none of this name.
        """
        if name is None:
            return next(iter(self._models.values()))
        if name not in self._models:
            raise UnknownModelError(f"there is no model {name!r}; {nearest(name, self._models)}")
        return self._models[name]

    def watch(self, seconds: float, changed: Callable[[ServedModel], None]) -> None:
        """Look at the folders every so many ``seconds`` until :meth:`close`; call ``changed`` after each change.

        It is called with models that took over new content, and with those whose :attr:`~ServedModel.problem` is new.
        """

        def look() -> None:
            while not self._stop.wait(seconds):
                for model in self._models.values():
                    before = model.problem
                    if model.reload() or model.problem != before:
                        changed(model)

        self._watcher = threading.Thread(target=look, name="models", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop looking at the folders."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()


class UnknownModelError(ServeError):
    """A model that is not served."""
