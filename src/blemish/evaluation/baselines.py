"""Baselines without learning, to compare with a detector on the same images at the same false-reject rate.

A data set that a baseline of this kind solves shows nothing of what a detector is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from blemish.data.datasets import find_images
from blemish.data.image import read_image
from blemish.data.items import Item
from blemish.data.layouts import read_labelled
from blemish.decision import conformal_threshold, roc_auc
from blemish.inspection.detector import Detector

Images = NDArray[np.float32]
"""Flattened images (N, C · h · w)."""


class Baseline(BaseModel):
    """Results of a baseline on the labelled test images."""

    model_config = ConfigDict(frozen=True)

    name: str
    found: int
    """Defective images whose score is above the threshold."""
    defective: int
    rejected: int
    """Good images whose score is above the threshold."""
    good: int
    auroc: float
    """Area under the ROC curve of the image scores."""


def mean_grey(train: Images, images: Images) -> NDArray[np.float64]:
    """Distance of each image's mean grey level from that of the training images: (N,).

    >>> mean_grey(np.array([[0.2, 0.4]], np.float32), np.array([[0.3, 0.3], [0.5, 0.7]], np.float32)).round(3)
    array([0. , 0.3])
    """
    return np.asarray(np.abs(images.mean(1) - train.mean()), dtype=np.float64)


def nearest_image(train: Images, images: Images) -> NDArray[np.float64]:
    """Root mean squared difference of each image from the most similar training image: (N,).

    Every image is standardised to mean 0 and standard deviation 1 before, so that its exposure does not count.

    >>> train = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    >>> nearest_image(train, np.array([[0.2, 0.4], [0.4, 0.2]], np.float32)).round(3)
    array([0., 0.])
    """
    known, seen = _standardised(train), _standardised(images)
    squares = (seen**2).sum(1)[:, None] + (known**2).sum(1)[None] - 2 * seen @ known.T  # (N, training images)
    return np.asarray(np.sqrt(np.maximum(squares.min(1), 0) / seen.shape[1]), dtype=np.float64)


BASELINES: dict[str, Callable[[Images, Images], NDArray[np.float64]]] = {
    "mean grey level": mean_grey,
    "nearest training image": nearest_image,
}


def run_baselines(detector: Detector, good: str | Path, dataset: str | Path) -> tuple[Baseline, ...]:
    """Evaluate each of ``BASELINES`` on the test images of ``dataset``, as ``detector`` prepares them.

    The images are in the detector's pose and at its scale; training images, calibration images, promised
    false-reject rate and rule of the threshold are the detector's own. All images must be of one size as prepared.

    Parameters
    ----------
    good: the folder of good images that the detector was fitted on.
    dataset: an MVTec layout, or a CSV list with labels.

    Raises
    ------
    FileError, ImageError
        When an image cannot be read.
    """
    by_name = {item.name: item for item in find_images(Path(good))}
    split = detector.file.split
    train, calibration = (
        _prepared(detector, [by_name[str(name)] for name in split[part]]) for part in ("train", "calibration")
    )
    items = [item for item in read_labelled(Path(dataset)).items if item.split != "train"]
    images = _prepared(detector, items)
    is_defective = np.array([item.label not in ("good", None) for item in items])
    found = []
    for name, scored in BASELINES.items():
        threshold = conformal_threshold(scored(train, calibration), detector.rule.false_reject_rate)
        scores = scored(train, images)
        above = scores > threshold
        found.append(
            Baseline(
                name=name,
                found=int(above[is_defective].sum()),
                defective=int(is_defective.sum()),
                rejected=int(above[~is_defective].sum()),
                good=int((~is_defective).sum()),
                auroc=roc_auc(is_defective, scores),
            )
        )
    return tuple(found)


def _prepared(detector: Detector, items: Sequence[Item]) -> Images:
    apply = detector.file.preprocessing.apply
    prepared: list[NDArray[Any]] = [apply(read_image(item.path)).pixels.ravel() for item in items]
    return np.stack(prepared)


def _standardised(images: Images) -> Images:
    centred = images - images.mean(1, keepdims=True)
    return np.asarray(centred / np.maximum(centred.std(1, keepdims=True), 1e-6), dtype=np.float32)
