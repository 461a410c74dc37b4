"""Features of pixels for a classifier: responses of classic filters at four scales, and latents of a fitted model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.scene_reader import SceneReader
from blemish.inspection.latent_pixels import LatentPixels

SIGMAS = (1.0, 2.0, 4.0, 8.0)
"""Standard deviations of the filters, in pixels."""
FILTERS = 6
REACH = 40
"""Pixels beyond a block that its features depend on."""


def filter_features(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute filter responses of an image (C, H, W): (24 C, H, W).

    At each scale: the Gaussian mean, the gradient magnitude, the Laplacian, the two eigenvalues of the Hessian, and the
    larger one of the structure tensor; derivatives are multiplied by their scale. Absent values (NaN) are filled with
    the mean of the present ones.
    """
    features = []
    for plane in pixels:
        there = np.isfinite(plane)
        plane = plane if there.all() else np.where(there, plane, plane[there].mean() if there.any() else 0.5)
        for sigma in SIGMAS:

            def derived(*order: int, plane: NDArray[Any] = plane, sigma: float = sigma) -> NDArray[Any]:
                found: NDArray[Any] = ndimage.gaussian_filter(plane, sigma, order, mode="nearest", truncate=3)
                return found

            mean, dy, dx = derived(0, 0), derived(1, 0) * sigma, derived(0, 1) * sigma
            yy, xx, xy = (derived(*order) * sigma**2 for order in ((2, 0), (0, 2), (1, 1)))
            half, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
            tensor = [
                ndimage.gaussian_filter(one, sigma, mode="nearest", truncate=2)
                for one in (dy * dy, dx * dx, dy * dx)
            ]
            larger = (tensor[0] + tensor[1]) / 2 + np.hypot((tensor[0] - tensor[1]) / 2, tensor[2])
            features += [
                mean,
                np.hypot(dy, dx),
                yy + xx,
                half + spread,
                half - spread,
                np.sqrt(np.maximum(larger, 0)),
            ]
    return np.stack(features).astype(np.float32)


class PixelFeatures:
    """Features of the pixels of an opened scene: filter responses, then latents if there are any."""

    def __init__(self, reader: SceneReader, latents: LatentPixels | None) -> None:
        self.reader, self._latents = reader, latents
        count = len(SIGMAS) * FILTERS * reader.channels
        every = slice(0, count + (0 if latents is None else latents.depth))
        self.sets: dict[str, slice] = {"filters": slice(0, count)}
        """Columns of each set of features."""
        if latents is not None:
            self.sets |= {"latents": slice(count, every.stop), "both": every}

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        """Features (F, height, width) of a block, computed with its surroundings."""
        reader = self.reader
        first_row, first_column = max(0, top - REACH), max(0, left - REACH)
        rows = min(reader.height, top + height + REACH) - first_row
        columns = min(reader.width, left + width + REACH) - first_column
        found = filter_features(reader.read(first_row, first_column, rows, columns))
        y, x = top - first_row, left - first_column
        found = found[:, y : y + height, x : x + width]
        if self._latents is None:
            return found
        return np.concatenate([found, self._latents.read(top, left, height, width)])
