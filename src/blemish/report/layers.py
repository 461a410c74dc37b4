"""Layers of one scene: images and maps of one area, and what is written of them for other programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.report.colours import Pixels, displayable, heat
from blemish.storage.pyramid import Raster, Reduction


@dataclass(frozen=True)
class DataFile:
    """Values to be saved as they are: channels of one map, or of one image."""

    name: str
    channels: tuple[str, ...]
    raster: Raster


@dataclass(frozen=True)
class ViewLayer:
    """An image or map as it is drawn, to be looked at."""

    name: str
    """Of its folder."""
    title: str
    group: str
    """Heading under which layers are listed."""
    raster: Raster
    draw: Callable[[NDArray[np.float32]], Pixels]
    """Values (C, h, w) to colours uint8 (h, w, 3)."""
    reduction: Reduction = "mean"
    scale: int = 1
    """Pixels of the scene along a side for each of the layer."""
    scale_note: str = ""
    """What its colours mean."""
    is_map: bool = False


@dataclass(frozen=True)
class LayerStack:
    """One scene, or one pair of dates of it: its files, its layers and its regions."""

    name: str
    title: str
    size: tuple[int, int]
    """(height, width) of the scene."""
    files: Sequence[DataFile]
    layers: Sequence[ViewLayer]
    regions: dict[str, Any]
    """GeoJSON in pixels."""
    start: tuple[str, str]
    """Names of the two layers that a page shows first."""
    dpi: float | None = None
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def pixel_mm(self) -> float | None:
        """Side of a pixel in millimetres; None where the resolution is unknown."""
        return None if self.dpi is None else 25.4 / self.dpi


def draw_image(white: float = 1.0) -> Callable[[NDArray[np.float32]], Pixels]:
    """Drawing of an image (C, h, w) with ``white`` as its brightest value; absent pixels are black."""

    def draw(values: NDArray[np.float32]) -> Pixels:
        return displayable(np.nan_to_num(values, nan=0.0) / np.float32(white))

    return draw


def draw_map(middle: float) -> Callable[[NDArray[np.float32]], Pixels]:
    """Drawing of a map (1, h, w) as a heat map with ``middle`` at mid-scale; absent pixels are dark."""

    def draw(values: NDArray[np.float32]) -> Pixels:
        return heat(np.nan_to_num(values[0], nan=0.0), middle)

    return draw
