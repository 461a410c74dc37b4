"""The reject decision: calibration scores and a rule give threshold, pixel threshold, p-values and a guarantee."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from blemish.decision.conformal import (
    Guarantee,
    conformal_threshold,
    needed,
    p_values,
    train_mean_threshold,
)
from blemish.errors import CalibrationError, UsageError


class _DecisionRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IndependentImages(_DecisionRecord):
    """Calibration scores of images that are independent of each other."""

    kind: Literal["images"] = "images"

    @property
    def words(self) -> str:
        return "images"

    def guarantee(self, promise: Guarantee) -> str:
        return promise.in_words()


class GroupedImages(_DecisionRecord):
    """Calibration scores of images in groups; images of one group show the same object."""

    kind: Literal["grouped images"] = "grouped images"
    groups: int = Field(ge=1)

    @property
    def words(self) -> str:
        return f"images of {self.groups} groups"

    def guarantee(self, promise: Guarantee) -> str:
        return _guide(promise, self.words, "images", "group")


class SceneSquares(_DecisionRecord):
    """Calibration scores of squares of scenes."""

    kind: Literal["squares"] = "squares"
    side: int = Field(ge=1)
    """Pixels."""

    @property
    def words(self) -> str:
        return f"squares of {self.side} × {self.side} pixels"

    def guarantee(self, promise: Guarantee) -> str:
        return _guide(promise, self.words, "squares", "scene")


class ValidationImages(_DecisionRecord):
    """Scores of the images that chose the weights, of a fit that held out none for calibration."""

    kind: Literal["validation images"] = "validation images"

    @property
    def words(self) -> str:
        return "images that chose the weights, for want of calibration images"

    def guarantee(self, promise: Guarantee) -> str:
        return "The scores are of images that chose the weights; they carry no promise."


Unit = Annotated[
    IndependentImages | GroupedImages | SceneSquares | ValidationImages, Field(discriminator="kind")
]
"""What one calibration score is measured on: ``words`` name several, ``guarantee`` says what a promise means."""


def _guide(promise: Guarantee, scored: str, each: str, whole: str) -> str:
    return (
        f"The threshold is number {promise.rank} of the scores of {promise.n} held-out {scored}, ordered by rising "
        f"score. Were {each} independent of each other, a new good one would be rejected with a chance "
        f"of at most {100 * promise.bound:.3g} %. {each.capitalize()} of one {whole} resemble each other, so this is "
        f"a guide for other {whole}s, and no promise."
    )


class Calibration(_DecisionRecord):
    """Scores of held-out good images, or of squares of scenes, that neither training nor model selection saw."""

    scores: tuple[FiniteFloat, ...]
    map_maxima: tuple[FiniteFloat, ...]
    """Maximum of the anomaly map of each."""
    training_scores: tuple[FiniteFloat, ...] = ()
    """Only for the rule ``train-mean``."""
    left_out: dict[str, FiniteFloat] = Field(default_factory=dict)
    """Held-out images that were taken for defective (``threshold.trim``), with their scores."""
    unit: Unit = IndependentImages()

    @model_validator(mode="after")
    def _pairs(self) -> Calibration:
        if len(self.scores) != len(self.map_maxima):
            raise ValueError(f"there are {len(self.scores)} scores and {len(self.map_maxima)} maxima of maps")
        return self


class Decision(_DecisionRecord):
    """Rule on calibration scores: which image scores are rejected, and which pixels form regions.

    Examples
    --------
    >>> scores = tuple(float(score) for score in range(1, 20))
    >>> decision = Decision(calibration=Calibration(scores=scores, map_maxima=scores), false_reject_rate=0.1)
    >>> decision.threshold, decision.pixel_threshold, decision.p_value(18.5)
    (18.0, 18.0, 0.1)
    >>> decision.with_threshold(7.0).threshold
    7.0
    """

    calibration: Calibration
    rule: Literal["conformal", "train-mean", "fixed"] = "conformal"
    false_reject_rate: float = 0.05
    value: float | None = None
    """The threshold of the rule ``fixed``."""

    @property
    def threshold(self) -> float:
        """Threshold of the image score; scores above it are rejected.

        Raises
        ------
        CalibrationError
            When the calibration scores are too few for the false-reject rate, or of images that chose the weights.
        """
        if self.rule == "fixed":
            assert self.value is not None
            return self.value
        if self.rule == "train-mean":
            return train_mean_threshold(np.array(self.calibration.training_scores))
        if isinstance(self.calibration.unit, ValidationImages):
            raise CalibrationError(
                "the model was fitted without calibration images (threshold.hold_out=false), so no false-reject rate can be "
                "promised; run blemish calibrate with new good images, or fit it again"
            )
        return conformal_threshold(np.array(self.calibration.scores), self.false_reject_rate)

    @property
    def pixel_threshold(self) -> float:
        """Pixel threshold; map values above it form regions, on at most the promised share of good images.

        With too few calibration images for that promise, it is the highest value of all their maps.

        Raises
        ------
        CalibrationError
            When there is not one.
        """
        maxima = np.array(self.calibration.map_maxima)
        if not len(maxima):
            raise CalibrationError(
                "there are no maps to set a pixel threshold from; hold out some good images"
            )
        if len(maxima) < needed(self.false_reject_rate):
            return float(maxima.max())
        return conformal_threshold(maxima, self.false_reject_rate)

    def p_value(self, score: float) -> float:
        """Conformal p-value of one score."""
        return float(self.p_values(score))

    def p_values(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Conformal p-values, in the shape of ``scores``."""
        return p_values(np.array(self.calibration.scores), scores)

    @property
    def promise(self) -> Guarantee | None:
        """The guarantee in numbers; None of a rule without one."""
        if self.rule != "conformal":
            return None
        return Guarantee(
            n=len(self.calibration.scores),
            false_reject_rate=self.false_reject_rate,
            left_out=len(self.calibration.left_out),
        )

    @property
    def promised_rate(self) -> float | None:
        """The false-reject rate; None of a rule that promises none."""
        return self.false_reject_rate if self.rule == "conformal" else None

    @property
    def guarantee(self) -> str:
        """Guarantee of the threshold, in words."""
        if self.rule == "fixed":
            return f"The threshold {self.threshold:.6g} was set by hand; it carries no promise."
        promise = self.promise
        if promise is None:
            return (
                "The threshold is the mean score of the training images (Kumar et al. 2025); "
                "it carries no promise on how many good images are rejected."
            )
        return self.calibration.unit.guarantee(promise)

    def with_false_reject_rate(self, rate: float) -> Decision:
        """The decision at another promised false-reject rate.

        Raises
        ------
        UsageError
            When ``rate`` is not between 0 and 1.
        CalibrationError
            When the calibration scores are too few for it.
        """
        check_rate(rate)
        other = self.model_copy(update={"rule": "conformal", "false_reject_rate": rate})
        _ = other.threshold
        return other

    def with_threshold(self, value: float) -> Decision:
        """The decision with a threshold set by hand.

        Raises
        ------
        UsageError
            When ``value`` is not finite.
        """
        if not math.isfinite(value):
            raise UsageError(f"--threshold {value}: choose a finite number, such as {self.threshold:.6g}")
        return self.model_copy(update={"rule": "fixed", "value": value})


def check_rate(rate: float) -> None:
    """Raise a UsageError for a false-reject rate that no threshold can promise."""
    if not 0 < rate < 1:
        raise UsageError(f"--false-reject-rate {rate:g}: choose a number between 0 and 1, such as 0.05")
