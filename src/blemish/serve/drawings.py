"""Images and anomaly maps as the page shows them: small, 8 bits, with a heat map that lets the image through."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blemish.report.colours import Box, fit_map, fitted, heat, overlay, size_within

_SHOWN_FROM, _OPAQUE_FROM = 0.3, 0.75
"""Values of the map, in pixel thresholds, at which its heat begins to show, and from which it hides the image."""


def draw_image(image: NDArray[Any], side: int) -> bytes:
    """PNG of an image (C, H, W), of 8 or 16 bits or in [0, 1], with a longer side of at most ``side`` pixels."""
    return _png(fitted(image, _size(image.shape[1:], side)))


def draw_heat(anomaly_map: NDArray[np.floating[Any]], pixel_threshold: float, side: int) -> bytes:
    """PNG of a map (H, W) in the colours of the reports, to be laid over its image.

    It is clear where the map is far below the pixel threshold, and as large as :func:`draw_image` draws the image. A small
    defect stays as bright as it is, because the largest value of the pixels that become one counts.
    """
    values = fit_map(anomaly_map, _size(anomaly_map.shape, side))
    drawn = np.empty((*values.shape, 4), np.uint8)
    drawn[..., :3] = heat(values, pixel_threshold)
    drawn[..., 3] = np.rint(255 * _opacity(values, pixel_threshold))
    return _png(drawn)


def draw_overlay(
    image: NDArray[Any],
    anomaly_map: NDArray[np.floating[Any]],
    pixel_threshold: float,
    regions: Sequence[Box],
    side: int,
) -> bytes:
    """PNG of an image with the heat above the pixel threshold and a numbered box around each region."""
    longer = max(image.shape[1:])
    drawn = overlay(image, anomaly_map, pixel_threshold, regions, side=min(side, max(longer, 96)))
    return _png(drawn)


def _opacity(values: NDArray[np.floating[Any]], pixel_threshold: float) -> NDArray[np.float64]:
    if pixel_threshold <= 0:
        return np.where(values > 0, 1.0, 0.0)
    relative = values / pixel_threshold
    place = np.clip((relative - _SHOWN_FROM) / (_OPAQUE_FROM - _SHOWN_FROM), 0.0, 1.0)
    smooth: NDArray[np.float64] = place * place * (3 - 2 * place)
    return smooth


def _size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    height, width = shape
    return size_within((height, width), side) if max(shape) > side else (height, width)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    # The page is near the server: time matters more than bytes.
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()
