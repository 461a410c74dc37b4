"""OME-Zarr 0.4: a pyramid of Zarr arrays with the metadata that napari, QuPath, Fiji and GDAL read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zarr

from blemish.storage.pyramid import ZARR_2, Raster
from blemish.storage.records_log import unwritable

VERSION = "0.4"
PRIMARIES = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
"""Colour that each channel of a colour image is shown in, all at once; of other images the first is shown in grey."""


def multiscales(
    name: str,
    levels: Sequence[Raster],
    channels: Sequence[str],
    value_range: tuple[float, float],
    pixel_mm: float | None = None,
) -> dict[str, Any]:
    """Metadata of an image of OME-NGFF 0.4 whose levels are the arrays ``0``, ``1``, ….

    Parameters
    ----------
    value_range: values that a viewer shows as black and as white at first.
    pixel_mm: side of a pixel of the first level in millimetres, where it is known.

    Source: https://ngff.openmicroscopy.org/0.4/
    """
    unit = {} if pixel_mm is None else {"unit": "micrometer"}
    side = 1.0 if pixel_mm is None else 1000 * pixel_mm
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space", **unit} for axis in "yx")]
    datasets = [
        {
            "path": str(number),
            # A level is rounded up, so that its pixels stay exactly twice as large.
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, side * 2**number, side * 2**number]},
                {"type": "translation", "translation": [0.0, *[side * (2**number - 1) / 2] * 2]},
            ],
        }
        for number in range(len(levels))
    ]
    is_colour = tuple(channels) == tuple(PRIMARIES)
    colours = PRIMARIES.values() if is_colour else ["FFFFFF"] * len(channels)
    low, high = value_range
    window = {"min": low, "max": high, "start": low, "end": high}
    return {
        "multiscales": [
            {"version": VERSION, "name": name, "axes": axes, "datasets": datasets, "type": "mean of 2 × 2"}
        ],
        "omero": {
            "name": name,
            "version": VERSION,
            "channels": [
                {"label": channel, "color": colour, "active": number == 0 or is_colour, "window": window}
                for number, (channel, colour) in enumerate(zip(channels, colours, strict=True))
            ],
        },
    }


def describe_ome_zarr(folder: Path, attributes: dict[str, Any]) -> None:
    """Make a folder of arrays an OME-Zarr image with these attributes.

    Raises
    ------
    FileError
        When it cannot be written.
    """
    try:
        group = zarr.open_group(str(folder), mode="a", **ZARR_2)
        group.attrs.update(attributes)
    except OSError as error:
        raise unwritable(folder, error) from error
