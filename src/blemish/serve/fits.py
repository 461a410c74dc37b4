"""Fits from the page: one at a time, in a process of its own, with its state on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field, field_validator

from blemish.errors import BlemishError, FileError, MissingExtraError, ServeError
from blemish.extras import EXTRAS, install_line
from blemish.recipes import load_recipe, recipe_names
from blemish.serve.confirmed_defects import LEAST_DEFECTS, JudgedParts, PartsOf, write_defects
from blemish.serve.contracts import utc_now
from blemish.serve.fit_process import FitProgress, ask_to_stop, begin, is_alive, new_lines
from blemish.serve.good_images import GoodImageFolder
from blemish.serve.model_versions import ModelVersions, check_model_name
from blemish.serve.verdicts import JudgedImage
from blemish.storage.atomic import write_json
from blemish.storage.model_folder import MODEL_FILE

STATE_FILE, LOG_FILE = "fit.json", "fit.log"
GOOD, DEFECTS, MODEL, EXPORTED = "good", "defects", "model", "exported"
LOOK_SECONDS = 0.3
LEAST_IMAGES = 3

State = Literal["running", "finished", "failed", "stopped", "interrupted"]


class FitRequest(BaseModel):
    """A fit as it is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        description="model on the line whose good images are taken, and whose version it becomes"
    )
    budget: str | None = Field(None, pattern=r"^[0-9]{1,6}[smh]$", description="time of the fit: 90s, 5m, 1h")
    false_reject_rate: float | None = Field(None, gt=0, lt=1)
    recipe: str | None = Field(None, max_length=100, description="a recipe of the package")
    settings: tuple[str, ...] = Field((), max_length=50, description="KEY=VALUE")
    warm_start: bool = Field(False, description="go on from the fit that made the running version")
    use_defects: bool = Field(
        False, description="confirmed defects choose the models of the ensemble; those for tests never do"
    )

    @field_validator("recipe")
    @classmethod
    def _known(cls, recipe: str | None) -> str | None:
        if recipe is not None and recipe not in recipes():
            raise ValueError(f"is none of {', '.join(recipes())}")
        return recipe

    @field_validator("settings")
    @classmethod
    def _pairs(cls, settings: tuple[str, ...]) -> tuple[str, ...]:
        for setting in settings:
            if "=" not in setting or len(setting) > 200:
                raise ValueError(f"has {setting[:50]!r}; write KEY=VALUE")
        return settings


class FitState(BaseModel):
    """A fit: ``fit.json`` in its folder."""

    model_config = ConfigDict(extra="forbid")

    id: int
    request: FitRequest
    state: State
    begun: datetime
    ended: datetime | None = None
    images: int
    defects: int = 0
    """Confirmed defects that choose."""
    warm_start: str | None = None
    """Fit that it goes on from."""
    process: int | None = None
    step: Literal["fit", "export"] = "fit"
    log_from: int = 0
    """Bytes of ``fit.log`` that earlier processes wrote."""
    progress: FitProgress = Field(default_factory=FitProgress)
    version: int | None = None
    """Version of the model that it became."""
    stop_asked: bool = False

    @computed_field  # type: ignore[prop-decorator]
    @property
    def can_resume(self) -> bool:
        """Whether it can go on where it ended."""
        return self.state in ("interrupted", "stopped", "failed")


class FitNotFoundError(ServeError):
    """A fit that there is not."""


class FitConflictError(ServeError):
    """A fit that cannot begin, stop or go on now."""


@cache
def recipes() -> tuple[str, ...]:
    """Recipes of the package that need no downloaded weights."""
    return tuple(name for name in recipe_names() if set(load_recipe(name).needs) == {"train"})


class FitAvailability(BaseModel):
    """Whether this machine can fit."""

    is_available: bool
    missing: list[str]
    remedy: str


def availability() -> FitAvailability:
    """Packages that a fit needs and this environment lacks; none of them is loaded."""
    needed = [module for extra in ("train", "export") for module, _ in EXTRAS[extra]]
    missing = [name for name in needed if find_spec(name) is None]
    remedy = install_line("train,export") if missing else ""
    return FitAvailability(is_available=not missing, missing=missing, remedy=remedy)


class Fits:
    """Fits in ``folder``, each in ``ID/`` with its good images, its model, the exported one and ``fit.log``.

    Parameters
    ----------
    good_of: good images of a model.
    versions_of: versions of a model, which a finished fit joins.
    judged_of: judged images of a model.
    changed: called with a fit whenever its state or its progress is new.
    """

    def __init__(
        self,
        folder: str | Path,
        good_of: Callable[[str], GoodImageFolder],
        versions_of: Callable[[str], ModelVersions],
        judged_of: PartsOf,
        changed: Callable[[FitState], None] = lambda fit: None,
    ) -> None:
        self.folder = Path(folder).absolute()
        self._good_of, self._versions_of = good_of, versions_of
        self._judged_of, self._changed = judged_of, changed
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._follower: threading.Thread | None = None
        self._fits = self._read_all()
        for fit in self._fits.values():
            if fit.state == "running":
                self._follow(fit, None)

    # -- what there is ----------------------------------------------------------------------------------

    def all(self) -> list[FitState]:
        """All fits, the newest first."""
        with self._lock:
            return [fit.model_copy(deep=True) for _, fit in sorted(self._fits.items(), reverse=True)]

    def fit(self, number: int) -> FitState:
        """One fit.

        Raises
        ------
        FitNotFoundError
            When there is none of this number.
        """
        with self._lock:
            return self._known(number).model_copy(deep=True)

    def folder_of(self, number: int) -> Path:
        """Folder of a fit."""
        return self.folder / str(number)

    # -- what is asked for ------------------------------------------------------------------------------

    def start(self, request: FitRequest) -> FitState:
        """Begin a fit on a copy of the good images that there are now, without those that are for tests.

        Raises
        ------
        MissingExtraError
            When torch or the export's packages are not installed.
        FitConflictError
            When another fit runs, or there are too few good images or defects.
        ServeError
            When there is nothing to go on from.
        FileError
            When it cannot be written.
        """
        self._refuse_without_torch()
        check_model_name(request.model)
        with self._lock:
            self._refuse_second()
            good, judged = self._good_of(request.model), self._judged_of(request.model)
            origin = self._origin(request) if request.warm_start else None
            number = 1 + max((int(path.name) for path in self._folders()), default=0)
            folder = self.folder_of(number)
            tests = {one.decision.image_sha256 for one in judged.to_test}
            defects = self._defects(request, judged, good, origin) if request.use_defects else []
            images = good.snapshot(folder / GOOD, tests)
            if images < LEAST_IMAGES:
                shutil.rmtree(folder, ignore_errors=True)
                raise FitConflictError(
                    f"there are {images} good images of {request.model}; collect some, 30 or more for most promises"
                )
            if defects:
                write_defects(defects, folder / DEFECTS)
            fit = FitState(id=number, request=request, state="running", begun=utc_now(), images=images)
            fit.defects, fit.warm_start = len(defects), origin
            self._fits[number] = fit
            self._run(fit)
            return fit.model_copy(deep=True)

    def resume(self, number: int) -> FitState:
        """Go on with a fit that was stopped, or that ended with its server.

        Raises
        ------
        FitNotFoundError, MissingExtraError
        FitConflictError
            When it has ended by itself, or another one runs.
        """
        self._refuse_without_torch()
        with self._lock:
            fit = self._known(number)
            if not fit.can_resume:
                raise FitConflictError(f"fit {number} is {fit.state}; start another one")
            self._refuse_second()
            fit.state, fit.ended, fit.stop_asked = "running", None, False
            fit.progress = FitProgress(problems=fit.progress.problems)
            self._run(fit)
            return fit.model_copy(deep=True)

    def stop(self, number: int) -> FitState:
        """Ask a fit to stop; it ends after its step and can be resumed.

        Raises
        ------
        FitNotFoundError
        FitConflictError
            When it does not run.
        """
        with self._lock:
            fit = self._known(number)
            if fit.state != "running" or fit.process is None:
                raise FitConflictError(f"fit {number} is {fit.state}; there is nothing to stop")
            fit.stop_asked = True
            self._note(fit)
            ask_to_stop(fit.process)
            return fit.model_copy(deep=True)

    def close(self, seconds: float = 10.0) -> None:
        """Ask the running fit to stop, and wait for it; one that takes longer is found by the next server."""
        self._closing.set()
        with self._lock:
            running = [fit.process for fit in self._fits.values() if fit.state == "running"]
        for process in running:
            if process is not None:
                ask_to_stop(process)
        if self._follower is not None:
            self._follower.join(seconds)

    # -- how it runs ------------------------------------------------------------------------------------

    def _run(self, fit: FitState) -> None:
        log = self.folder_of(fit.id) / LOG_FILE
        fit.log_from = log.stat().st_size if log.exists() else 0
        self._follow(fit, self._begin(fit))

    def _begin(self, fit: FitState) -> subprocess.Popen[bytes] | None:
        """Process of the next command of a fit; None where there is nothing left to do."""
        folder = self.folder_of(fit.id)
        if _is_there(folder / EXPORTED):
            return None
        fit.step = "export" if _is_there(folder / MODEL) else "fit"
        fit.progress.error = None
        process = begin(
            self._export(folder) if fit.step == "export" else self._fit(fit, folder), folder / LOG_FILE
        )
        fit.process = process.pid
        self._note(fit)
        return process

    def _fit(self, fit: FitState, folder: Path) -> list[str]:
        request = fit.request
        words = ["fit", str(folder / GOOD), "--out", str(folder / MODEL), "--resume"]
        if request.recipe is not None:
            words += ["--recipe", request.recipe]
        if request.budget is not None:
            words += ["--budget", request.budget]
        if request.false_reject_rate is not None:
            words += ["--false-reject-rate", repr(request.false_reject_rate)]
        if fit.defects:
            words += ["--defects", str(folder / DEFECTS)]
        if fit.warm_start is not None:
            words += ["--continue", str(self.folder / fit.warm_start / MODEL)]
        return words + [word for setting in request.settings for word in ("--set", setting)]

    @staticmethod
    def _export(folder: Path) -> list[str]:
        model, good, exported = (str(folder / name) for name in (MODEL, GOOD, EXPORTED))
        return ["export", model, good, "--out", exported, "--overwrite"]

    def _follow(self, fit: FitState, process: subprocess.Popen[bytes] | None) -> None:
        self._follower = threading.Thread(
            target=self._watch, args=(fit, process), name=f"fit-{fit.id}", daemon=True
        )
        self._follower.start()

    def _watch(self, fit: FitState, process: subprocess.Popen[bytes] | None) -> None:
        """Take in what the processes of a fit print until it has ended."""
        folder = self.folder_of(fit.id)
        offset = fit.log_from
        if process is None:  # found again after a restart: its lines are read again
            fit.progress = FitProgress()
        pause = threading.Event()
        while True:
            is_running = self._is_running(fit, process)
            offset = self._read(fit, folder / LOG_FILE, offset)
            if is_running:
                pause.wait(LOOK_SECONDS)
                continue
            try:
                with self._lock:
                    is_fitted = fit.step == "fit" and _is_there(folder / MODEL)
                    if is_fitted and not fit.stop_asked and not self._closing.is_set():
                        process = self._begin(fit)
                        continue
                    self._end(fit, folder)
            except (BlemishError, OSError) as error:
                with self._lock:
                    fit.progress.error = str(error)
                    self._conclude(fit, "failed")
            return

    def _is_running(self, fit: FitState, process: subprocess.Popen[bytes] | None) -> bool:
        if process is not None:
            return process.poll() is None
        return fit.process is not None and is_alive(fit.process, self.folder_of(fit.id))

    def _read(self, fit: FitState, log: Path, offset: int) -> int:
        is_new = False
        for line, end in new_lines(log, offset):
            with self._lock:
                # People know the fit, not the folder of the server that it is in.
                fit.progress.take(line.replace(f"{log.parent}{os.sep}", ""))
            offset, is_new = end, True
        if is_new:
            self._note(fit)
        return offset

    def _end(self, fit: FitState, folder: Path) -> None:
        if _is_there(folder / EXPORTED):
            version = self._versions_of(fit.request.model).add(folder / EXPORTED, f"fit {fit.id}")
            fit.version, fit.progress.error = version.number, None
            self._conclude(fit, "finished")
        elif fit.stop_asked or self._closing.is_set():
            fit.progress.error = None
            self._conclude(fit, "stopped" if fit.stop_asked else "interrupted")
        else:
            # A process that was killed, as by a lack of memory or with its server, leaves no line.
            self._conclude(fit, "interrupted" if fit.progress.error is None else "failed")

    def _conclude(self, fit: FitState, state: State) -> None:
        fit.state, fit.process, fit.ended = state, None, utc_now()
        self._note(fit)

    # -- on disk ----------------------------------------------------------------------------------------

    def _note(self, fit: FitState) -> None:
        """Write the state down and tell who looks on; a full disk is met by the fit itself."""
        with self._lock:
            with suppress(FileError):
                write_json(
                    self.folder_of(fit.id) / STATE_FILE, fit.model_dump(mode="json", exclude={"can_resume"})
                )
            copy = fit.model_copy(deep=True)
        self._changed(copy)

    def _read_all(self) -> dict[int, FitState]:
        found = {}
        for folder in self._folders():
            with suppress(OSError, ValidationError):  # begun and killed before its state was written
                fit = FitState.model_validate_json((folder / STATE_FILE).read_bytes())
                found[fit.id] = fit
        return found

    def _folders(self) -> list[Path]:
        return [path for path in self.folder.glob("*") if path.name.isdecimal()]

    # -- refusals ---------------------------------------------------------------------------------------

    def _known(self, number: int) -> FitState:
        if number not in self._fits:
            raise FitNotFoundError(f"there is no fit {number}; see the list of fits")
        return self._fits[number]

    def _refuse_second(self) -> None:
        for fit in self._fits.values():
            if fit.state == "running":
                raise FitConflictError(f"fit {fit.id} runs; wait for its end, or stop it")

    def _defects(
        self, request: FitRequest, judged: JudgedParts, good: GoodImageFolder, origin: str | None
    ) -> list[JudgedImage]:
        if request.recipe is not None and load_recipe(request.recipe).combination != "soft-maximum":
            raise FitConflictError(
                f"{request.recipe} has nothing for defects to choose from; leave the recipe out, or the defects"
            )
        found = judged.choosing(good, None if origin is None else self.folder / origin / MODEL)
        if len(found) < LEAST_DEFECTS:
            problem = f"there are {len(found)} confirmed defects of {request.model} to choose by"
            raise FitConflictError(f"{problem}; judge more, {LEAST_DEFECTS} at least")
        return found

    @staticmethod
    def _refuse_without_torch() -> None:
        found = availability()
        if not found.is_available:
            raise MissingExtraError(
                f"a fit needs {', '.join(found.missing)}, which this machine lacks; {found.remedy}"
            )

    def _origin(self, request: FitRequest) -> str:
        running = self._versions_of(request.model).running()
        origin = "" if running is None else running.origin
        number = origin.removeprefix("fit ")
        if not number.isdecimal() or not _is_there(self.folder / number / MODEL):
            raise ServeError(
                f"the running version of {request.model} was made by no fit on this page; start without warm_start, or "
                "use blemish fit --continue"
            )
        return number


def _is_there(model: Path) -> bool:
    """Whether a model folder is finished: its JSON is written last."""
    return (model / MODEL_FILE).is_file()
