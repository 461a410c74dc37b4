"""Random patches of scenes, read by windows or kept in memory where all fit."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from blemish.data.scene_reader import SceneReader
from blemish.errors import ImageError
from blemish.training.patches import MEMORY_LIMIT

MOST_DRAWS = 1000
"""Draws in a row without any value, before a fit gives up."""


class ScenePatches:
    """Patches of some columns of each scene.

    A scene is drawn uniformly, then a position in its columns; a patch without any value is drawn again. While the
    columns of all scenes fit in ``memory_limit`` bytes they are read once and kept; beyond that each patch is read by
    its window, so memory stays bounded whatever the size of the scenes.

    Parameters
    ----------
    columns: of each scene, those that patches are drawn from.
    takes_absent: whether the network takes absent values; what is not judged is then absent. Otherwise patches with
        such pixels are drawn again.
    flips: whether patches are flipped at random, horizontally, vertically and diagonally (Xie, Meeus,
        Pižurica 2019, section 4).
    """

    def __init__(
        self,
        scenes: Sequence[SceneReader],
        columns: Sequence[slice],
        *,
        flips: bool,
        takes_absent: bool = True,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        self._scenes = scenes
        self._columns = columns
        self._flips = flips
        self._takes_absent = takes_absent
        values = sum(
            scene.channels * scene.height * (band.stop - band.start)
            for scene, band in zip(scenes, columns, strict=True)
        )
        self.at_hand = 4 * values <= memory_limit
        self._kept: dict[int, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self._scenes)

    def without(self, left_out: Collection[int]) -> ScenePatches:
        """The scenes but those of the numbers ``left_out``; kept columns are shared."""
        stay = [number for number in range(len(self)) if number not in left_out]
        others = copy.copy(self)
        others._scenes = [self._scenes[number] for number in stay]
        others._columns = [self._columns[number] for number in stay]
        others._kept = {
            place: self._kept[number] for place, number in enumerate(stay) if number in self._kept
        }
        return others

    def draw(self, rng: np.random.Generator, patch: int) -> NDArray[np.float32]:
        """A random patch (C, P, P) in [0, 1], NaN where absent but never all NaN.

        Raises
        ------
        ImageError
            A scene cannot be read there, or a thousand patches in a row are absent.
        """
        for _ in range(MOST_DRAWS):
            number = int(rng.integers(len(self._scenes)))
            band = self._columns[number]
            top = int(rng.integers(self._scenes[number].height - patch + 1))
            left = int(rng.integers(band.stop - band.start - patch + 1))
            pixels = self._window(number, top, left, patch)
            judged = self._scenes[number].judged(top, band.start + left, patch, patch)
            if judged is not None:
                if not (self._takes_absent or judged.all()):
                    continue
                pixels[:, ~judged] = np.nan
            if np.isfinite(pixels).any():
                return self._flipped(pixels, rng)
        raise ImageError(
            self._scenes[0].scene.folder.parent,
            f"shows so little that {MOST_DRAWS} random patches in a row were absent",
            "crop the scenes to the area that their sensors cover, or judge more of them",
        )

    def _window(self, number: int, top: int, left: int, patch: int) -> NDArray[np.float32]:
        """``left`` counts from the first of the scene's columns."""
        scene, band = self._scenes[number], self._columns[number]
        if not self.at_hand:
            return scene.read(top, band.start + left, patch, patch)
        if number not in self._kept:
            with scene:
                self._kept[number] = scene.read(0, band.start, scene.height, band.stop - band.start)
        return self._kept[number][:, top : top + patch, left : left + patch].copy()

    def _flipped(self, pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        if not self._flips:
            return pixels
        horizontal, vertical, diagonal = rng.random(3) < 0.5
        if horizontal:
            pixels = pixels[:, :, ::-1]
        if vertical:
            pixels = pixels[:, ::-1]
        if diagonal:
            pixels = pixels.transpose(0, 2, 1)
        return np.ascontiguousarray(pixels)
