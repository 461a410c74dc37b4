"""Control chart of the scores of accepted images: an exponentially weighted moving average with control limits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel

WEIGHT = 0.2
"""Weight of the newest score."""
WIDTH = 3.0
"""Distance of the limits from the centre, in standard deviations of the average."""
LEAST = 8
"""Calibration scores below the threshold that limits need."""


class ControlChart(BaseModel):
    """Centre, limits and the moving average."""

    centre: float
    upper: float
    lower: float
    mean: list[float | None]
    """Average after each image; None before the first accepted one."""
    beyond: int
    """Accepted images after which the average was beyond a limit."""


def control_chart(
    calibration: ArrayLike, threshold: float, scores: Sequence[float], accepted: Sequence[bool]
) -> ControlChart | None:
    """Chart of the scores of accepted images in the order of storage; None without enough calibration scores.

    The average z is z + λ(x − z) after each accepted score x, and starts at the centre (Roberts, Technometrics 1(3), 1959). Centre and
    spread σ are those of the calibration scores at or below the threshold, which good images that are accepted are
    exchangeable with. The limits are centre ± 3 σ √(λ / (2 − λ)) (Montgomery, Introduction to Statistical Quality
    Control, chapter 9, for long runs). For scores that are not normal they are a guide for the eye; the test with a
    false-alarm rate is that of :class:`~blemish.decision.drift.DriftAlarm`.

    Parameters
    ----------
    calibration: scores of held-out good images, shape (n,).
    scores, accepted: of each image, of equal length.

    >>> chart = control_chart(range(1, 10), 9, [5, 20, 10], [True, False, True])
    >>> chart.centre, chart.mean
    (5.0, [5.0, 5.0, 6.0])
    """
    values = np.asarray(calibration, np.float64)
    values = values[values <= threshold]
    if len(values) < LEAST:
        return None
    centre, spread = float(values.mean()), float(values.std(ddof=1))
    reach = WIDTH * spread * math.sqrt(WEIGHT / (2 - WEIGHT))
    average, has_begun, beyond = centre, False, 0
    mean: list[float | None] = []
    for score, is_accepted in zip(scores, accepted, strict=True):
        if is_accepted:
            average += WEIGHT * (score - average)
            has_begun = True
            beyond += abs(average - centre) > reach
        mean.append(average if has_begun else None)
    return ControlChart(centre=centre, upper=centre + reach, lower=centre - reach, mean=mean, beyond=beyond)
