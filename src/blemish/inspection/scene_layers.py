"""Layers of an inspected scene: its modalities, reconstructions and maps, as files and pages for other programs have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.data.modality import Modality, channel_slices
from blemish.data.scene_reader import SceneReader
from blemish.decision.outlines import region_collection
from blemish.inspection.scene_page import FinishedScene
from blemish.report.layers import DataFile, LayerStack, ViewLayer, draw_image, draw_map
from blemish.report.numbers import counted, number
from blemish.storage.pyramid import Raster
from blemish.storage.tiled_array import open_tiled, reading

IMAGES, RECONSTRUCTIONS, MAPS = "Images", "Reconstructions", "Maps"
FALSE_COLOUR = "false-colour"
_DARK, _WHITE = 0.5, 0.999
"""An image with 99.9 % of its values below half of its range is drawn brighter."""
_WAVELENGTH = re.compile(r"(?<![0-9])([3-9][0-9]{2}|1[0-9]{3}|2[0-4][0-9]{2})(?:\s*nm)?(?![0-9])")
_INFRARED = re.compile(r"infra|(^|[^a-z])(ir|nir|swir|irr)([^a-z]|$)", re.IGNORECASE)
_OTHER_COLOUR = re.compile(r"uv|ultra|rak|fals|thermal|fluo", re.IGNORECASE)


def false_colour_bands(modalities: Sequence[Modality]) -> tuple[tuple[str, int], ...] | None:
    """The (modality, channel) that infrared false colour shows as red, green and blue: infrared, red, green.

    A modality of one channel whose name says infrared, or a band of 700 to 2,499 nm, is the infrared one. Red and
    green come from the modality of three channels that is named as no other kind of image, or from the bands nearest
    to 650 and 550 nm. None where one of them is missing.

    >>> rgb, infrared = Modality(name="visible", channels=3), Modality(name="infrared", channels=1)
    >>> false_colour_bands([rgb, infrared])
    (('infrared', 0), ('visible', 0), ('visible', 1))
    """
    single = [one.name for one in modalities if one.channels == 1]
    bands = {name: int(found[1]) for name in single if (found := _WAVELENGTH.search(name))}
    beyond = {name: length for name, length in bands.items() if length >= 700}
    infrared = next((name for name in single if _INFRARED.search(name)), None)
    if infrared is None and beyond:
        infrared = min(beyond, key=lambda name: abs(beyond[name] - 900))
    colour = next(
        (one.name for one in modalities if one.channels == 3 and not _OTHER_COLOUR.search(one.name)), None
    )
    if infrared is None:
        return None
    if colour is not None:
        return (infrared, 0), (colour, 0), (colour, 1)
    red, green = (_nearest_band(bands, length) for length in (650, 550))
    return None if red is None or green is None else ((infrared, 0), (red, 0), (green, 0))


def _nearest_band(bands: Mapping[str, int], length: int) -> str | None:
    """The band within 50 nm that is nearest to a wavelength."""
    near = [name for name, own in bands.items() if abs(own - length) <= 50]
    return min(near, key=lambda name: abs(bands[name] - length), default=None)


def scene_stack(
    found: FinishedScene, opened: SceneReader, pixel_threshold: float, dpi: float | None
) -> LayerStack:
    """Layers, files and regions of a finished scene, whose reader must stay open as long as they are read."""
    record = found.record
    with reading(found.maps):
        group = open_tiled(found.maps)
        arrays = dict(group.arrays())
        factor = int(group.attrs["overview_reduction"])
    size = (opened.height, opened.width)
    names = [one.name for one in record.modalities]
    overview = found.window("overview_residual")
    pictures = dict(zip(names, (pixels for _, pixels in found.planes("overview_picture")), strict=True))
    layers = [
        *_images(opened, pictures),
        *_reconstructions(found, arrays, factor),
        *_maps(found, arrays, pixel_threshold),
    ]
    first = next((layer.name for layer in layers if layer.group == IMAGES), layers[0].name)
    return LayerStack(
        name=record.path,
        title=record.path,
        size=size,
        files=list(_files(found, opened, arrays)),
        layers=layers,
        regions=region_collection(
            overview,
            pixel_threshold,
            size=size,
            factor=factor,
            means_of={name: pixels.mean(0) for name, pixels in pictures.items() if np.isfinite(pixels).any()},
            dpi=dpi,
        ),
        start=(first, "residual"),
        dpi=dpi,
        facts=(
            ("squares above the threshold", f"{record.above} of {counted(record.squares, 'square')}"),
            ("highest score", number(record.score)),
            ("threshold", number(record.threshold)),
            ("p-value", number(record.p_value)),
        ),
        notes=record.notices,
    )


def _raster(array: Any, found: FinishedScene, channels: slice | None = None) -> Raster:
    """Planes of a stored map, (H, W) or (C, H, W)."""
    shape = array.shape
    chosen = channels if channels is not None else slice(0, shape[0] if len(shape) == 3 else 1)

    def read(top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        window = (slice(top, top + height), slice(left, left + width))
        with reading(found.maps):
            values = array[window][None] if len(shape) == 2 else array[(chosen, *window)]
        return np.asarray(values, np.float32)

    return Raster(chosen.stop - chosen.start, shape[-2], shape[-1], read)


def _files(found: FinishedScene, opened: SceneReader, arrays: Mapping[str, Any]) -> Iterator[DataFile]:
    names = tuple(one.name for one in opened.modalities)
    yield DataFile("residual", ("residual",), _raster(arrays["residual"], found))
    for kind in ("own", "cross"):
        yield DataFile(kind, names, _raster(arrays[kind], found))
    if "reconstruction" in arrays:
        for channels, one in zip(channel_slices(opened.modalities), opened.modalities, strict=True):
            labels = channel_names(one)
            yield DataFile(
                f"reconstruction-{one.name}", labels, _raster(arrays["reconstruction"], found, channels)
            )


def channel_names(one: Modality) -> tuple[str, ...]:
    """Names of the channels of a modality, for files."""
    if one.channels == 1:
        return (one.name,)
    if one.channels == 3:
        return tuple(f"{one.name} {colour}" for colour in ("red", "green", "blue"))
    return tuple(f"{one.name} {channel}" for channel in range(one.channels))


def _images(opened: SceneReader, pictures: Mapping[str, NDArray[np.float32]]) -> Iterator[ViewLayer]:
    whites = {name: _white(pixels) for name, pixels in pictures.items()}
    present = [one for one in opened.modalities if one.name not in opened.missing]
    for one in present:

        def read(top: int, left: int, height: int, width: int, name: str = one.name) -> NDArray[np.float32]:
            return opened.read_modality(name, top, left, height, width)

        raster = Raster(one.channels, opened.height, opened.width, read)
        white = whites[one.name]
        note = "" if white == 1 else f"{number(white)} of its range is drawn as white."
        yield ViewLayer(f"image-{one.name}", one.name, IMAGES, raster, draw_image(white), scale_note=note)
    bands = false_colour_bands(present)
    if bands is not None:
        yield _false_colour(opened, bands, whites)


def _false_colour(
    opened: SceneReader, bands: tuple[tuple[str, int], ...], whites: Mapping[str, float]
) -> ViewLayer:
    def read(top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        planes = {
            name: opened.read_modality(name, top, left, height, width) / np.float32(whites[name])
            for name in dict(bands)
        }
        return np.stack([planes[name][channel] for name, channel in bands]).clip(0, 1)

    shown = ", ".join(
        f"{name} as {colour}" for (name, _), colour in zip(bands, ("red", "green", "blue"), strict=True)
    )
    return ViewLayer(
        FALSE_COLOUR,
        "infrared false colour",
        IMAGES,
        Raster(3, opened.height, opened.width, read),
        draw_image(),
        scale_note=f"{shown}.",
    )


def _white(pixels: NDArray[np.float32]) -> float:
    present = pixels[np.isfinite(pixels)]
    high = float(np.quantile(present, _WHITE)) if present.size else 1.0
    return high if 0 < high < _DARK else 1.0


def _reconstructions(found: FinishedScene, arrays: Mapping[str, Any], factor: int) -> Iterator[ViewLayer]:
    """Those at full size where they were written, those of the overview otherwise."""
    is_full = "reconstruction" in arrays
    array = arrays["reconstruction" if is_full else "overview_reconstruction"]
    modalities = found.scene.modalities
    scale = 1 if is_full else factor
    for channels, one in zip(channel_slices(modalities), modalities, strict=True):
        raster = _raster(array, found, channels)
        note = f"One pixel for {scale} × {scale}; inspect with --reconstruction for all." if scale > 1 else ""
        white = _white(found.window("overview_picture", channels))
        yield ViewLayer(
            f"reconstruction-{one.name}",
            one.name,
            RECONSTRUCTIONS,
            raster,
            draw_image(white),
            scale=scale,
            scale_note=note,
        )


def _maps(found: FinishedScene, arrays: Mapping[str, Any], pixel_threshold: float) -> Iterator[ViewLayer]:
    yield ViewLayer(
        "residual",
        "anomaly map",
        MAPS,
        _raster(arrays["residual"], found),
        draw_map(pixel_threshold),
        reduction="max",
        scale_note=f"Mid-scale is the pixel threshold, {number(pixel_threshold)}.",
        is_map=True,
    )
    for kind, words in (("own", "residual"), ("cross", "not predicted by the others")):
        scale = found.scale(kind)
        for place, (modality, plane) in enumerate(found.planes(f"overview_{kind}")):
            if np.isfinite(plane).any():
                yield ViewLayer(
                    f"{kind}-{modality.name}",
                    f"{modality.name}, {words}",
                    MAPS,
                    _raster(arrays[kind], found, slice(place, place + 1)),
                    draw_map(scale),
                    scale_note=f"1 − {modality.measure}; mid-scale is {number(scale)}.",
                    is_map=True,
                )
