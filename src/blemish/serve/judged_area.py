"""Judged area of a model, calibrated on good images without training, and what its threshold then promises."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from blemish.errors import CalibrationError, FileError
from blemish.inspection.calibration import calibrated_again
from blemish.inspection.detector import Detector
from blemish.observer import Observer
from blemish.preprocessing.judged_area import JudgedArea


class AreaPromise(BaseModel):
    """What the threshold of a judged area promises, and by what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    is_recalibrated: bool
    """Whether good images calibrated the area itself; otherwise the threshold is that of whole images."""
    images: int
    """Good images that calibrated it."""
    false_reject_rate: float | None
    """Promised share of good images that are rejected; None of a threshold set by hand."""
    least_false_reject_rate: float
    """Least rate that so many images can promise."""
    guarantee: str
    note: str
    """Why it was not calibrated anew, or what was."""


def with_area(
    detector: Detector, area: JudgedArea, good: Path, observer: Observer | None = None
) -> tuple[Detector, AreaPromise]:
    """``detector`` with a judged area, calibrated on the good images in ``good`` where they are enough.

    Those calibrate that calibrated before, known by their bytes, and those that the model has never seen; what trained it
    never does. Nothing is trained.

    Parameters
    ----------
    good: folder of good images; it need not exist.

    Raises
    ------
    UsageError
        When the area does not fit the model: another orientation, of scenes, nothing left to judge.
    Stopped
        When the observer asks to stop.
    """
    masked = detector.with_judged_area(area)
    if masked.rule.rule != "conformal":
        return masked, promise_of(
            masked, "the threshold was not calibrated on good images, and stays", recalibrated=False
        )
    try:
        found = calibrated_again(masked, good, observer or Observer())
        _ = found.threshold
    except CalibrationError as error:
        note = f"the threshold of whole images stays, whose promise holds for any part of them: {error}"
        return masked, promise_of(masked, note, recalibrated=False)
    except FileError:
        note = (
            "the threshold of whole images stays, whose promise holds for any part of them: no good images are stored that "
            "may calibrate; collect some, and the area is calibrated on them"
        )
        return masked, promise_of(masked, note, recalibrated=False)
    count = len(found.decision.calibration.scores)
    return found, promise_of(
        found, f"calibrated on {count} stored good images, in the area alone", recalibrated=True
    )


def promise_of(detector: Detector, note: str, *, recalibrated: bool) -> AreaPromise:
    """What the threshold of ``detector`` promises."""
    decision = detector.decision
    count = len(decision.calibration.scores)
    return AreaPromise(
        is_recalibrated=recalibrated,
        images=count,
        false_reject_rate=decision.false_reject_rate if decision.rule == "conformal" else None,
        least_false_reject_rate=1 / (count + 1),
        guarantee=decision.guarantee,
        note=note,
    )
