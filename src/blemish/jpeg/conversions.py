"""Conversion of images that no 8-bit grey or RGB file holds as they are: 16 bits a channel, and CMYK."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blemish.data.image import levels
from blemish.data.opening import full_size_series, image_format, open_tiff

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def in_8_bits(data: bytes) -> Image.Image | None:
    """A PNG or TIFF of 16 bits a channel as an image of 8, the full range rounded to 0 to 255; None of any other file.

    Of a TIFF the pages have to be one image of grey or RGB, with or without alpha.

    Examples
    --------
    >>> import imagecodecs
    >>> image = in_8_bits(imagecodecs.png_encode(np.array([[0, 128, 129, 65535]], np.uint16)))
    >>> np.asarray(image).tolist()
    [[0, 0, 1, 255]]
    """
    pixels = _deep_pixels(data)
    if pixels is None or pixels.dtype != np.uint16:
        return None
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels not in _MODES:
        return None
    return Image.fromarray(
        np.ascontiguousarray(levels(pixels if channels > 1 else pixels.reshape(pixels.shape[:2])))
    )


def _deep_pixels(data: bytes) -> NDArray[Any] | None:
    """(H, W) or (H, W, C), as they lie in the file."""
    kind = image_format(data)
    if kind == "PNG":
        import imagecodecs

        pixels: NDArray[Any] = imagecodecs.png_decode(data)
        return pixels
    if kind == "TIFF":
        with open_tiff(BytesIO(data)) as tiff:
            series = full_size_series(tiff)
            page = series[0].keyframe
            if len(series) == 1 and series[0].axes in ("YX", "YXS") and int(page.photometric) in (1, 2):
                deep: NDArray[Any] = series[0].asarray()
                return deep
    return None


def cmyk_as_rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """A CMYK image as sRGB, and whether by its own colour profile (perceptual); without one R = (1 - C)(1 - K)."""
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError):  # damaged, or for other channels
            converted = None
        if converted is not None:
            return converted, True
    return image.convert("RGB"), False
