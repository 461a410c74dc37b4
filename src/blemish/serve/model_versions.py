"""Versions of a served model on disk: added whole, one of them running, promoted and rolled back by one pointer."""

from __future__ import annotations

import re
import shutil
import threading
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blemish.errors import FileError, ModelError, ServeError
from blemish.inspection.document import ModelFile
from blemish.serve.contracts import utc_now
from blemish.storage.atomic import atomic_folder, write_error, write_json
from blemish.storage.leftovers import remove_leftovers
from blemish.storage.model_folder import CHECKPOINT, DETECTOR, WEIGHTS_FILE, read_document, vouched

VERSION_FILE, POINTER_FILE, VERSIONS = "version.json", "running.json", "versions"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""Names of models: a part of a path and of an address on every system."""
_Schema = TypeVar("_Schema", bound=BaseModel)
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.", re.IGNORECASE)


class UnknownVersionError(ServeError):
    """A version that there is not."""


class NoEarlierVersionError(ServeError):
    """A roll-back where no version ran before."""


class ModelVersion(BaseModel):
    """One version of a served model: ``version.json`` in its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    added: datetime
    origin: str
    """Where it came from: ``command line``, or the name of the fit that made it."""
    content_sha256: str
    """SHA-256 of its ``model.json``, which vouches for its other files."""
    weights_sha256: str


class RunningVersion(BaseModel):
    """The version that runs, and those that ran before, the newest last: ``running.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    before: tuple[int, ...] = ()


def check_model_name(name: str) -> str:
    """``name`` if it can be that of a served model.

    Raises
    ------
    ServeError
        When it is empty, too long, or has signs that paths or addresses do not take.

    >>> check_model_name("screw-M4")
    'screw-M4'
    """
    if not NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        raise ServeError(
            f"{name!r} is no name of a model; take up to 63 letters, digits, dots, dashes and underscores, "
            "with a letter or a digit first"
        )
    return name


class ModelVersions:
    """Versions of one model in ``folder``; safe for threads of one process.

    Each lies in ``versions/NUMBER``, a model folder with ``version.json`` beside the files of the model. It takes its
    name when it is complete, so that what lies there is whole. ``running.json`` names the version that runs; replacing this
    file is the promotion.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = check_model_name(self.folder.name)
        self._lock = threading.Lock()
        if (self.folder / VERSIONS).is_dir():
            remove_leftovers(self.folder / VERSIONS)

    def folder_of(self, number: int) -> Path:
        """Model folder of a version."""
        return self.folder / VERSIONS / str(number)

    def all(self) -> list[ModelVersion]:
        """All versions by rising number.

        Raises
        ------
        FileError
            When a ``version.json`` is damaged.
        """
        found: list[ModelVersion] = []
        if (self.folder / VERSIONS).is_dir():
            paths = (self.folder / VERSIONS).glob(f"*/{VERSION_FILE}")
            found = [_read(path, ModelVersion) for path in paths if path.parent.name.isdecimal()]
        return sorted(found, key=lambda version: version.number)

    def version(self, number: int) -> ModelVersion:
        """One version.

        Raises
        ------
        UnknownVersionError
            When there is none of this number.
        """
        path = self.folder_of(number) / VERSION_FILE
        if not path.is_file():
            raise UnknownVersionError(f"model {self.name} has no version {number}; {self._there_are()}")
        return _read(path, ModelVersion)

    def pointer(self) -> RunningVersion | None:
        """The running version and those before it; None where none was ever promoted."""
        path = self.folder / POINTER_FILE
        return _read(path, RunningVersion) if path.is_file() else None

    def running(self) -> ModelVersion | None:
        """The version that runs; None where none was ever promoted."""
        pointer = self.pointer()
        return None if pointer is None else self.version(pointer.number)

    def running_folder(self) -> Path:
        """Model folder of the version that runs.

        Raises
        ------
        ServeError
            When none was promoted.
        """
        running = self.running()
        if running is None:
            raise ServeError(f"no version of model {self.name} runs; promote one: {self._there_are()}")
        return self.folder_of(running.number)

    def add(self, model: str | Path, origin: str) -> ModelVersion:
        """Copy a model folder as the next version; a model that is there already is not added again.

        Raises
        ------
        ModelError
            When ``model`` is no finished detector of images, or is damaged.
        FileError
            When it cannot be copied.
        """
        model = Path(model)
        document = served_document(model)
        assert document.content_sha256 is not None
        with self._lock:
            for version in self.all():
                if version.content_sha256 == document.content_sha256:
                    return version
            number = 1 + max(self._numbers(), default=0)
            version = ModelVersion(
                number=number,
                added=utc_now(),
                origin=origin,
                content_sha256=document.content_sha256,
                weights_sha256=document.weights_sha256,
            )
            with atomic_folder(self.folder_of(number)) as temporary:
                try:
                    _copy(model, temporary)
                except OSError as error:
                    raise write_error(self.folder_of(number), error) from None
                write_json(temporary / VERSION_FILE, version.model_dump(mode="json"))
                _refuse_damaged(model, temporary, document)
            return version

    def adopt(self, model: str | Path) -> ModelVersion:
        """The version to run of a model that the command line names.

        A model that is new here is added and runs. One that is known changes nothing, so that a promotion or a roll-back
        from the page outlives a restart of the server with the same command.

        Raises
        ------
        ModelError, FileError
            As :meth:`add`.
        """
        known = {version.content_sha256 for version in self.all()}
        version = self.add(model, "command line")
        running = self.running()
        if running is None or version.content_sha256 not in known:
            return self.promote(version.number)
        return running

    def promote(self, number: int) -> ModelVersion:
        """Make a version the one that runs.

        Raises
        ------
        UnknownVersionError
            When there is none of this number.
        FileError
            When the pointer cannot be written.
        """
        version = self.version(number)
        with self._lock:
            pointer = self.pointer()
            if pointer is None:
                self._point(RunningVersion(number=number))
            elif pointer.number != number:
                self._point(RunningVersion(number=number, before=(*pointer.before, pointer.number)))
        return version

    def previous(self) -> ModelVersion | None:
        """The version that a roll-back returns to; None where there is none."""
        pointer = self.pointer()
        return self.version(pointer.before[-1]) if pointer is not None and pointer.before else None

    def roll_back(self) -> ModelVersion:
        """Make the version run that ran before.

        Raises
        ------
        NoEarlierVersionError
            When none ran before.
        FileError
            When the pointer cannot be written.
        """
        with self._lock:
            pointer = self.pointer()
            if pointer is None or not pointer.before:
                raise NoEarlierVersionError(
                    f"no version of model {self.name} ran before; promote one: {self._there_are()}"
                )
            *before, number = pointer.before
            version = self.version(number)
            self._point(RunningVersion(number=number, before=tuple(before)))
        return version

    def _numbers(self) -> list[int]:
        """Numbers of all folders of versions, complete or not."""
        folder = self.folder / VERSIONS
        return [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]

    def _point(self, pointer: RunningVersion) -> None:
        write_json(self.folder / POINTER_FILE, pointer.model_dump(mode="json"))

    def _there_are(self) -> str:
        numbers = ", ".join(str(version.number) for version in self.all())
        return f"there are {numbers}" if numbers else "there is none"


def served_document(model: Path) -> ModelFile:
    """``model.json`` of a model that can be served.

    Raises
    ------
    ModelError
        When the folder is no finished, calibrated detector of single images.
    """
    document = read_document(model, DETECTOR, ModelFile)
    if document.subject != "images":
        raise ModelError(
            model,
            "was fitted on scenes",
            "serve a model of single images; inspect scenes with blemish inspect",
        )
    if document.calibration is None:
        raise ModelError(model, "is not calibrated", "run blemish calibrate")
    return document


def _refuse_damaged(model: Path, copied: Path, document: ModelFile) -> None:
    """Raise a ModelError of ``model`` unless its copy is what ``document`` vouches for."""
    if served_document(copied).content_sha256 != document.content_sha256:
        raise ModelError(model, "changed while it was copied", "add it again")
    graphs = {} if document.export is None else document.export.graphs
    try:
        for name, digest in {WEIGHTS_FILE: document.weights_sha256, **graphs}.items():
            vouched(copied / name, digest)
    except ModelError as error:
        raise ModelError(model / error.path.name, error.problem, error.remedy) from None


def _copy(model: Path, target: Path) -> None:
    for path in sorted(model.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.name != VERSION_FILE:
            shutil.copyfile(path, target / path.name)
        elif path.is_dir() and path.name != CHECKPOINT and not path.is_symlink():
            # OpenVINO's graphs and the like; a model folder has no deeper ones.
            (target / path.name).mkdir()
            _copy(path, target / path.name)


def _read(path: Path, schema: type[_Schema]) -> _Schema:
    try:
        return schema.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror})", "check its permissions") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise FileError(
            path, f"is damaged ({first['msg']})", "remove this version, or restore the file"
        ) from None
