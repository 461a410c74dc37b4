"""Baseline of cross-modal maps: each modality by linear regression on the pixels of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.modality import Modality, channel_slices

SIGMA = 2.0
"""Standard deviation in pixels of the Gaussian that smooths the difference."""

Floats = NDArray[np.float32]


def linear_maps(
    train: Sequence[Floats], test: Sequence[Floats], modalities: Sequence[Modality]
) -> list[Floats]:
    """Compute the maps (M, H, W) of ``test``: what least squares on the other modalities leaves of each.

    Parameters
    ----------
    train: images (C, H, W), complete, that the regression is fitted on.
    test: images (C, h, w), complete.

    Returns
    -------
    Of each image the absolute difference of each modality, averaged over its channels and smoothed by a Gaussian of 2
    pixels.
    """
    flat = np.concatenate([image.reshape(len(image), -1) for image in train], 1).T.astype(np.float64)
    mean = flat.mean(0)
    maps = [np.empty((len(modalities), *image.shape[1:]), np.float32) for image in test]
    for place, own in enumerate(channel_slices(modalities)):
        others = [number for number in range(flat.shape[1]) if not own.start <= number < own.stop]
        weights = np.linalg.lstsq(flat[:, others] - mean[others], flat[:, own] - mean[own], rcond=1e-9)[0]
        for image, found in zip(test, maps, strict=True):
            shown = image[others].reshape(len(others), -1).T - mean[others]
            predicted = (shown @ weights + mean[own]).T.reshape(-1, *image.shape[1:])
            difference = np.abs(predicted - image[own]).mean(0)
            found[place] = ndimage.gaussian_filter(difference, SIGMA)
    return maps
