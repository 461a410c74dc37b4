"""Thresholds and p-values from good images alone.

An image is anomalous when its score is *above* the threshold. The calibration scores come from good
images that neither training nor the choice of a model has seen. If a new good image is exchangeable with
them, the guarantees below hold for any model and any distribution of scores (split conformal prediction:
Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005; Angelopoulos and Bates, A Gentle
Introduction to Conformal Prediction, 2021, sections 1 and 3.2).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, computed_field, model_validator
from scipy import special

from blemish.errors import CalibrationError, UsageError

Trim = float | Literal["auto"]
"""Share of the largest scores that is taken for defective; "auto" finds it by :func:`outlying`."""
OUTLYING = 2.24
"""Robust standard deviations above the median: √χ²(0.975) of one degree of freedom, the MAD-median rule of Wilcox."""
MOST_OUTLYING = 0.25
"""Share that :func:`outlying` finds at most."""


def conformal_threshold(calibration: ArrayLike, false_reject_rate: float) -> float:
    """Threshold that rejects a new good image with probability at most ``false_reject_rate``.

    ``calibration`` holds the n scores, shape (n,), of held-out good images. The threshold is their k-th
    smallest, k = ⌈(n + 1)(1 − α)⌉ (Angelopoulos and Bates 2021, section 1). A score is above it exactly when
    its p-value is at most α.

    Raises CalibrationError when n < 1/α − 1, since no score could then carry the promise, and UsageError for
    a rate outside (0, 1).

    >>> conformal_threshold(range(1, 20), 0.1)
    18.0
    """
    ordered = np.sort(_scores(calibration))
    return float(ordered[_rank(ordered.size, false_reject_rate) - 1])


def p_values(calibration: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Conformal p-value of each score: (1 + #{calibration ≥ score}) / (n + 1), in (0, 1].

    ``calibration`` has shape (n,); the result has the shape of ``scores``. For a good image the chance of
    a p-value ≤ α is at most α (Vovk et al. 2005; Bates et al., Annals of Statistics 51(1), 2023, eq. 1).

    >>> p_values([1, 2, 3], [0, 2, 9]).tolist()
    [1.0, 0.75, 0.25]
    """
    ordered = np.sort(_scores(calibration))
    n = ordered.size
    at_least = n - np.searchsorted(ordered, np.asarray(scores, dtype=np.float64), side="left")
    return np.asarray((1 + at_least) / (n + 1), dtype=np.float64)


def needed(false_reject_rate: float, confidence: float | None = None) -> int:
    """Number of calibration images that a false-reject rate α needs.

    Without ``confidence``: the smallest n for which a threshold exists, ⌈1/α⌉ − 1; α then holds on average
    over calibration sets. With it: the smallest n for which the largest calibration score, as threshold,
    keeps the rate of *this* calibration set within α with that confidence, (1 − α)^n ≤ 1 − confidence
    (Wilks, Annals of Mathematical Statistics 12(1), 1941).

    >>> needed(0.05), needed(0.05, confidence=0.95)
    (19, 59)
    """
    alpha = _rate(false_reject_rate)
    if confidence is None:
        n = max(1, round(1 / alpha) - 1)
        return n if _allowed(n, alpha) else n + 1
    return math.ceil(math.log1p(-_confidence(confidence)) / math.log1p(-alpha))


def largest(scores: ArrayLike, share: float) -> tuple[int, ...]:
    """Indices of the ⌊share · n⌋ largest scores, shape (n,), in rising order; of equal scores the first.

    >>> largest([0.3, 0.9, 0.1, 0.9], 0.5), largest([0.3, 0.9, 0.1], 0.3)
    ((1, 3), ())
    """
    values = _scores(scores)
    count = math.floor(share * values.size + 1e-9)  # 0.29 of 100 is 29, though their product is less
    return tuple(sorted(int(number) for number in np.argsort(-values, kind="stable")[:count]))


def outlying(scores: ArrayLike) -> tuple[int, ...]:
    """Indices of the outliers among scores above 0, shape (n,), in rising order; at most a quarter of them.

    Those whose logarithm lies more than 2.24 robust standard deviations above the median (1.4826 times the median
    absolute deviation; Wilcox, Introduction to Robust Estimation and Hypothesis Testing, 3rd edition, section 3.13.2).
    Of good images alone whose scores are log-normal that is about 1 in 80.

    >>> outlying([1.0, 1.1, 0.9, 1.2, 0.8, 3.0])
    (5,)
    """
    logs = np.log(np.maximum(_scores(scores), np.finfo(np.float64).tiny))
    above = logs - np.median(logs)
    cut = OUTLYING * 1.4826 * np.median(np.abs(above))
    return largest(logs, min(MOST_OUTLYING, float((above > cut).mean())))


def trimmed(scores: ArrayLike, trim: Trim) -> tuple[int, ...]:
    """Indices of the scores, shape (n,), that ``trim`` takes for those of defective images, in rising order."""
    return outlying(scores) if trim == "auto" else largest(scores, trim)


def at_most(trim: Trim) -> float:
    """The largest share that ``trim`` may leave out."""
    return MOST_OUTLYING if trim == "auto" else trim


class Guarantee(BaseModel):
    """Guarantee of n calibration images at a false-reject rate.

    ``n`` is the number of calibration images and ``false_reject_rate`` the rate α that was asked for;
    ``left_out`` counts images that scored higher than all of them and were taken for defective; ``rank`` is k, the
    place of the threshold among the ordered calibration scores, and ``bound`` the rate that is promised on average
    over calibration sets, (n + 1 − k)/(n + 1) ≤ α.

    Raises CalibrationError when n is too small for the rate, UsageError for a rate outside (0, 1).

    >>> promise = Guarantee(n=99, false_reject_rate=0.05)
    >>> promise.rank, promise.bound, round(promise.upper(), 3)
    (95, 0.05, 0.09)
    """

    model_config = ConfigDict(frozen=True)

    n: int
    false_reject_rate: float
    left_out: int = 0

    @model_validator(mode="after")
    def _can_be_kept(self) -> Guarantee:
        _rank(self.n, self.false_reject_rate)
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def rank(self) -> int:
        """k, where the threshold is the k-th smallest calibration score."""
        return _rank(self.n, self.false_reject_rate)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bound(self) -> float:
        """Largest chance that a new good image is rejected, averaged over calibration sets."""
        return (self.n + 1 - self.rank) / (self.n + 1)

    @property
    def bound_if_good(self) -> float:
        """``bound`` if the images left out were good after all."""
        n = self.n + self.left_out
        return (n + 1 - self.rank) / (n + 1)

    def upper(self, confidence: float = 0.95) -> float:
        """Rate that *this* calibration set keeps to, with the given confidence.

        The realised rate is distributed as Beta(n + 1 − k, k) when scores have no ties, and is smaller with
        ties (Angelopoulos and Bates 2021, section 3.2; Vovk 2012, Conditional validity, proposition 2).
        """
        k = self.rank
        return float(special.betaincinv(self.n + 1 - k, k, _confidence(confidence)))

    def interval(self, tests: int, confidence: float = 0.95) -> tuple[float, float]:
        """Interval of the ratio of rejected images among ``tests`` new good ones: (low, high) in [0, 1].

        The number of rejections is beta-binomial(tests, n + 1 − k, k) when scores have no ties; the interval
        is equal-tailed and its coverage is at least ``confidence`` (Angelopoulos and Bates 2021, appendix C).
        """
        if tests < 1:
            raise UsageError(f"an interval needs at least one test image, not {tests}")
        from scipy.stats import betabinom  # scipy.stats is slow to import, and inspecting never needs it

        k = self.rank
        tail = (1 - _confidence(confidence)) / 2
        low, high = (betabinom.ppf(level, tests, self.n + 1 - k, k) / tests for level in (tail, 1 - tail))
        return float(low), float(high)

    def in_words(self) -> str:
        """The promise as a short paragraph for people."""
        return (
            f"A new good image will be rejected with a chance of at most {_percent(self.bound)}, averaged "
            f"over possible calibration sets of this size. The threshold is number {self.rank} of {self.n} "
            f"held-out good images, ordered by rising score. For this particular set of {self.n}, the "
            f"chance is at most {_percent(self.upper())} with 95 % confidence. This holds as long as new "
            f"good images are taken like the calibration images; it says nothing about how many "
            f"defects are found.{self._assumption()}"
        )

    def _assumption(self) -> str:
        if not self.left_out:
            return ""
        total = self.n + self.left_out
        if self.left_out == 1:
            were, this = f"the highest of {total} held-out scores was taken for a defective image", "it"
        else:
            were, this = (
                f"the {self.left_out} highest of {total} held-out scores were taken for defective images",
                "they",
            )
        return (
            f" It rests on an assumption: {were} and left out. Were {this} good after all, the chance would be "
            f"{_percent(self.bound_if_good)}."
        )


def train_mean_threshold(scores: ArrayLike) -> float:
    """Mean score of the training images (Kumar, Malik, Puglisi 2025, section 3.3.3).

    It carries no guarantee: often near half of the good images score above the mean.

    >>> train_mean_threshold([1.0, 2.0, 6.0])
    3.0
    """
    return float(_scores(scores).mean())


def benjamini_hochberg(p: ArrayLike, q: float) -> NDArray[np.bool_]:
    """Select the images of a batch to call anomalous so that on average at most q of them are good.

    ``p`` holds the p-values, shape (m,); the result is boolean, shape (m,). All p-values up to the largest
    ordered p₍ᵢ₎ ≤ q i/m are rejected (Benjamini and Hochberg, JRSS B 57(1), 1995). Conformal p-values that
    share one calibration set keep the guarantee (Bates et al. 2023, theorem 2).

    >>> benjamini_hochberg([0.01, 0.2, 0.03], q=0.05).tolist()
    [True, False, True]
    """
    _rate(q, name="false-discovery rate")
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"p-values have shape (m,), not {values.shape}")
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("p-values lie between 0 and 1")
    m = values.size
    ordered = np.sort(values)
    below = np.flatnonzero(ordered <= q * np.arange(1, m + 1) / m)
    if below.size == 0:
        return np.zeros(m, dtype=np.bool_)
    return np.asarray(values <= ordered[below[-1]], dtype=np.bool_)


def _rank(n: int, false_reject_rate: float) -> int:
    """k = ⌈(n + 1)(1 − α)⌉, the place of the threshold; refuses when that is beyond the n-th."""
    alpha = _rate(false_reject_rate)
    allowed = _allowed(n, alpha)
    if allowed < 1:
        at_least = math.ceil(1e4 / (n + 1)) / 1e4  # rounded up, so that typing this number works
        have = "1 calibration image" if n == 1 else f"{n} calibration images"
        promise = f"promise no rate below {at_least:g}" if n else "promise nothing"
        lower = f"ask for {at_least:g} or more, or " if n else ""
        raise CalibrationError(
            f"{have} can {promise}, and the false-reject rate {alpha:g} was asked for; "
            f"{lower}calibrate on {needed(alpha)} or more good images"
        )
    return n + 1 - allowed


def _allowed(n: int, alpha: float) -> int:
    """⌊(n + 1) α⌋: the largest r whose p-value r/(n + 1) is at most α.

    Decided by the very division that gives p-values, so that (n + 1) * 0.05 landing a hair beside a whole
    number can never make threshold and p-value disagree.
    """
    allowed = round((n + 1) * alpha)
    return allowed - 1 if allowed / (n + 1) > alpha else allowed


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores have shape (n,), not {values.shape}")
    if values.size == 0:
        raise CalibrationError("there are no scores to set a threshold from; hold out some good images")
    if not np.isfinite(values).all():
        raise ValueError("the scores hold values that are not finite")
    return values


def _rate(rate: float, name: str = "false-reject rate") -> float:
    if not 0 < rate < 1:
        raise UsageError(f"{name} {rate} is out of range; give a number between 0 and 1, such as 0.05")
    return float(rate)


def _confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise UsageError(
            f"confidence {confidence} is out of range; give a number between 0 and 1, such as 0.95"
        )
    return float(confidence)


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"
