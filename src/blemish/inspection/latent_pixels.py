"""Latents of a fitted model at every pixel of an image or scene, for a classifier of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from blemish.errors import UsageError
from blemish.inspection.detector import load
from blemish.inspection.features import Features
from blemish.observer import Observer
from blemish.storage.leftovers import temporary_folder


class LatentPixels:
    """Latents between the places that they belong to, by bilinear interpolation.

    Parameters
    ----------
    features: of one image or scene.
    size: its (height, width) in pixels.

    Raises
    ------
    UsageError
        When the model sees it at another size.
    """

    def __init__(self, features: Features, size: tuple[int, int]) -> None:
        if tuple(features.size) != size:
            raise UsageError(
                f"--model: sees {features.name} as {features.size[1]} × {features.size[0]} pixels, not as "
                f"{size[1]} × {size[0]}; name the same grid in modalities.yaml"
            )
        self._features = features
        self.depth = features.shape[0]
        self.weights_sha256 = features.weights_sha256

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        """Latents (d, height, width) of the window whose first pixel is (top, left); 0 where nothing is shown."""
        axes = []
        for start, length, count, offset, scale in zip(
            (top, left),
            (height, width),
            self._features.shape[1:],
            self._features.offset,
            self._features.scale,
            strict=True,
        ):
            pixels = np.arange(start, start + length)
            places = ((pixels + 0.5) * scale - 0.5 - offset) / self._features.stride
            axes.append(np.clip(places, 0, count - 1))
        rows, columns = axes
        first, last = (
            (int(rows[0]), int(columns[0])),
            (int(np.ceil(rows[-1])) + 1, int(np.ceil(columns[-1])) + 1),
        )
        cells = np.asarray(self._features.array[:, first[0] : last[0], first[1] : last[1]], np.float32)
        at = np.meshgrid(rows - first[0], columns - first[1], indexing="ij")
        return np.stack(
            [ndimage.map_coordinates(np.nan_to_num(plane), at, order=1, mode="nearest") for plane in cells]
        )


@contextmanager
def latents_of(
    model: Path, source: Path, size: tuple[int, int], observer: Observer
) -> Iterator[LatentPixels]:
    """Extract the latents of one image or scene into a temporary folder, removed after the block.

    Raises
    ------
    UsageError
        When the model has no latents, is not of such data, or gives several.
    FileError
        When a file cannot be read.
    """
    from blemish.inspection.extract_features import extract_features

    with temporary_folder() as folder:
        done = extract_features(load(model, calibrated=False), source, folder / "latents", observer=observer)
        if done.problems:
            raise done.problems[0]
        if len(done.features) != 1:
            raise UsageError(f"{source}: holds {len(done.features)} images or scenes; name one")
        yield LatentPixels(done.features[0], size)
