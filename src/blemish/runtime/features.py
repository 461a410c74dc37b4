"""Features of images as arrays: those of :mod:`blemish.detectors.feature_extractors`, without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from blemish.detectors.contracts import Floats
from blemish.detectors.map_arrays import axis_matrix, separable
from blemish.errors import ModelError, TooSmallError
from blemish.preprocessing.absent import Mask, mask_at
from blemish.runtime.record import ExportedExtractor
from blemish.runtime.sessions import Session

CONTRAST_SIZE, CONTRAST_SIGMA = 25, 4.0
"""Window of local contrast: side and standard deviation in pixels."""
CHANNELS = 8
"""Channels whose patches are in memory together."""
REDUCTION = 4
"""Pixels of an image to one of its local contrast."""
QUIET = 0.3
"""Local contrast, in units of the image's mean, below which differences fade."""
IMAGE, FEATURES = "image", "features"
"""Names of the input and the output of a graph of features."""


class FeatureArrays(Protocol):
    """Feature extractor of a bank."""

    record: ExportedExtractor

    def reduced(self, x: Floats, inside: Mask | None) -> Floats:
        """Image (C', h, w) that the features are taken of.

        ``inside`` (H, W) marks the places inside the image, where some are not; others are left out of statistics of the
        whole image.
        """

    def projected(self, view: Floats, inside: Mask | None, mean: Floats, basis: Floats) -> Floats:
        """Features of :meth:`reduced` images without ``mean`` (f,), on ``basis`` (f, k): (h, w, k)."""


class StructureFeatures:
    """Structure of patches; see :func:`blemish.detectors.feature_extractors.structure`."""

    def __init__(self, record: ExportedExtractor) -> None:
        self.record = record

    def reduced(self, x: Floats, inside: Mask | None) -> Floats:
        return x

    def projected(self, view: Floats, inside: Mask | None, mean: Floats, basis: Floats) -> Floats:
        patch = self.record.patch
        if min(view.shape[1:]) <= patch // 2:
            size = view.shape[1], view.shape[2]
            raise TooSmallError(size, patch // 2 + 1, f"for a memory bank of patches of {patch} × {patch}")
        squares = products = np.float32(0)
        for first in range(0, len(view), CHANNELS):
            patches = _patches(view[first : first + CHANNELS], patch, self.record.stride)  # (h, w, c, patch²)
            height, width = patches.shape[:2]
            patches = patches - patches.mean(3, keepdims=True)
            flat = patches.reshape(height * width, -1)  # (h · w, c · patch²)
            begin = first * patch * patch
            squares = squares + np.einsum("nf,nf->n", flat, flat)
            products = products + flat @ basis[begin : begin + flat.shape[1]]
        deviation = np.sqrt(squares / np.float32(len(basis)))
        counted = deviation
        if inside is not None:
            counted = deviation[mask_at(inside, self.record.stride, 0, (height, width)).ravel()]
        mean_deviation = counted.mean() if len(counted) else np.float32(0)
        floor = np.float32(self.record.floor) * max(mean_deviation, np.float32(1e-6))
        # The deviation divides the products, which are far fewer than the values.
        found: Floats = products / (deviation + floor)[:, None] - mean @ basis
        return found.reshape(height, width, -1)


class LocalContrastFeatures(StructureFeatures):
    """Structure of local contrast; see :func:`blemish.detectors.feature_extractors.local_contrast`."""

    def reduced(self, x: Floats, inside: Mask | None) -> Floats:
        x = x - _mean_inside(x, inside)
        mu_x = _window_mean(x)
        sigma_x = np.sqrt(np.maximum(_window_mean(x * x) - mu_x * mu_x, 0))
        quiet = np.float32(QUIET) * _mean_inside(sigma_x, inside)
        logarithm = np.log(sigma_x + quiet + np.float32(1e-6))
        rows, columns = (axis_matrix(side, side // REDUCTION) for side in x.shape[1:])
        return separable(logarithm, rows, columns)


class ColourFeatures:
    """Mean of each channel in patches; see :func:`blemish.detectors.feature_extractors.local_means`."""

    def __init__(self, record: ExportedExtractor) -> None:
        self.record = record

    def reduced(self, x: Floats, inside: Mask | None) -> Floats:
        return x

    def projected(self, view: Floats, inside: Mask | None, mean: Floats, basis: Floats) -> Floats:
        means = _patches(view, self.record.patch, self.record.stride).mean(3)  # (h, w, C)
        found: Floats = (means - mean) @ basis
        return found


class GraphFeatures:
    """Features that a graph computes from a whole image."""

    def __init__(self, record: ExportedExtractor, session: Session) -> None:
        self.record = record
        self.session = session

    def reduced(self, x: Floats, inside: Mask | None) -> Floats:
        return x

    def projected(self, view: Floats, inside: Mask | None, mean: Floats, basis: Floats) -> Floats:
        found = self.session({IMAGE: view[np.newaxis]})[0]  # (h, w, f)
        projected: Floats = (found - mean) @ basis
        return projected


EXTRACTORS: dict[str, Callable[[ExportedExtractor], FeatureArrays]] = {
    "structure": StructureFeatures,
    "local-contrast": LocalContrastFeatures,
    "colour": ColourFeatures,
}


def extractor_of(record: ExportedExtractor, sessions: dict[str, Session], folder: object) -> FeatureArrays:
    """The feature extractor of ``record``.

    Raises
    ------
    ModelError
        When there is none of that name.
    """
    if record.graph is not None:
        return GraphFeatures(record, sessions[record.graph])
    if record.name not in EXTRACTORS:
        raise ModelError(
            str(folder), f"needs the feature extractor '{record.name}'", "upgrade Blemish, or export again"
        )
    return EXTRACTORS[record.name](record)


def _patches(x: Floats, patch: int, stride: int) -> Floats:
    """Patches of an image (C, H, W), mirrored at its border: (h, w, C, patch²)."""
    reach = patch // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    windows: NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(padded, (patch, patch), (1, 2))
    some = windows[:, ::stride, ::stride].transpose(1, 2, 0, 3, 4)  # (h, w, C, patch, patch)
    return some.reshape(*some.shape[:3], -1)


def _mean_inside(x: Floats, inside: Mask | None) -> Floats:
    """Mean of each channel of (C, H, W) over the pixels inside: (C, 1, 1)."""
    if inside is None or not inside.any():
        return np.asarray(x.mean((1, 2), keepdims=True))
    return np.asarray(x[:, inside].mean(1)[:, None, None])


def _window_mean(x: Floats) -> Floats:
    """Mean of (C, H, W) under the window of local contrast, mirrored at the border with its edge pixel."""
    reach = CONTRAST_SIZE // 2
    mean: Floats = ndimage.gaussian_filter(x, CONTRAST_SIGMA, mode="reflect", radius=reach, axes=(1, 2))
    return mean
