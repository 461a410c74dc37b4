"""Calibration of a fitted model: scores of held-out good images, and the decision that rests on them."""

from __future__ import annotations

from blemish.decision import trimmed
from blemish.detectors.ensemble import Ensemble
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.inspection.detector import Calibration, Detector, ModelFile
from blemish.training.fit_run import FitRun


def calibrate(model: ReconstructionModel | Ensemble, file: ModelFile, run: FitRun) -> Detector:
    """The detector with its decision, calibrated without the share of largest scores that ``threshold.trim`` sets.

    Parameters
    ----------
    file: document of the model, without calibration.

    Raises
    ------
    Stopped
        When the observer asked to stop.
    """
    source, observer = run.source, run.observer
    uncalibrated = Detector(model, file)
    observer.stage(f"Calibrating the decision on {source.describe('calibration')}")
    scores, maxima = source.scores(uncalibrated, "calibration", observer)
    training_scores: tuple[float, ...] = ()
    if run.recipe.threshold.rule == "train-mean":
        observer.stage(f"Scoring {source.describe('train')}, whose mean is the threshold")
        training_scores, _ = source.scores(uncalibrated, "train", observer)
    left_out = trimmed(scores, run.recipe.threshold.trim)
    names = file.split["calibration"]
    stay = [number for number in range(len(scores)) if number not in left_out]
    unit = source.calibration_unit(stay)
    calibration = Calibration(
        scores=tuple(scores[number] for number in stay),
        peaks=tuple(maxima[number] for number in stay),
        training_scores=training_scores,
        left_out={names[number]: scores[number] for number in left_out},
        square=unit.square,
        groups=unit.groups,
    )
    split = file.split
    if left_out:
        split = {**split, "calibration": tuple(names[number] for number in stay)}
    return Detector(model, file.model_copy(update={"calibration": calibration, "split": split}))
