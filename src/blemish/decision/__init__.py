"""Scores, thresholds, p-values, regions, metrics and records, without torch."""

from __future__ import annotations

from blemish.decision.conformal import (
    Guarantee,
    at_most,
    benjamini_hochberg,
    conformal_threshold,
    largest,
    needed,
    outlying,
    p_values,
    train_mean_threshold,
    trimmed,
)
from blemish.decision.decision import (
    Calibration,
    Decision,
    GroupedImages,
    IndependentImages,
    SceneSquares,
    ValidationImages,
    check_rate,
)
from blemish.decision.drift import Drift, DriftAlarm, find_drift
from blemish.decision.metrics import (
    Curve,
    accepted_and_rejected,
    accuracy_at,
    aupro,
    average_precision,
    bootstrap_interval,
    f1_at,
    f1_max,
    iou_auc,
    pr_curve,
    roc_auc,
    roc_curve,
)
from blemish.decision.pixel_metrics import PIXEL_FIGURES, PixelMetrics, PixelResult
from blemish.decision.records import Inspection, read_records
from blemish.decision.regions import Region, find_regions, region_mask, region_threshold
from blemish.decision.scores import SCORES, image_score

__all__ = [
    "PIXEL_FIGURES",
    "SCORES",
    "Calibration",
    "Curve",
    "Decision",
    "Drift",
    "DriftAlarm",
    "GroupedImages",
    "Guarantee",
    "IndependentImages",
    "Inspection",
    "PixelMetrics",
    "PixelResult",
    "Region",
    "SceneSquares",
    "ValidationImages",
    "accepted_and_rejected",
    "accuracy_at",
    "at_most",
    "aupro",
    "average_precision",
    "benjamini_hochberg",
    "bootstrap_interval",
    "check_rate",
    "conformal_threshold",
    "f1_at",
    "f1_max",
    "find_drift",
    "find_regions",
    "image_score",
    "iou_auc",
    "largest",
    "needed",
    "outlying",
    "p_values",
    "pr_curve",
    "read_records",
    "region_mask",
    "region_threshold",
    "roc_auc",
    "roc_curve",
    "train_mean_threshold",
    "trimmed",
]
