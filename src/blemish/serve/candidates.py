"""New versions of models: good images for them, fits, and comparisons with the running version."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from blemish.errors import BlemishError, ServeError
from blemish.inspection.detector import Detector, load
from blemish.serve.comparison import ComparisonResult, compare
from blemish.serve.confirmed_defects import JudgedParts, judged_parts
from blemish.serve.contracts import StoredDecision
from blemish.serve.decision_images import DecisionImages
from blemish.serve.fits import Fits, FitState
from blemish.serve.good_images import GoodImageFolder
from blemish.serve.history import IMAGES, History, HistoryFilter, KeptImages
from blemish.serve.model_versions import ModelVersions, check_model_name

FITS, GOOD, MODELS = "fits", "good", "models"
MOST_COMPARED = 500
"""Kept images that a comparison looks at, the newest."""
MOST_SEARCHED = 200_000
"""Decisions that are searched for images, the newest."""
_PAGE = 200


class ComparisonState(BaseModel):
    """A comparison of a candidate with the running version of a model."""

    state: Literal["running", "finished", "failed"]
    candidate: int
    running: int
    done: int = 0
    total: int = 0
    result: ComparisonResult | None = None
    error: str | None = None


class ComparisonConflictError(ServeError):
    """A comparison while another one runs, or of a version with itself."""


class Candidates:
    """What makes new versions of the models in ``home``, and tries them.

    Parameters
    ----------
    images: of decisions, which are collected and compared on.
    changed: called with a fit whenever its state or its progress is new.
    max_pixels: of a good image.
    """

    def __init__(
        self,
        home: Path,
        history: History,
        images: DecisionImages,
        *,
        changed: Callable[[FitState], None] = lambda fit: None,
        max_pixels: int,
    ) -> None:
        self.home, self.history, self.images = home, history, images
        self._max_pixels = max_pixels
        self._kept = KeptImages(home / IMAGES)
        self.fits = Fits(home / FITS, self.good_of, self.versions_of, self.judged_of, changed)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._comparisons: dict[str, ComparisonState] = {}
        self._thread: threading.Thread | None = None

    def good_of(self, model: str) -> GoodImageFolder:
        """Good images that are collected for a model."""
        return GoodImageFolder(self.home / GOOD / check_model_name(model), max_pixels=self._max_pixels)

    def versions_of(self, model: str) -> ModelVersions:
        """Versions of a model."""
        return ModelVersions(self.home / MODELS / model)

    def judged_of(self, model: str) -> JudgedParts:
        """Judged images of a model, for fits and for tests."""
        return judged_parts(self.history, self._kept, model)

    def kept(self, model: str) -> Iterator[StoredDecision]:
        """Decisions of a model whose image is kept, the newest first, among the newest :data:`MOST_SEARCHED`."""
        before, searched = None, 0
        while searched < MOST_SEARCHED:
            page = self.history.page(HistoryFilter(model=model), before, _PAGE)
            yield from (
                decision for decision in page if decision.kept or self.images.find(decision) is not None
            )
            if len(page) < _PAGE:
                return
            before, searched = page[-1].id, searched + len(page)

    def comparison(self, model: str) -> ComparisonState | None:
        """The newest comparison of a model; None where there was none since the start."""
        with self._lock:
            found = self._comparisons.get(model)
            return None if found is None else found.model_copy()

    def compare(self, model: str, number: int, running: Detector, running_number: int) -> ComparisonState:
        """Begin to compare a version with the running one on the newest kept images.

        Raises
        ------
        ComparisonConflictError
            While another comparison runs, or when the version is the running one.
        ServeError, ModelError
            When there is no such version, or it is damaged.
        """
        if number == running_number:
            raise ComparisonConflictError(
                f"version {number} of {model} is the one that runs; name another one"
            )
        versions = self.versions_of(model)
        versions.version(number)
        with self._lock:
            if any(one.state == "running" for one in self._comparisons.values()):
                raise ComparisonConflictError("another comparison runs; wait for its end")
            candidate = load(versions.folder_of(number))
            state = ComparisonState(state="running", candidate=number, running=running_number)
            self._comparisons[model] = state
            self._thread = threading.Thread(
                target=self._run, args=(model, state, running, candidate), name="compare", daemon=True
            )
            self._thread.start()
            return state.model_copy()

    def _run(self, model: str, state: ComparisonState, running: Detector, candidate: Detector) -> None:
        def progress(done: int) -> None:
            state.done = done

        channels = running.file.preprocessing.channels
        try:
            decisions = []
            for decision in self.kept(model):
                decisions.append(decision)
                if len(decisions) == MOST_COMPARED:
                    break
            state.total = len(decisions)
            result = compare(
                running,
                candidate,
                decisions,
                lambda decision: self.images.loaded(decision, channels),
                progress=progress,
                should_stop=self._closing.is_set,
            )
        except (BlemishError, OSError) as error:
            with self._lock:
                state.error, state.state = str(error), "failed"
            return
        with self._lock:
            state.result, state.state = result, "finished"

    def close(self) -> None:
        """Stop the running comparison and the running fit, which can be resumed."""
        self._closing.set()
        self.fits.close()
        if self._thread is not None:
            self._thread.join()
