"""Drift: test whether new images score like those that the decision was calibrated on.

Among new images is an unknown share of defective ones, and most of these score above the threshold t. So only the
scores *below* t are compared. Let t be one of the ordered calibration scores, or any number chosen
without sight of the images. If good images come independently from one distribution F, then, given t, the
calibration scores below t and the scores below t of new good images are independent draws from F cut off at t, whatever F is and whether or not scores are tied. Both tests here rest on that exchangeability and
on nothing else: no asymptotics, no distribution of scores, and rejected images do not count, however many.

Defective images that are accepted do count: many of them are reported as drift. Like the promise on rejected
images, the false-alarm rates hold on average over calibration sets: a calibration set that does not resemble its own
source raises alarms again and again, as it should.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FALSE_ALARM = 0.01
"""Chance of a drift report on a folder of images from the distribution of the calibration images."""
RESAMPLES = 1999
DEALT_AT_ONCE = 2**20
"""Scores, so that memory stays small whatever the number of images."""


@dataclass(frozen=True)
class Drift:
    """Comparison of the accepted images among new ones with the calibration images; see :func:`find_drift`."""

    p_value: float | None
    """Chance of so much difference, or more, without drift; None if there is none to compare."""
    accepted: int
    """New images that score below the threshold."""
    count: int
    """New images in all."""
    compared: int
    """Calibration images that score below the threshold."""
    ranks: tuple[float, ...]
    """Conformal p-value of each accepted image among those, rising: uniform without drift."""

    @property
    def can_tell(self) -> bool:
        """True when the images are enough for a p-value at or below ``FALSE_ALARM``."""
        # Of all ways to deal them out, the most uneven one may come in two, of low and of high scores.
        return 2 / math.comb(self.accepted + self.compared, self.accepted) <= FALSE_ALARM

    @property
    def differs(self) -> bool:
        """True when drift is reported; without drift the chance of a report is at most ``FALSE_ALARM``."""
        return self.p_value is not None and self.p_value <= FALSE_ALARM

    def in_words(self) -> str:
        """The finding in a line, with what to do."""
        rejected = self.count - self.accepted
        if self.p_value is None or not self.can_tell:
            finding = (
                f"It cannot be decided whether these images look like the training images: {self.accepted} accepted "
                f"ones, against {self.compared} of the calibration below the threshold, are too few."
            )
        elif not self.differs:
            finding = (
                "The accepted images score like the good ones that the decision was calibrated on "
                f"(p = {self.p_value:.2g})."
            )
        else:
            higher = np.mean(self.ranks) < 0.5
            finding = (
                "These images do not look like the training images: accepted ones score "
                f"{'higher' if higher else 'lower'} than good ones that the decision was calibrated on "
                f"(p = {self.p_value:.1g}), so its promise is in doubt. "
                f"{'' if higher else 'Images that were trained on score lower. '}Check light, focus and "
                "position; if they are meant to be so, fit again on good images taken like these."
            )
        if rejected > self.count / 2:
            finding += (
                f" {rejected} of {self.count} are rejected, which this comparison leaves out: if most of "
                "them are good, the images have changed."
            )
        return finding


def find_drift(calibration: ArrayLike, scores: ArrayLike, threshold: float, *, seed: int = 0) -> Drift:
    """Compare the scores below ``threshold`` of new images with those of the calibration images.

    The statistic is that of Cramér and von Mises for two samples, the squared distance of their distribution
    functions summed over all scores, ties together (Anderson, Annals of Mathematical Statistics 33(3), 1962).
    Its p-value is (1 + #{dealt ≥ found}) / (1 + 1999) over 1999 random ways to deal the scores out to the two
    (Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9(1), 2010): valid at any
    sample size.

    Parameters
    ----------
    calibration: scores of good images that no training saw, shape (n,).
    scores: of the new images, shape (m,).
    threshold: one of the ordered calibration scores, or a number chosen without sight of either.
    seed: of the random ways; the same scores give the same p-value.

    Raises
    ------
    ValueError
        For scores that are not finite or have another shape.

    >>> rng = np.random.default_rng(1)
    >>> good = rng.normal(size=60)
    >>> find_drift(good, rng.normal(size=40), 1.5).differs, find_drift(good, rng.normal(1, 1, 40), 1.5).differs
    (False, True)
    """
    before, new = _scores(calibration), _scores(scores)
    low, accepted = np.sort(before[before < threshold]), new[new < threshold]
    n, m = low.size, accepted.size
    at_least = n - np.searchsorted(low, accepted, side="left")
    ranks = tuple(float(p) for p in np.sort((1 + at_least) / (n + 1)))
    p_value = None
    if n and m:
        values, which = np.unique(np.concatenate([low, accepted]), return_inverse=True)
        together = np.bincount(which)
        found = _cramer_von_mises(np.bincount(which[:n], minlength=values.size)[None], together)
        rng, as_uneven = np.random.default_rng(seed), 0
        at_once = max(1, DEALT_AT_ONCE // values.size)
        for begin in range(0, RESAMPLES, at_once):
            ways = min(at_once, RESAMPLES - begin)
            dealt = rng.multivariate_hypergeometric(together, n, ways, "marginals")
            # Ways that are equally uneven may differ in the last digits.
            as_uneven += int(np.sum(_cramer_von_mises(dealt, together) >= found * (1 - 1e-9)))
        p_value = (1 + as_uneven) / (1 + RESAMPLES)
    return Drift(p_value=p_value, accepted=m, count=new.size, compared=n, ranks=ranks)


class DriftAlarm:
    """Sequential test of images one by one; without drift it ever alarms with a chance of at most ``false_alarm``.

    Each score below the threshold gets a p-value among all earlier ones, calibration and new together, ties
    broken at random: without drift these are independent and uniform, though the calibration set is shared
    (Vovk, Gammerman, Shafer 2005, theorem 8.1). On them a simple jumper bets that they are not uniform, with
    ε in {-1, 0, 1}, stakes 1 + ε (p - 1/2) and a jumping rate of 0.01 (Vovk et al., Retrain or Not Retrain:
    Conformal Test Martingales for Change-Point Detection, COPA 2021, algorithm 1). Its capital is a martingale
    that starts at 1, so it ever reaches 1 / ``false_alarm`` with a chance of at most ``false_alarm`` (Ville).

    Parameters
    ----------
    calibration, threshold: as of :func:`find_drift`.
    false_alarm: over the whole time of watching, however long.
    seed: of the order among tied scores; the same images in the same order give the same capital.

    >>> alarm = DriftAlarm(range(50), 45)
    >>> [alarm.update(score) for score in (3, 17, 99)], alarm.gone_off
    ([False, False, False], False)
    """

    JUMPING = 0.01
    _EPSILON = np.array([-1.0, 0.0, 1.0])

    def __init__(
        self, calibration: ArrayLike, threshold: float, *, false_alarm: float = FALSE_ALARM, seed: int = 0
    ) -> None:
        if not 0 < false_alarm < 1:
            raise ValueError(f"the false-alarm rate lies between 0 and 1, not at {false_alarm}")
        before = _scores(calibration)
        self.threshold = threshold
        self.false_alarm = false_alarm
        self.gone_off = False
        """Whether the capital has ever reached 1 / ``false_alarm``."""
        self._earlier = sorted(before[before < threshold].tolist())
        self._rng = np.random.default_rng(seed)
        self._capitals = np.full(3, 1 / 3)

    @property
    def capital(self) -> float:
        """Capital of a bettor who began with 1 and bets on drift."""
        return float(self._capitals.sum())

    def update(self, score: float) -> bool:
        """Take in the next image; whether the alarm has gone off by now. A rejected one changes nothing.

        Raises
        ------
        ValueError
            When the score is not finite.
        """
        if not math.isfinite(score):
            raise ValueError("the scores hold values that are not finite")
        if score < self.threshold:
            self._bet(self._p_value(score))
            bisect.insort(self._earlier, score)
            self.gone_off = self.gone_off or self.capital >= 1 / self.false_alarm
        return self.gone_off

    def _p_value(self, score: float) -> float:
        above = len(self._earlier) - bisect.bisect_right(self._earlier, score)
        tied = len(self._earlier) - bisect.bisect_left(self._earlier, score) - above
        return float((above + self._rng.random() * (tied + 1)) / (len(self._earlier) + 1))

    def _bet(self, p: float) -> None:
        moved = (1 - self.JUMPING) * self._capitals + self.JUMPING * self._capitals.mean()
        self._capitals = moved * (1 + self._EPSILON * (p - 0.5))


def _cramer_von_mises(counts: NDArray[np.int64], together: NDArray[np.int64]) -> NDArray[np.float64]:
    """Σ c (F - G)² over J distinct scores, for each row of ``counts``.

    ``counts``, shape (B, J), holds how often the first sample has each score, ``together``, shape (J,), how
    often both have.
    """
    first, both = np.cumsum(counts, axis=1), np.cumsum(together)
    n, total = first[0, -1], both[-1]
    distance = first / n - (both - first) / (total - n)
    return np.asarray(distance**2 @ together, dtype=np.float64)


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores have shape (n,), not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("the scores hold values that are not finite")
    return values
