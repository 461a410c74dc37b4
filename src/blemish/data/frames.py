"""Images from memory: arrays of cameras and of other libraries, and images of Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blemish.data.image import LoadedImage, pixels_of
from blemish.data.opening import exif_orientation, upright
from blemish.errors import ImageError

_DEEP = {"I;16B", "I;16L", "F"}
"""Modes of Pillow that are arrays of 16 bits or floats."""
_USUAL = {1, 2, 3, 4}
"""Numbers of channels of images: grey, RGB, and either with alpha."""


def from_memory(source: NDArray[Any] | Image.Image, name: Path, *, channels: int) -> LoadedImage:
    """An image in memory as one that was read.

    Parameters
    ----------
    source: an array (H, W), (C, H, W) or (H, W, C) of uint8, uint16 or floats in [0, 1], in RGB order; or an image of
        Pillow, which is turned as its EXIF says. The axis of the channels is the one that has as many as images have,
        1 to 4, or as many as the model's images.
    name: what errors call it.
    channels: of the images that the model was fitted on.

    Raises
    ------
    ImageError
        For anything else, another shape or type, values outside 0..1, or an array of which either axis may be that of the channels.
    """
    if isinstance(source, Image.Image):
        if source.mode in _DEEP:
            return from_memory(np.asarray(source), name, channels=channels)
        pixels, _ = pixels_of(name, source)
        return LoadedImage(name, np.ascontiguousarray(upright(pixels, exif_orientation(source))))
    if not hasattr(source, "__array__"):
        problem = f"is no image, but of the type {type(source).__name__}"
        raise ImageError(name, problem, "give an array, an image of Pillow, or the path of a file")
    array = np.asarray(source)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # as files of other machines have it
    pixels = _channels_first(array, name, channels)
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = pixels.astype(np.float32)
        if not ((pixels >= 0) & (pixels <= 1)).all():
            raise ImageError(name, "holds values outside 0..1, or NaN", "scale it to 0..1")
    elif pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(name, f"is an array of {pixels.dtype}", "give uint8, uint16 or floats in 0..1")
    return LoadedImage(name, np.ascontiguousarray(pixels))


def _channels_first(array: NDArray[Any], name: Path, channels: int) -> NDArray[Any]:
    if array.ndim == 2 and array.size:
        return array[None]  # (H, W) -> (1, H, W)
    if array.ndim != 3 or 0 in array.shape:
        raise ImageError(name, f"is an array of shape {array.shape}", "give (H, W), (C, H, W) or (H, W, C)")
    counts = _USUAL | {channels}
    first, last = array.shape[0] in counts, array.shape[2] in counts
    if first and last:  # a strip of few rows or columns; the model's own number decides, if it can
        first, last = array.shape[0] == channels, array.shape[2] == channels
    if first == last:
        problem = f"is an array of shape {array.shape}, in which no one axis is plainly that of the channels"
        raise ImageError(name, problem, f"give (C, H, W) with the model's {channels} channels, or (H, W, C)")
    return array if first else array.transpose(2, 0, 1)
