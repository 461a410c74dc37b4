"""Registration of a scene at a later date on the same scene before, and the images of both on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from blemish.data.affine import covered_share, resample_affine, scaling
from blemish.data.modality import Modality
from blemish.data.registration import register
from blemish.data.scene_reader import SceneReader
from blemish.data.scene_registration import overview
from blemish.errors import ImageError
from blemish.storage.pyramid import Raster

DateMotion = Literal["affine", "translation", "none"]
"""Maps between two dates; none of two images that lie on each other already."""
_LEAST_COVERED = 0.05


@dataclass(frozen=True)
class RegisteredDates:
    """Two dates of one scene, on the grid of the first."""

    before: SceneReader
    after: SceneReader
    modalities: tuple[Modality, ...]
    """Those that both have."""
    matrix: NDArray[np.float64]
    """3 × 3, from places of the first to places of the second."""
    by: str
    """Modality whose edges gave the map; empty without a registration."""
    shift: tuple[float, float]
    """Displacement of the middle of the scene, in pixels of the first, across and down."""
    confidence: float
    error: float
    """Root mean square departure of the windows from the map, in pixels of the first."""

    def read_before(self, name: str, top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        """A window of a modality at the first date, (c, height, width)."""
        return self.before.read_modality(name, top, left, height, width)

    def read_after(self, name: str, top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        """The same window at the second date, resampled; NaN beyond its images."""

        def read(top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
            return self.after.read_modality(name, top, left, height, width)

        channels = next(one.channels for one in self.modalities if one.name == name)
        size, window = (self.after.height, self.after.width), (top, left, height, width)
        return resample_affine(read, size, channels, self.matrix, window)

    @property
    def words(self) -> str:
        """One line for the user."""
        if not self.by:
            return "taken as registered"
        dx, dy = self.shift
        return (
            f"registered by {self.by}: {dx:+.1f} pixels across, {dy:+.1f} down in the middle, windows agree to "
            f"{self.error:.2f} pixels (confidence {self.confidence:.0f})"
        )


def register_dates(before: SceneReader, after: SceneReader, motion: DateMotion) -> RegisteredDates:
    """Register two opened dates of one scene by the edges of a modality that both have, the finest first.

    Raises
    ------
    ImageError
        When they share no modality, or no map between them is sure, or hardly anything of the one lies on the other.
    """
    common = _common(before, after)
    size, own = (before.height, before.width), (after.height, after.width)
    if motion == "none":
        across, down = own[1] / size[1], own[0] / size[0]
        if abs(across - down) * max(size) > 2:
            problem = (
                f"is {own[1]} × {own[0]} pixels, which is not {size[1]} × {size[0]} at another resolution"
            )
            raise ImageError(after.scene.folder, problem, "let it be registered, without --motion none")
        return RegisteredDates(before, after, common, scaling(across, down), "", (0, 0), 0, 0)
    scales = before.scales
    for modality in sorted(common, key=lambda one: -scales[one.name]):
        (first, first_step), (second, second_step) = (_overview(one, modality) for one in (before, after))
        found = register(first, second, motion)
        if found is None:
            continue
        matrix = scaling(second_step, second_step) @ found.matrix @ scaling(1 / first_step, 1 / first_step)
        if covered_share(matrix, size, own) < _LEAST_COVERED:
            break
        middle = np.array([size[1] / 2, size[0] / 2, 1])
        ratio = scaling(size[1] / own[1], size[0] / own[0])
        dx, dy = (ratio @ matrix @ middle - middle)[:2]
        return RegisteredDates(
            before,
            after,
            common,
            matrix,
            modality.name,
            (float(dx), float(dy)),
            found.confidence,
            found.error * first_step,
        )
    raise ImageError(
        after.scene.folder,
        f"cannot be registered to {before.scene.folder}: it shares too few edges with it, or shows another surface",
        "give two dates of one surface, or --motion none where they lie on each other already",
    )


def _common(before: SceneReader, after: SceneReader) -> tuple[Modality, ...]:
    others = {one.name: one.channels for one in after.modalities if one.name not in after.missing}
    present = [one for one in before.modalities if one.name not in before.missing]
    common = tuple(one for one in present if others.get(one.name) == one.channels)
    if not common:
        names = ", ".join(one.name for one in present)
        problem = f"has no modality in common with {before.scene.folder} ({names}), by name and channels"
        raise ImageError(after.scene.folder, problem, "name its files in the same way")
    return common


def _overview(reader: SceneReader, modality: Modality) -> tuple[NDArray[np.float32], int]:
    def read(top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        return reader.read_modality(modality.name, top, left, height, width)

    return overview(Raster(modality.channels, reader.height, reader.width, read))
