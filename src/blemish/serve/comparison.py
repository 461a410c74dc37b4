"""A candidate compared with the running model on the kept images of the history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from pydantic import BaseModel, Field

from blemish.data.image import LoadedImage
from blemish.errors import BlemishError
from blemish.inspection.detector import Detector
from blemish.serve.contracts import StoredDecision
from blemish.serve.good_images import is_good
from blemish.serve.verdicts import is_to_test


class SideFigures(BaseModel):
    """Figures of one of the two models."""

    rejected: int = 0
    agreeing: int = 0
    """Decisions that agree with the operator's verdict, of the judged ones."""
    seconds: float = 0.0
    """Mean time of an inspection."""


class ChangedDecision(BaseModel):
    """A decision that the candidate would make otherwise."""

    decision: StoredDecision
    """As it is in the history."""
    running_score: float
    candidate_score: float
    candidate_threshold: float
    candidate_rejects: bool


class ComparisonResult(BaseModel):
    """Both models on the same images."""

    compared: int = 0
    judged: int = 0
    """Images with a verdict of an operator that no fit has seen (:func:`~blemish.serve.verdicts.is_to_test`)."""
    skipped: int = 0
    """Decisions whose image is not kept, or that one of the models cannot inspect."""
    newly_rejected: int = 0
    newly_accepted: int = 0
    running: SideFigures = Field(default_factory=SideFigures)
    candidate: SideFigures = Field(default_factory=SideFigures)
    changed: list[ChangedDecision] = Field(default_factory=list)
    """The newest that change."""


def compare(
    running: Detector,
    candidate: Detector,
    decisions: Iterable[StoredDecision],
    image_of: Callable[[StoredDecision], LoadedImage | None],
    *,
    progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
    most_changed: int = 48,
) -> ComparisonResult:
    """Inspect the images of decisions by both models.

    Both inspect anew, so that a threshold or a mask that changed since counts for both.

    Parameters
    ----------
    image_of: image of a decision; None where it is not kept.
    progress: called with the number of decisions that are done.
    """
    found = ComparisonResult()
    for done, decision in enumerate(decisions, start=1):
        if should_stop():
            break
        _compare_one(found, running, candidate, decision, image_of, most_changed)
        progress(done)
    for side in (found.running, found.candidate):
        side.seconds /= max(1, found.compared)
    return found


def _compare_one(
    found: ComparisonResult,
    running: Detector,
    candidate: Detector,
    decision: StoredDecision,
    image_of: Callable[[StoredDecision], LoadedImage | None],
    most_changed: int,
) -> None:
    try:
        image = image_of(decision)
        if image is None:
            found.skipped += 1
            return
        begun = time.perf_counter()
        before = running.inspect(image, name=decision.name)
        between = time.perf_counter()
        after = candidate.inspect(image, name=decision.name)
    except BlemishError:  # an image of another depth than one of the models was fitted on
        found.skipped += 1
        return
    found.compared += 1
    good = is_good(decision) if is_to_test(decision.image_sha256) else None
    found.judged += good is not None
    for side, rejects, seconds in (
        (found.running, before.is_anomalous, between - begun),
        (found.candidate, after.is_anomalous, time.perf_counter() - between),
    ):
        side.rejected += rejects
        side.agreeing += good is not None and rejects != good
        side.seconds += seconds
    if before.is_anomalous == after.is_anomalous:
        return
    found.newly_rejected += after.is_anomalous
    found.newly_accepted += before.is_anomalous
    if len(found.changed) < most_changed:
        found.changed.append(
            ChangedDecision(
                decision=decision,
                running_score=before.score,
                candidate_score=after.score,
                candidate_threshold=after.threshold,
                candidate_rejects=after.is_anomalous,
            )
        )
