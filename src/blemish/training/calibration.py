"""Calibration of a fitted model: scores of held-out good images, and the decision that rests on them."""

from __future__ import annotations

from blemish.detectors.ensemble import for_inspection
from blemish.errors import CalibrationError
from blemish.inspection.calibration import calibrated, validated, with_usual_scores
from blemish.inspection.detector import Detector
from blemish.inspection.document import ModelFile
from blemish.training.fit_run import FitRun
from blemish.training.scene_source import SceneSource


def calibrate(run: FitRun, file: ModelFile) -> Detector:
    """The detector with its decision, calibrated without the share of largest scores that ``threshold.trim`` sets.

    Parameters
    ----------
    file: document of the model, without calibration.

    Images that have become unreadable since the fit began are reported, and the others calibrate.

    Raises
    ------
    CalibrationError
        When too few are left for the false-reject rate; the trained network stays in the checkpoint.
    Stopped
        When the observer asked to stop.
    """
    source, observer = run.source, run.observer
    detector = Detector(for_inspection(run.model), file)
    area = file.preprocessing.area
    if area is not None and area.classes:
        observer.stage(f"Measuring the usual scores of {len(area.classes)} classes of regions")
        file = with_usual_scores(file, source.scores(detector, "validation", observer))
        detector = detector.with_file(file)
    holds_out = run.recipe.threshold.hold_out
    part = "calibration" if holds_out else "validation"
    observer.stage(f"Calibrating the decision on {source.describe(part)}")
    scored = source.scores(detector, part, observer)
    training_scores: tuple[float, ...] = ()
    if run.recipe.threshold.rule == "train-mean":
        observer.stage(f"Scoring {source.describe('train')}, whose mean is the threshold")
        training_scores = source.scores(detector, "train", observer).scores
    if not holds_out:
        file = file.model_copy(update={"calibration": validated(scored, training_scores)})
        return detector.with_file(file)
    found = detector.with_file(calibrated(file, scored, training_scores, source.unit))
    try:
        _ = found.threshold
    except CalibrationError as error:
        if not scored.missing:
            raise
        raise CalibrationError(
            f"{error}; or bring back the images named above, and go on with --resume"
        ) from None
    if isinstance(source, SceneSource):
        found = found.with_file(source.calibrated_without(found, observer))
    return found
