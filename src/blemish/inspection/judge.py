"""Scores of an anomaly map where it is judged: of the whole area, or of each class of regions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from blemish.decision.classes import MeasuredClass
from blemish.preprocessing.transform import PreprocessedImage


def judge(
    score: Callable[[NDArray[np.float32]], float],
    placed: PreprocessedImage,
    anomaly: NDArray[np.float32],
    shown: NDArray[np.float32] | None = None,
) -> tuple[float, tuple[MeasuredClass, ...]]:
    """Image score, and classes of regions if there are such, of the anomaly map (h, w) of a preprocessed image.

    With classes the image score is the largest of theirs, each in units of the usual score of its class.

    Parameters
    ----------
    score: the recipe's rule.
    shown: the map (H, W) at the image's own size, where the peaks of the classes are needed.
    """
    area = placed.area
    if area is None or not area.classes:
        return score(placed.judged(anomaly)), ()
    labels = None if shown is None else area.labels(*shown.shape)
    classes = tuple(
        MeasuredClass(
            name=one.name,
            score=score(own),
            scale=one.scale,
            peak=0.0 if shown is None else float(shown.max(initial=0, where=labels == number)),
        )
        for number, (one, own) in enumerate(placed.judged_classes(anomaly), start=1)
    )
    return max(one.relative for one in classes), classes
