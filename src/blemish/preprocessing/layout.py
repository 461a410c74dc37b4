"""Layout of a set of images: whether they show objects in one pose, one view, or a texture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.image import resize
from blemish.preprocessing.absent import filled, inside_places

Floats = NDArray[np.float32]

SIDE = 32
"""Pixels a side at which images are compared."""
SLOW = 4.0
"""Standard deviation in these pixels of the Gaussian that slow changes of brightness are taken out with."""
PLACE = 8
"""Pixels a side of the places that channels are compared in."""
COLOURFUL = 0.04
"""Difference between the channels, in units of the data range, from which on images have colour."""
ALIGNED = 0.3
"""Median correlation with the mean of the other images from which places correspond."""


@dataclass(frozen=True)
class Layout:
    """Kind of a set of images, and the figure that it was read from."""

    kind: Literal["posed object", "aligned view", "unaligned"]
    correlation: float
    """Median over the images of the correlation with the mean of the others, -1 to 1."""

    @property
    def has_places(self) -> bool:
        """True if a place shows the same part of the object in all images."""
        return self.kind != "unaligned"

    @property
    def in_words(self) -> str:
        """What the layout means for what can be found, as a sentence for the user."""
        shown = f"correlation {self.correlation:.2f} with the mean of the other images"
        if self.kind == "posed object":
            return f"Objects in one pose ({shown}): what is missing, added or displaced can be found at its place."
        if self.kind == "aligned view":
            return (
                f"One aligned view ({shown}): what is missing, added or displaced can be found at its place."
            )
        return (
            f"A texture, or objects without a common place ({shown}): what looks unlike every place of the good images "
            "can be found; a part that is missing or displaced but looks normal cannot."
        )


def have_colour(images: Iterable[Floats]) -> bool:
    """True if the channels of ``images`` (C, h, w), preprocessed, differ by more than noise and a faint cast.

    Channels are compared in means of 8 × 8 pixels: by how much they differ in the most colourful hundredth of an image,
    in the median image. A grey image that is stored in three channels has none.

    >>> grey = np.random.default_rng(0).random((1, 64, 64), np.float32)
    >>> have_colour([np.repeat(grey, 3, 0)]), have_colour([np.concatenate([grey, grey, 1 - grey])])
    (False, True)
    """
    found = [_colourfulness(image) for image in images]
    return bool(found) and float(np.median(found)) >= COLOURFUL


def _colourfulness(image: Floats) -> float:
    if len(image) < 2:
        return 0.0
    image = filled(image, inside_places(image))
    size = (max(1, image.shape[1] // PLACE), max(1, image.shape[2] // PLACE))
    means = resize(image, size)
    return float(np.quantile(means.max(0) - means.min(0), 0.99))


def image_layout(images: Iterable[Floats], *, is_posed: bool = False) -> Layout:
    """Layout of ``images``, (C, H, W) each, after preprocessing; NaN at places outside the image.

    Parameters
    ----------
    is_posed: whether the preprocessing brought objects into one pose.

    >>> rng = np.random.default_rng(0)
    >>> part = ndimage.gaussian_filter(rng.standard_normal((1, 64, 64)), (0, 2, 2))
    >>> image_layout([part + 0.02 * rng.standard_normal(part.shape) for _ in range(8)]).kind
    'aligned view'
    >>> image_layout([rng.random((1, 64, 64)) for _ in range(8)]).kind
    'unaligned'
    """
    patterns = np.stack([_pattern(image) for image in images])  # (n, 32²)
    if len(patterns) < 2:
        return Layout("posed object" if is_posed else "unaligned", 0.0)
    others = patterns.sum(0) - patterns
    lengths = np.linalg.norm(others, axis=1)
    correlation = float(np.median((patterns * others).sum(1) / np.maximum(lengths, 1e-12)))
    if is_posed:
        return Layout("posed object", correlation)
    return Layout("aligned view" if correlation >= ALIGNED else "unaligned", correlation)


def _pattern(image: Floats) -> NDArray[np.float64]:
    """Detail of an image without slow changes, as a vector (32²,) of length 1; 0 of a flat image."""
    image = filled(image, inside_places(image))
    small = resize(image.mean(0, keepdims=True, dtype=np.float32), (SIDE, SIDE))[0].astype(np.float64)
    # A slope is taken out first, because the mirrored border would bend it.
    slope = np.linspace(-1, 1, SIDE)
    slope /= np.linalg.norm(slope) * np.sqrt(SIDE)
    small -= np.add.outer(slope * (slope @ small.sum(1)), slope * (slope @ small.sum(0)))
    detail = (small - ndimage.gaussian_filter(small, SLOW)).ravel()
    length = float(np.linalg.norm(detail))
    return np.asarray(detail / length) if length > 1e-9 else np.zeros(detail.size)
