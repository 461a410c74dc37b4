"""Calibration for scenes that lack modalities: the score is a mean over those that are there, so that it depends on which.

The calibration squares are scored again as if a modality were missing, each in turn, and every set that is missing in a
scene of the fit. A scene is decided by the calibration of its own set.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from blemish.data.scene_reader import SceneReader
from blemish.data.scene_splits import Square
from blemish.decision import Calibration, Decision, SceneSquares
from blemish.errors import CalibrationError
from blemish.inspection.detector import Detector
from blemish.inspection.document import CalibrationWithout, ModelFile
from blemish.inspection.square_scores import CALIBRATING, least_squares, score_squares
from blemish.observer import Observer


@dataclass(frozen=True)
class SubsetDecision:
    """The decision for a scene, and what is to be said of it."""

    decision: Decision
    notices: tuple[str, ...] = ()


def calibrate_subsets(
    detector: Detector,
    scenes: Sequence[SceneReader],
    squares: Sequence[Square],
    observer: Observer,
    doing: str = CALIBRATING,
) -> ModelFile:
    """The document of a calibrated detector with its calibrations for scenes that lack modalities.

    Nothing changes for a model that cannot do without a modality, or whose rule promises nothing. A set for which too few
    squares are left is passed over.

    Raises
    ------
    ImageError
        When a scene cannot be read.
    Stopped
        When the observer asked to stop.
    """
    file, rule = detector.file, detector.rule
    names = [one.name for one in file.preprocessing.modalities]
    if rule.rule != "conformal" or not detector.model.takes_absent or len(names) < 2:
        return file
    sets = [frozenset({name}) for name in names]
    sets += sorted({frozenset(scene.missing) for scene in scenes if scene.missing} - set(sets), key=sorted)
    found = []
    for lacking in sets:
        readers = [scene.leaving_out(lacking) for scene in scenes]
        usable = {number for number, reader in enumerate(readers) if reader is not None}
        shown = [scene if reader is None else reader for scene, reader in zip(scenes, readers, strict=True)]
        own = [square for square in squares if square.scene in usable]
        if len(own) < least_squares(rule):
            continue
        observer.stage(f"Calibrating the decision without {', '.join(sorted(lacking))}")
        scored = score_squares(detector, shown, own, observer, doing)
        if len(scored.scores) < least_squares(rule):
            continue
        side = own[0].rows.stop - own[0].rows.start
        found.append(
            CalibrationWithout(
                names=tuple(sorted(lacking)),
                calibration=Calibration(
                    scores=scored.scores, map_maxima=scored.map_maxima, unit=SceneSquares(side=side)
                ),
            )
        )
    return file.model_copy(update={"without": tuple(found)})


def decision_without(detector: Detector, lacking: Collection[str]) -> SubsetDecision:
    """The decision for a scene that lacks modalities.

    Where their set was not calibrated it is the strictest of the decisions without one of them, and a notice says that
    the promise is not for this scene.
    """
    decision = detector.decision
    if not lacking or decision.rule != "conformal":
        return SubsetDecision(decision)
    together = ", ".join(sorted(lacking))

    def decided_by(calibration: Calibration) -> Decision | None:
        own = decision.model_copy(update={"calibration": calibration})
        try:
            _ = own.threshold
        except CalibrationError:
            return None
        return own

    by_names = {frozenset(one.names): one.calibration for one in detector.file.without}
    exact = by_names.get(frozenset(lacking))
    own = None if exact is None else decided_by(exact)
    if own is not None:
        count = len(own.calibration.scores)
        return SubsetDecision(own, (f"decided by {count} calibration squares scored without {together}",))
    single = [by_names[key] for name in lacking if (key := frozenset({name})) in by_names]
    usable = [one for calibration in single if (one := decided_by(calibration)) is not None]
    strictest = max([decision, *usable], key=lambda one: one.threshold)
    notice = (
        f"no calibration for scenes without {together}, so that the promised rate is not for this scene; its threshold is "
        "the highest of the others"
    )
    return SubsetDecision(strictest, (notice,))
