"""Exact metrics from labels and scores, by sorting; the reference for the faster pixel metrics.

``labels`` are true for anomalous images or pixels, ``scores`` are larger for more anomalous ones, and what
is called anomalous is what scores *above* a threshold, everywhere. Both are flattened. A metric that needs
both classes is NaN when only one is present. Scores that are not finite raise ValueError.

Pixel metrics on many large maps are better taken from ``blemish.decision.pixel_metrics``, which gives the same
numbers without holding the maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from blemish.decision.regions import EIGHT_CONNECTED

Floats = NDArray[np.float64]


class Curve(NamedTuple):
    """Points of a curve for a plot: ``x`` and ``y``, and the scores from which on a point calls anomalous."""

    x: Floats
    y: Floats
    thresholds: Floats


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the chance that an anomalous one scores above a good one, ties half.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    truth, values = _checked(labels, scores)
    if not _both_classes(truth):
        return math.nan
    _, tp, fp = _counts(truth, values)
    return area(tp / tp[-1], fp / fp[-1])


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Σ (Rᵢ − Rᵢ₋₁) Pᵢ over the distinct scores: precision averaged over recall, without interpolation.

    >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    truth, values = _checked(labels, scores)
    if not _both_classes(truth):
        return math.nan
    _, tp, fp = _counts(truth, values)
    return float(np.sum(np.diff(tp) / tp[-1] * (tp[1:] / (tp[1:] + fp[1:]))))


def f1_at(labels: ArrayLike, scores: ArrayLike, threshold: float) -> float:
    """F1 = 2 TP / (2 TP + FP + FN) at a threshold; NaN without a single anomalous one.

    >>> f1_at([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], threshold=0.3)
    0.8
    """
    truth, values = _checked(labels, scores)
    if not truth.any():
        return math.nan
    called = values > threshold
    return float(2 * np.sum(called & truth) / (called.sum() + truth.sum()))


def f1_max(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """The largest F1 over all thresholds, and the threshold that reaches it.

    The threshold is the largest score that must still be called good, so that ``f1_at`` gives the same F1; it
    lies just below the smallest score when all must be called anomalous. It is chosen with the labels in
    sight: a figure to compare methods by, never a threshold to use.

    >>> f1_max([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    (0.8, 0.1)
    """
    truth, values = _checked(labels, scores)
    if not truth.any():
        return math.nan, math.nan
    thresholds, tp, fp = _counts(truth, values)
    f1 = 2 * tp / (tp + fp + tp[-1])
    best = int(np.argmax(f1))
    lower = thresholds[best + 1] if best + 1 < thresholds.size else np.nextafter(thresholds[best], -np.inf)
    return float(f1[best]), float(lower)


def accuracy_at(labels: ArrayLike, scores: ArrayLike, threshold: float) -> float:
    """Share of decisions that are right at a threshold; NaN without any scores.

    >>> accuracy_at([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], threshold=0.3)
    0.75
    """
    truth, values = _checked(labels, scores)
    return float(np.mean((values > threshold) == truth)) if truth.size else math.nan


def accepted_and_rejected(labels: ArrayLike, scores: ArrayLike, threshold: float) -> tuple[float, float]:
    """Ratio of good ones accepted and ratio of anomalous ones rejected (Kumar et al. 2025, table 1).

    Each is NaN when its class is absent.

    >>> accepted_and_rejected([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], threshold=0.3)
    (0.5, 1.0)
    """
    truth, values = _checked(labels, scores)
    good, bad = values[~truth], values[truth]
    accepted = float(np.mean(good <= threshold)) if good.size else math.nan
    rejected = float(np.mean(bad > threshold)) if bad.size else math.nan
    return accepted, rejected


def roc_curve(labels: ArrayLike, scores: ArrayLike, *, points: int = 500) -> Curve:
    """False-positive rate (x) and true-positive rate (y), from (0, 0) to (1, 1), at most ``points`` points.

    Empty when only one class is present.

    >>> curve = roc_curve([0, 1], [0.2, 0.7])
    >>> curve.x.tolist(), curve.y.tolist()
    ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    """
    truth, values = _checked(labels, scores)
    if not _both_classes(truth):
        return _NO_CURVE
    thresholds, tp, fp = _counts(truth, values)
    return _thinned(Curve(fp / fp[-1], tp / tp[-1], thresholds), points)


def pr_curve(labels: ArrayLike, scores: ArrayLike, *, points: int = 500) -> Curve:
    """Recall (x) and precision (y) by rising recall, at most ``points`` points.

    Empty when only one class is present.

    >>> curve = pr_curve([0, 1], [0.2, 0.7])
    >>> curve.x.tolist(), curve.y.tolist()
    ([1.0, 1.0], [1.0, 0.5])
    """
    truth, values = _checked(labels, scores)
    if not _both_classes(truth):
        return _NO_CURVE
    thresholds, tp, fp = (column[1:] for column in _counts(truth, values))  # no precision before a first call
    return _thinned(Curve(tp / tp[-1], tp / (tp + fp), thresholds), points)


def aupro(masks: Sequence[ArrayLike], maps: Sequence[ArrayLike], limit: float = 0.3) -> float:
    """Area under the per-region-overlap curve up to a false-positive rate, divided by that rate; in [0, 1].

    ``masks`` and ``maps`` are sequences of (H, W) arrays, pair by pair of one shape. The curve is the overlap
    of the called pixels with each 8-connected ground-truth region, averaged over all regions of all images,
    against the share of all defect-free pixels that are called; it is cut at ``limit`` by linear
    interpolation (Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 129, 2021, section 5.2). NaN
    without a region or without a defect-free pixel.

    >>> aupro([[[0, 1], [0, 0]]], [[[0.2, 0.9], [0.1, 0.3]]])
    1.0
    """
    if not 0 < limit <= 1:
        raise ValueError(f"the limit is a false-positive rate above 0 and at most 1, not {limit}")
    weights, values = [], []
    regions = 0
    for mask, residual_map in _pairs(masks, maps):
        labels, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
        area = np.bincount(labels.ravel())
        weight = np.zeros(labels.shape)
        weight[mask] = 1 / area[labels[mask]]
        weights.append(weight.ravel())
        values.append(residual_map.ravel())
        regions += count
    if not regions:
        return math.nan
    weight, value = np.concatenate(weights), np.concatenate(values)
    if np.all(weight > 0):
        return math.nan
    order = np.argsort(-value)
    weight, value = weight[order], value[order]
    ends = np.append(np.flatnonzero(np.diff(value)), value.size - 1)
    overlap = np.append(0.0, np.cumsum(weight)[ends] / regions)
    fpr = np.append(0.0, np.cumsum(weight == 0)[ends] / np.sum(weight == 0))
    return area_up_to(overlap, fpr, limit)


def area(y: Floats, x: Floats) -> float:
    """Area under straight lines between the points of a curve of rising ``x``.

    >>> area(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    0.5
    """
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def area_up_to(y: Floats, x: Floats, limit: float) -> float:
    """Area under a curve of rising ``x`` from 0 to ``limit``, as a share of the box of height 1.

    >>> area_up_to(np.array([0.0, 1.0]), np.array([0.0, 1.0]), limit=0.5)
    0.25
    """
    inside = x <= limit
    return area(np.append(y[inside], np.interp(limit, x, y)), np.append(x[inside], limit)) / limit


def iou_auc(masks: Sequence[ArrayLike], maps: Sequence[ArrayLike]) -> float:
    """Area under the curve of IoU against threshold, thresholds divided by the largest map value; in [0, 1].

    ``masks`` and ``maps`` are sequences of (H, W) arrays, maps >= 0. IoU(t) = |{map > t} ∩ mask| /
    |{map > t} ∪ mask| over the pixels of all images together, integrated over t from 0 to the largest map
    value of all images: our explicit reading of the IoU curve of Rádli and Czúni 2022, section 8.2, which
    leaves thresholds and normalisation open. Unlike the other metrics it depends on the scale of the
    residual, not only on its order. NaN without anomalous pixels or when all maps are 0.

    >>> iou_auc([[[0, 1]]], [[[0.5, 1.0]]])
    0.75
    """
    pairs = list(_pairs(masks, maps))
    if not any(mask.any() for mask, _ in pairs):
        return math.nan
    truth = np.concatenate([mask.ravel() for mask, _ in pairs])
    values = np.concatenate([residual_map.ravel() for _, residual_map in pairs])
    if values.min() < 0:
        raise ValueError("anomaly maps hold no values below 0")
    if values.max() == 0:
        return math.nan
    thresholds, tp, fp = _counts(truth, values)
    iou = tp / (fp + tp[-1])
    # From the next lower distinct score up to each score, the pixels at or above that score are called.
    heights = -np.diff(np.append(thresholds[1:], 0.0))
    return float(np.sum(iou[1:] * heights) / thresholds[1])


def bootstrap_interval(
    metric: Callable[[NDArray[np.bool_], Floats], float],
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of ``metric(labels, scores)`` over images drawn anew within each class.

    Drawing within the classes keeps both present (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, sections 8.3 and 13.3). The interval speaks of this model and of images like these, not of what
    another training run would give. (NaN, NaN) when only one class is present.

    >>> low, high = bootstrap_interval(roc_auc, [0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6])
    >>> low < roc_auc([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6]) <= high
    True
    """
    truth, values = _checked(labels, scores)
    if not _both_classes(truth):
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    good, bad = values[~truth], values[truth]
    truth = np.repeat([False, True], [good.size, bad.size])
    figures = [
        metric(truth, np.concatenate([rng.choice(good, good.size), rng.choice(bad, bad.size)]))
        for _ in range(resamples)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(figures, [tail, 1 - tail])
    return float(low), float(high)


_NO_CURVE = Curve(np.empty(0), np.empty(0), np.empty(0))


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    truth = np.asarray(labels, dtype=np.bool_).ravel()
    values = np.asarray(scores, dtype=np.float64).ravel()
    if truth.size != values.size:
        raise ValueError(f"{truth.size} labels for {values.size} scores")
    if not np.isfinite(values).all():
        raise ValueError("the scores hold values that are not finite")
    return truth, values


def _pairs(
    masks: Sequence[ArrayLike], maps: Sequence[ArrayLike]
) -> Iterator[tuple[NDArray[np.bool_], Floats]]:
    for mask, residual_map in zip(masks, maps, strict=True):
        truth, values = np.asarray(mask, dtype=np.bool_), np.asarray(residual_map, dtype=np.float64)
        if truth.ndim != 2 or truth.shape != values.shape:
            raise ValueError(f"mask and map share one shape (H, W), not {truth.shape} and {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("the anomaly map holds values that are not finite")
        yield truth, values


def _both_classes(truth: NDArray[np.bool_]) -> bool:
    return bool(truth.any() and not truth.all())


def _counts(truth: NDArray[np.bool_], values: Floats) -> tuple[Floats, Floats, Floats]:
    """Falling distinct scores, and how many true and false positives score at or above each.

    A first point at infinity, where nothing is called, comes before them.
    """
    order = np.argsort(-values, kind="stable")
    truth, values = truth[order], values[order]
    ends = np.append(np.flatnonzero(np.diff(values)), values.size - 1)
    tp = np.cumsum(truth)[ends]
    thresholds = np.append(np.inf, values[ends])
    return thresholds, np.append(0.0, tp), np.append(0.0, ends + 1 - tp)


def _thinned(curve: Curve, points: int) -> Curve:
    """At most ``points`` points, equally spaced along the curve, both ends kept."""
    if curve.x.size <= points:
        return curve
    length = np.append(0.0, np.cumsum(np.abs(np.diff(curve.x)) + np.abs(np.diff(curve.y))))
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)).clip(max=length.size - 1))
    return Curve(curve.x[kept], curve.y[kept], curve.thresholds[kept])


def auroc_standard_error(auroc: float, good: int, defective: int) -> float:
    """Standard error of an area under the ROC curve (Hanley and McNeil, Radiology 143(1), 1982, equations 1 and 2).

    >>> round(auroc_standard_error(0.8, 50, 50), 4)
    0.0445
    """
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc) + (defective - 1) * (q1 - auroc**2) + (good - 1) * (q2 - auroc**2)
    return math.sqrt(max(variance, 0) / (good * defective))
