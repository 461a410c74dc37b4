"""Pyramidal tiled BigTIFF with the metadata of OME-TIFF, which QuPath, Fiji, napari, libvips and QGIS open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from blemish.storage.atomic import atomic_path
from blemish.storage.pyramid import TILE, Raster, windows

_GDAL_NO_DATA = 42113
"""Tag by which GDAL and QGIS know the value of pixels without data."""
_FLOAT_PREDICTOR = 3


def write_pyramidal_tiff(
    path: Path,
    levels: Sequence[Raster],
    channels: Sequence[str],
    *,
    pixel_mm: float | None = None,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Write the levels of an image, the largest first, as one BigTIFF, whole or not at all.

    Values are float32, deflated, in tiles of 512; NaN stands for no data. A page of each channel holds the reduced levels
    as its SubIFDs, as OME-TIFF 6.0 has it.

    Parameters
    ----------
    levels: as :func:`blemish.storage.pyramid.build_pyramid` gives them.
    channels: name of each channel.
    pixel_mm: side of a pixel of the first level in millimetres, where it is known.
    watch: called before each tile; what it raises ends the work.

    Raises
    ------
    FileError
        When the file cannot be written.
    """
    metadata: dict[str, Any] = {
        "axes": "CYX" if len(channels) > 1 else "YX",
        "Channel": {"Name": list(channels)},
    }
    if pixel_mm is not None:
        metadata |= {
            f"PhysicalSize{axis}{key}": value
            for axis in "XY"
            for key, value in (("", pixel_mm * 1000), ("Unit", "µm"))
        }
    with atomic_path(path) as partial, tifffile.TiffWriter(partial, bigtiff=True, ome=True) as writer:
        for number, level in enumerate(levels):
            shape = (level.channels, *level.size) if len(channels) > 1 else level.size
            writer.write(
                _tiles(level, watch),
                shape=shape,
                dtype=np.float32,
                tile=(TILE, TILE),
                photometric="minisblack",
                compression="zlib",
                predictor=_FLOAT_PREDICTOR,
                maxworkers=1,  # several would gather tiles of 256 MiB
                subifds=len(levels) - 1 if number == 0 else None,
                subfiletype=int(number > 0),
                metadata=metadata if number == 0 else None,
                extratags=[(_GDAL_NO_DATA, "s", 0, "nan", True)],
                **_resolution(pixel_mm, 2**number),
            )


def _resolution(pixel_mm: float | None, factor: int) -> dict[str, Any]:
    if pixel_mm is None:
        return {}
    a_centimetre = 10 / (pixel_mm * factor)
    return {"resolution": (a_centimetre, a_centimetre), "resolutionunit": "CENTIMETER"}


def _tiles(level: Raster, watch: Callable[[], None]) -> Iterator[NDArray[np.float32]]:
    """Tiles of each channel in turn, row by row."""
    for channel in range(level.channels):
        for top, left, height, width in windows(level.size, TILE):
            watch()
            tile = np.full((TILE, TILE), np.nan, np.float32)
            tile[:height, :width] = level.read(top, left, height, width)[channel]
            yield tile
