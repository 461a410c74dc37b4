"""Trivial baselines: image AUROC of statistics that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.image import LoadedImage, image_info, read_image, resize
from blemish.data.items import Item
from blemish.data.layouts import read_labelled
from blemish.decision import roc_auc

Floats = NDArray[np.float64]


def size_auroc(dataset: Path) -> float:
    """Image AUROC of the distance in (log width, log height) to the nearest training image."""
    labelled = read_labelled(dataset).items
    infos = [image_info(item.path) for item in labelled]
    sizes = np.log([(info.width, info.height) for info in infos])  # (K, 2)
    trained = np.array([item.split == "train" for item in labelled])
    distances = np.linalg.norm(sizes[~trained, None] - sizes[None, trained], axis=2).min(1)
    return roc_auc([not item.is_good for item in labelled if item.split != "train"], distances)


def twin_auroc(dataset: Path) -> float:
    """Image AUROC of the correlation with the most similar training image, at 64 × 64 and without shading.

    Far above 0.5, it shows that parts of the training set were photographed again for the good test images, as the
    tiles were under several lights; a memory bank profits from that.
    """
    labelled = read_labelled(dataset).items
    patterns = np.stack([pattern(read_image(item.path)) for item in labelled])  # (K, 64²)
    trained = np.array([item.split == "train" for item in labelled])
    similarity = (patterns[~trained] @ patterns[trained].T).max(1)
    return roc_auc([not item.is_good for item in labelled if item.split != "train"], -similarity)


def colour_scores(train: Sequence[Item], tests: Sequence[Item]) -> Floats:
    """Distance of the mean colour of each of ``tests`` to that of the nearest training image."""
    known, seen = (
        np.array([read_image(item.path).floats().mean((1, 2)) for item in items], np.float64)
        for items in (train, tests)
    )
    return np.asarray(np.linalg.norm(seen[:, None] - known[None], axis=2).min(1))


def brightness_scores(train: Sequence[Item], tests: Sequence[Item]) -> Floats:
    """Difference of the mean grey level of each of ``tests`` from that of the training images."""
    known, seen = (
        np.array([read_image(item.path).floats().mean() for item in items], np.float64)
        for items in (train, tests)
    )
    return np.abs(seen - known.mean())


def twin_scores(train: Sequence[Item], tests: Sequence[Item]) -> Floats:
    """How unlike each of ``tests`` is to the most similar training image, as :func:`twin_auroc` compares them."""
    known, seen = (np.stack([pattern(read_image(item.path)) for item in items]) for items in (train, tests))
    return -(seen @ known.T).max(1)


def pattern(image: LoadedImage) -> Floats:
    """Detail of an image, without shading and light, as a vector (64²,) of length 1."""
    light = np.log(resize(image.floats().mean(0, keepdims=True), (64, 64))[0] + 0.02)
    detail = light - ndimage.gaussian_filter(light, 4)
    detail = detail - detail.mean()
    return np.asarray(detail / np.linalg.norm(detail), dtype=np.float64).ravel()
