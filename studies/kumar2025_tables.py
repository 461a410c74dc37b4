"""Published figures of Kumar et al. 2025, and how its networks were trained."""

from __future__ import annotations

import re
from typing import NamedTuple

from studies.protocol import PublishedTraining

PAPER = (
    "Kumar, Malik, Puglisi 2025, Unsupervised Anomaly Detection in Industrial Image Data with Autoencoders"
)
TRAINING = PublishedTraining(
    side=256,
    learning_rate=1e-4,
    steps=None,
    words="images of 256 × 256 pixels, batch 32, Adam with a learning rate of 0.0001, constant; it gives no "
    "number of epochs, so our full length, 1000 steps on a GPU, is a choice",
)
RECIPES = tuple(
    f"{kind}-{encoder}{measure}"
    for kind in ("dae", "cae")
    for encoder in ("", "vgg16-", "resnet50-")
    for measure in ("mse", "ssim")
)
"""In the order of the columns of Tables 1 and 2."""

# Per category: good accepted, bad rejected, overall accuracy, each for the recipes in that order.
_TABLES = {
    "hazelnut": (
        (0.73, 0.50, 0.05, 0.10, 0.75, 0.88, 0.65, 0.68, 0.825, 0.70, 0.275, 0.675),
        (0.86, 0.88, 1.00, 0.98, 0.70, 0.66, 0.87, 0.73, 0.67, 0.71, 0.89, 0.69),
        (0.81, 0.76, 0.64, 0.66, 0.72, 0.74, 0.79, 0.71, 0.73, 0.71, 0.66, 0.68),
    ),
    "bottle": (
        (0.35, 0.30, 0.25, 0.10, 0.75, 0.40, 0.25, 0.30, 0.15, 0.35, 0.30, 0.40),
        (0.97, 0.92, 1.00, 0.98, 0.33, 0.56, 0.92, 0.97, 0.98, 0.98, 0.84, 0.79),
        (0.82, 0.77, 0.81, 0.77, 0.43, 0.53, 0.76, 0.81, 0.78, 0.83, 0.71, 0.70),
    ),
    "pill": (
        (0.42, 0.53, 0.38, 0.35, 0.48, 0.35, 0.50, 0.58, 0.73, 0.50, 0.50, 0.65),
        (0.88, 0.84, 0.84, 0.94, 0.47, 0.59, 0.77, 0.83, 0.83, 0.86, 0.73, 0.63),
        (0.81, 0.80, 0.78, 0.84, 0.48, 0.55, 0.73, 0.79, 0.77, 0.80, 0.69, 0.63),
    ),
    "screw": (
        (0.34, 0.49, 0.10, 0.05, 0.00, 0.08, 0.93, 0.70, 0.05, 0.61, 0.66, 0.51),
        (0.83, 0.79, 0.92, 1.00, 0.31, 0.44, 0.61, 0.63, 0.87, 0.68, 0.64, 0.58),
        (0.71, 0.72, 0.68, 0.76, 0.23, 0.35, 0.69, 0.65, 0.66, 0.66, 0.64, 0.56),
    ),
    "tile": (
        (0.94, 0.43, 0.10, 0.00, 0.46, 0.27, 0.97, 0.64, 0.94, 0.00, 0.77, 0.94),
        (0.11, 0.81, 0.98, 1.00, 0.38, 0.83, 0.11, 0.62, 0.26, 1.00, 0.52, 0.13),
        (0.34, 0.67, 0.72, 0.72, 0.41, 0.68, 0.35, 0.62, 0.45, 0.72, 0.58, 0.36),
    ),
}


class Published(NamedTuple):
    """Published figures of one recipe on one category."""

    good_accepted: float
    bad_rejected: float
    accuracy: float


PUBLISHED = {
    category: {recipe: Published(*values) for recipe, *values in zip(RECIPES, *lines, strict=True)}
    for category, lines in _TABLES.items()
}


def published_category(dataset: str | None) -> str | None:
    """The category of the paper that a data set's folder is named after, such as ``screw`` or ``mvtec_screw``.

    >>> published_category("mvtec_screw"), published_category("magnetic_tile")
    ('screw', None)
    """
    words = [
        word for word in re.split(r"[^a-z]+", (dataset or "").lower()) if word not in ("", "mvtec", "ad")
    ]
    return words[0] if words and words[0] in PUBLISHED else None
