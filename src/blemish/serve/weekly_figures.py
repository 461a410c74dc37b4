"""Figures of a week on the line: rejects, overturned decisions, the realised false-reject rate against the promise, drift."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from blemish.data.labels import GOOD
from blemish.decision.conformal import Guarantee
from blemish.decision.drift import find_drift
from blemish.errors import BlemishError
from blemish.inspection.document import ModelFile
from blemish.serve.contracts import StoredDecision
from blemish.serve.history import History, HistoryFilter
from blemish.serve.history.views import HourSum, Tally
from blemish.serve.verdicts import label_of
from blemish.storage.model_folder import DETECTOR, read_document

CONFIDENCE = 0.95
MOST_SHOWN = 12
"""Overturned decisions that a report shows."""
MOST_COMPARED = 4000
"""Accepted images that the test of drift compares, evenly over the week."""
WIDTH = 3.0
"""Distance of control limits from the centre in standard deviations."""
LEAST_CALIBRATED = 8
"""Calibration scores below the threshold that control limits need."""

Calibrations = Mapping[str, Sequence[float]]
"""Calibration scores by the SHA-256 of a model's weights."""


class DayCount(NamedTuple):
    """Decisions of one day."""

    day: date
    decisions: int
    rejected: int


class RealisedRate(NamedTuple):
    """False-reject rate of good images, as far as the verdicts tell.

    Rejected images that nobody judged may be good or not, so the rate lies between two estimates; accepted ones count as
    good unless a verdict says otherwise.
    """

    false_rejects: int
    """Images rejected by their score and judged good."""
    unjudged: int
    """Images rejected by their score without a verdict."""
    accepted_good: int
    low: float
    """Lower end of the exact interval of 95 %, if all unjudged ones are defective."""
    high: float
    """Upper end, if all unjudged ones are good."""

    @property
    def least(self) -> float:
        """Estimate if all unjudged ones are defective."""
        return self.false_rejects / max(1, self.false_rejects + self.accepted_good)

    @property
    def most(self) -> float:
        """Estimate if all unjudged ones are good."""
        rejected = self.false_rejects + self.unjudged
        return rejected / max(1, rejected + self.accepted_good)


class ThresholdWeek(NamedTuple):
    """One model at one threshold."""

    model: str
    model_sha256: str
    threshold: float
    decisions: int
    rejected: int
    of_other_kind: int
    """Rejected because the image is of another kind, whatever its score."""
    missed: int
    """Accepted images that are judged defective."""
    rate: RealisedRate
    promised: float | None
    """Promised false-reject rate; None of a threshold set by hand, or of a model that is not there."""
    allowed: float | None
    """Share of good images up to which the promise allows rejections among so many, with 95 %."""

    @property
    def keeps_promise(self) -> bool | None:
        """False where even the least estimate is above what the promise allows; None where nothing is promised."""
        return None if self.allowed is None else self.rate.least <= self.allowed


class DriftWeek(NamedTuple):
    """Scores of the accepted images of one model against its calibration."""

    model: str
    model_sha256: str
    threshold: float
    compared: int
    """Accepted images that were compared."""
    p_value: float | None
    differs: bool
    is_higher: bool
    hours: int
    """Hours with accepted images."""
    hours_beyond: int
    """Those whose mean score is beyond the control limits."""


class WeekFigures(NamedTuple):
    """All figures of a week."""

    since: datetime
    until: datetime
    decisions: int
    rejected: int
    judged: int
    days: list[DayCount]
    thresholds: list[ThresholdWeek]
    overturned: list[StoredDecision]
    """The newest overturned decisions, at most :data:`MOST_SHOWN`."""
    false_rejects: int
    """Rejected images that are judged good, of another kind or not."""
    missed: int
    drift: list[DriftWeek]


def week_of(day: date) -> tuple[date, date]:
    """Monday of the week of a day, and the Monday after it (ISO 8601).

    >>> week_of(date(2026, 3, 5))
    (datetime.date(2026, 3, 2), datetime.date(2026, 3, 9))
    """
    begin = day - timedelta(days=day.weekday())
    return begin, begin + timedelta(days=7)


def read_calibrations(folder: Path) -> dict[str, tuple[float, ...]]:
    """Calibration scores of all models below a folder, by the SHA-256 of their weights; what is no model is passed over."""
    found: dict[str, tuple[float, ...]] = {}
    for path in sorted(folder.rglob("model.json")):
        try:
            file = read_document(path.parent, DETECTOR, ModelFile)
        except BlemishError:
            continue
        if file.decision is not None:
            found[file.weights_sha256] = file.decision.calibration.scores
    return found


def week_figures(
    history: History, begin: date, end: date, zone: tzinfo | None, calibrations: Calibrations
) -> WeekFigures:
    """Figures of the days from ``begin`` to before ``end``.

    Parameters
    ----------
    zone: time zone in which days begin; None is that of the machine.
    calibrations: of the models, as :func:`read_calibrations` gives them; without one there is no promise to compare with.

    Raises
    ------
    HistoryError
        When the history cannot be read.
    """
    borders = [_midnight(begin + timedelta(days=place), zone) for place in range((end - begin).days + 1)]
    week = HistoryFilter(since=borders[0], until=borders[-1])
    days = [_count_day(history, since, until) for since, until in pairwise(borders)]
    judged = [
        one
        for verdict in ("right", "wrong")
        for one in history.all(week.model_copy(update={"verdict": verdict}))
    ]
    overturned = sorted((one for one in judged if is_overturned(one)), key=lambda one: -one.id)
    tallies = history.tallies(week)
    return WeekFigures(
        since=borders[0],
        until=borders[-1],
        decisions=sum(day.decisions for day in days),
        rejected=sum(day.rejected for day in days),
        judged=len(judged),
        days=days,
        thresholds=threshold_weeks(tallies, judged, calibrations),
        overturned=overturned[:MOST_SHOWN],
        false_rejects=sum(one.is_anomalous for one in overturned),
        missed=sum(not one.is_anomalous for one in overturned),
        drift=_drift(history, week, tallies, calibrations),
    )


def is_overturned(decision: StoredDecision) -> bool:
    """Whether the newest verdict says the contrary of the decision."""
    label = label_of(decision)
    return label is not None and decision.is_anomalous == (label == GOOD)


def promised_rate(calibration: Sequence[float], threshold: float) -> float | None:
    """False-reject rate that a threshold promises; None of one that is none of the calibration scores, set by hand.

    Of the k-th smallest of n scores it is (n + 1 − k)/(n + 1), on average over calibration sets.

    >>> promised_rate(range(1, 20), 18), promised_rate(range(1, 20), 18.5)
    (0.1, None)
    """
    scores = np.asarray(calibration, np.float64)
    if not (scores == threshold).any():
        return None
    return float((1 + (scores > threshold).sum()) / (len(scores) + 1))


def exact_interval(count: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact interval of a probability by ``count`` of ``total`` (Clopper and Pearson, Biometrika 26(4), 1934).

    >>> [round(bound, 4) for bound in exact_interval(0, 10)]
    [0.0, 0.3085]
    """
    from scipy.stats import beta  # slow to import, and inspecting never needs it

    if total == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, total - count + 1))
    high = 1.0 if count == total else float(beta.ppf(1 - tail, count + 1, total - count))
    return low, high


def realised_rate(false_rejects: int, unjudged: int, accepted_good: int) -> RealisedRate:
    """Realised false-reject rate with its exact interval, which covers both extremes of the unjudged ones."""
    low, _ = exact_interval(false_rejects, false_rejects + accepted_good)
    _, high = exact_interval(false_rejects + unjudged, false_rejects + unjudged + accepted_good)
    return RealisedRate(false_rejects, unjudged, accepted_good, low, high)


def threshold_weeks(
    tallies: Iterable[Tally], judged: Iterable[StoredDecision], calibrations: Calibrations
) -> list[ThresholdWeek]:
    """Figures of each model at each of its thresholds, those with most decisions first."""
    Key = tuple[str, str, float]
    counts: dict[Key, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for tally in tallies:
        of_key = counts[tally.stream.model, tally.stream.model_sha256, tally.threshold]
        kind = "other" if tally.is_of_other_kind else "rejected" if tally.is_anomalous else "accepted"
        of_key[kind] += tally.decisions
    for one in judged:
        of_key = counts[one.model, one.model_sha256, one.threshold]
        is_good = label_of(one) == GOOD
        if not one.is_anomalous:
            of_key["missed"] += not is_good
        elif one.other_kind is None:
            of_key["judged"] += 1
            of_key["false"] += is_good
    found = []
    for (model, sha256, threshold), of_key in counts.items():
        rate = realised_rate(
            of_key["false"], of_key["rejected"] - of_key["judged"], of_key["accepted"] - of_key["missed"]
        )
        calibration = calibrations.get(sha256, ())
        promised = promised_rate(calibration, threshold)
        good = rate.false_rejects + rate.accepted_good
        found.append(
            ThresholdWeek(
                model=model,
                model_sha256=sha256,
                threshold=threshold,
                decisions=of_key["accepted"] + of_key["rejected"] + of_key["other"],
                rejected=of_key["rejected"] + of_key["other"],
                of_other_kind=of_key["other"],
                missed=of_key["missed"],
                rate=rate,
                promised=promised,
                allowed=None if promised is None or not good else _allowed(len(calibration), promised, good),
            )
        )
    return sorted(found, key=lambda one: (-one.decisions, one.model, one.threshold))


def hours_beyond(calibration: Sequence[float], threshold: float, sums: Iterable[HourSum]) -> tuple[int, int]:
    """Hours beyond the control limits of their mean score, and all hours.

    The chart is Shewhart's of means with subgroups of unequal size (Montgomery, Introduction to Statistical Quality Control,
    chapter 6). Centre and spread s are those of the m calibration scores below the threshold, and as the centre is itself a
    mean of m scores, the limits of an hour of n images lie at ± 3 s √(1/n + 1/m).
    """
    scores = np.asarray(calibration, np.float64)
    scores = scores[scores < threshold]
    means: dict[datetime, list[tuple[int, float]]] = defaultdict(list)
    for one in sums:
        means[one.hour].append((one.decisions, one.mean))
    if len(scores) < LEAST_CALIBRATED:
        return 0, len(means)
    centre, spread = float(scores.mean()), float(scores.std(ddof=1))
    beyond = 0
    for of_hour in means.values():
        n = sum(count for count, _ in of_hour)
        mean = sum(count * each for count, each in of_hour) / n
        beyond += abs(mean - centre) > WIDTH * spread * math.sqrt(1 / n + 1 / len(scores))
    return beyond, len(means)


def _allowed(n: int, promised: float, good: int) -> float:
    return Guarantee(n=n, false_reject_rate=promised).interval(good, CONFIDENCE)[1]


def _drift(
    history: History, week: HistoryFilter, tallies: Sequence[Tally], calibrations: Calibrations
) -> list[DriftWeek]:
    """Drift of each model at its most used threshold; of models whose calibration is not there, none."""
    counts: dict[tuple[str, str], dict[float, int]] = defaultdict(lambda: defaultdict(int))
    for tally in tallies:
        counts[tally.stream.model, tally.stream.model_sha256][tally.threshold] += tally.decisions
    found = []
    for (model, sha256), thresholds in sorted(counts.items()):
        calibration = calibrations.get(sha256)
        if not calibration:
            continue
        threshold = max(thresholds, key=lambda each: thresholds[each])
        accepted = week.model_copy(update={"model": model, "model_sha256": sha256, "is_anomalous": False})
        scores = [point.score for point in history.scores(accepted, MOST_COMPARED)]
        drift = find_drift(calibration, scores, threshold)
        beyond, hours = hours_beyond(calibration, threshold, history.hourly(accepted))
        found.append(
            DriftWeek(
                model=model,
                model_sha256=sha256,
                threshold=threshold,
                compared=drift.accepted,
                p_value=drift.p_value if drift.can_tell else None,
                differs=drift.can_tell and drift.differs,
                is_higher=bool(drift.ranks) and float(np.mean(drift.ranks)) < 0.5,
                hours=hours,
                hours_beyond=beyond,
            )
        )
    return found


def _count_day(history: History, since: datetime, until: datetime) -> DayCount:
    day = HistoryFilter(since=since, until=until)
    rejected = day.model_copy(update={"is_anomalous": True})
    return DayCount(since.date(), history.count(day), history.count(rejected))


def _midnight(day: date, zone: tzinfo | None) -> datetime:
    midnight = datetime.combine(day, time())
    return midnight.astimezone() if zone is None else midnight.replace(tzinfo=zone)
