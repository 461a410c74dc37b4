"""Heat maps on a fixed colour scale, and overlays with numbered regions.

The scale never depends on the image shown. A value v is drawn at v / (2 · middle), clipped to [0, 1]. With the
calibrated pixel threshold as the middle, values of good images stay dark, values above the threshold are bright, and
the same value has the same colour in every image of a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from blemish.data.image import as_floats, levels
from blemish.errors import UsageError

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Value = TypeVar("Value", bound=np.generic)

# (position, lightness L, chroma C, hue h in degrees) in OKLCh. The lower half of the scale is dark indigo; the
# upper half rises through crimson and orange to a warm white. L increases monotonically, so the scale is readable
# in grey print and without colour vision.
_CONTROL_POINTS = (
    (0.00, 0.16, 0.015, 275.0),
    (0.25, 0.21, 0.045, 280.0),
    (0.50, 0.30, 0.095, 300.0),
    (0.58, 0.43, 0.150, 355.0),
    (0.68, 0.58, 0.190, 30.0),
    (0.82, 0.76, 0.160, 66.0),
    (0.93, 0.90, 0.140, 96.0),
    (1.00, 0.98, 0.045, 106.0),
)
_STEPS = 255  # odd, so that one entry is mid-scale; at most 256, so that a heat map fits a palette PNG
_ROWS = 256

_GROUND_TRUTH = (52, 226, 190)  # outline of the ground-truth mask
_LIGHT = (255, 255, 255)
_DARK = (12, 12, 18)
_MOST_NUMBERS = 9  # further regions get a box without a number: more numbers would hide the image


class Box(Protocol):
    """Bounding box of a region in pixels of the image, as :func:`overlay` draws it."""

    @property
    def x(self) -> int: ...
    @property
    def y(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


def oklab_to_srgb(lab: Floats) -> Floats:
    """Convert colours (..., 3) from OKLab to sRGB in [0, 1].

    Source: B. Ottosson, "A perceptual color space for image processing", 2020.
    """
    to_lms = np.array(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = ((lab @ to_lms.T) ** 3 @ to_linear.T).clip(0.0, 1.0)
    curve = 1.055 * np.maximum(linear, 1e-12) ** (1 / 2.4) - 0.055
    srgb: Floats = np.where(linear <= 0.0031308, 12.92 * linear, curve)
    return srgb


def _heat_table() -> Pixels:
    position, lightness, chroma, degrees = np.array(_CONTROL_POINTS).T
    hue = np.deg2rad(degrees)
    at = np.linspace(0.0, 1.0, _STEPS)
    lab = np.stack(
        [np.interp(at, position, v) for v in (lightness, chroma * np.cos(hue), chroma * np.sin(hue))], axis=-1
    )
    return np.rint(oklab_to_srgb(lab) * 255).astype(np.uint8)


HEAT: Pixels = _heat_table()
"""Colour scale of heat maps, uint8 (255, 3): entry 0 is value 0, entry 127 the middle, entry 254 twice it or more."""


def _position(anomaly_map: Floats, middle: float) -> Floats:
    """Compute the position of each value on the fixed scale: value / (2 · middle), clipped to [0, 1]."""
    if not middle >= 0 or not np.isfinite(middle):
        raise UsageError(
            f"the middle of a heat map's scale must be a finite number that is not negative, not {middle}"
        )
    values = np.asarray(anomaly_map, dtype=np.float64)
    if middle == 0:  # the limit of the scale: every positive value is at its end
        return np.where(values > 0, 1.0, 0.0)
    clipped: Floats = np.clip(values / (2 * middle), 0.0, 1.0)
    return clipped


def heat(anomaly_map: Floats, middle: float) -> Pixels:
    """Draw an anomaly map (H, W) as a heat map on the fixed scale; uint8 (H, W, 3).

    ``middle`` is the value at mid-scale, usually the pixel threshold. Raises ``UsageError`` if it is negative or
    not finite.

    >>> import numpy as np
    >>> image = heat(np.array([[0.0, 0.1, 0.2, 9.0]]), middle=0.1)
    >>> [bool((colour == HEAT[i]).all()) for colour, i in zip(image[0], (0, 127, 254, 254))]
    [True, True, True, True]
    """
    return HEAT[np.rint(_position(anomaly_map, middle) * (_STEPS - 1)).astype(np.intp)]


def displayable(image: Floats) -> Pixels:
    """Convert an image (C, H, W), of 8 or 16 bits or floats in [0, 1], to uint8 (H, W, 3); values outside are clipped.

    One channel is shown as grey, two as grey without the alpha channel, three as RGB, four as RGB without the
    alpha channel, and any other number as the mean of the channels.
    """
    return fitted(image, image.shape[1:])


def fitted(image: Floats | Pixels, size: tuple[int, ...]) -> Pixels:
    """:func:`displayable` at ``size`` (height, width), as :func:`fit_image` resizes; plane by plane.

    Floats of a large image, or several copies of it, are many.
    """
    channels = len(image)
    planes = image[:1] if channels in (1, 2) else image[:3] if channels in (3, 4) else _mean(image)
    drawn = np.empty((*size, 3), np.uint8)
    for place in range(3):
        if place < len(planes):
            plane = fit_image(levels(planes[place]), size)
        drawn[..., place] = plane
    return drawn


def _mean(image: Floats | Pixels) -> Floats:
    """Mean (1, H, W) of all channels, in [0, 1]."""
    values = np.clip(np.asarray(as_floats(image), dtype=np.float32), 0.0, 1.0)
    mean: Floats = values.mean(axis=0, keepdims=True)
    return mean


def fit_map(anomaly_map: npt.NDArray[Value], size: tuple[int, int]) -> npt.NDArray[Value]:
    """Resize a map or mask (H, W) to ``size`` (height, width), with the maximum of the values of each output pixel.

    A defect of a few pixels in a large image stays as bright in the small map; averaging would hide it.
    """
    for axis, (length, wanted) in enumerate(zip(anomaly_map.shape, size, strict=True)):
        starts = np.arange(wanted) * length // wanted
        if wanted > length:
            anomaly_map = np.take(anomaly_map, starts, axis=axis)
        else:
            anomaly_map = np.maximum.reduceat(anomaly_map, starts, axis=axis)
    return anomaly_map


def fit_image(pixels: Pixels, size: tuple[int, ...]) -> Pixels:
    """Resize pixels (H, W[, 3]) to ``size`` (height, width): smooth when reduced, nearest neighbour when enlarged."""
    height, width = size
    if pixels.shape[:2] == (height, width):
        return pixels
    smaller = height < pixels.shape[0] or width < pixels.shape[1]
    filter_ = Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize((width, height), filter_))


def size_within(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Compute (height, width) of an image of ``shape`` drawn with a longer side of ``side`` pixels."""
    scale = side / max(shape)
    height, width = (max(1, round(length * scale)) for length in shape)
    return height, width


def overlay(
    image: Floats,
    anomaly_map: Floats,
    pixel_threshold: float,
    regions: Sequence[Box] = (),
    *,
    mask: Mask | None = None,
    side: int | None = None,
) -> Pixels:
    """Draw heat on the image where the anomaly map exceeds the pixel threshold, and a numbered box around each region.

    ``image`` is (C, H, W) in [0, 1], ``anomaly_map`` and ``mask`` are (H, W); returns uint8 (H, W, 3). A
    ground-truth ``mask`` is outlined in turquoise. Pixels at or below the pixel threshold, outside lines and numbers,
    keep the values of the image. With ``side`` the longer side of the result has that many pixels, which keeps lines
    sharp in small images and visible in large ones.
    """
    height, width = image.shape[1:]
    size = (height, width) if side is None else size_within((height, width), side)
    pixels = fitted(image, size)
    if side is not None:
        anomaly_map = fit_map(anomaly_map, size)
        mask = None if mask is None else fit_map(mask, size)

    for start in range(0, len(pixels), _ROWS):
        rows = slice(start, start + _ROWS)
        _blend(pixels[rows], anomaly_map[rows], pixel_threshold)
    drawn = Image.fromarray(pixels)

    line = _line(size)
    if mask is not None:
        _outline(drawn, mask, _GROUND_TRUTH, line)
    _draw_boxes(drawn, regions, (size[1] / width, size[0] / height), line)
    return np.asarray(drawn)


def glow(
    image: Floats, anomaly_map: Floats, middle: float, level: float, regions: Sequence[Box] = (), *, side: int
) -> Pixels:
    """Draw the whole anomaly map over its image, on the scale of :func:`heat`, and outline what is above ``level``.

    A numbered box around each of ``regions``, as in :func:`overlay`, leads the eye to those of a few pixels.

    ``image`` is (C, H, W), of 8 or 16 bits or floats in [0, 1], ``anomaly_map`` is (H, W), ``middle`` the value at
    mid-scale; returns uint8 (H, W, 3) with a longer side of ``side`` pixels. Raises ``UsageError`` if ``middle`` is
    negative or not finite.
    """
    size = size_within((image.shape[1], image.shape[2]), side)
    values = fit_map(anomaly_map, size)
    hot = heat(values, middle)
    # Where the map is low, most of what is seen is the image; the strongest places are nearly the colours of the scale.
    strength = 0.4 + 0.4 * _position(values, middle)[..., None]
    pixels = fitted(image, size)
    drawn = Image.fromarray(np.rint(pixels + strength * (hot.astype(np.float64) - pixels)).astype(np.uint8))
    line = _line(size)
    _outline(drawn, values > np.float64(level), _LIGHT, line)
    _draw_boxes(drawn, regions, (size[1] / image.shape[2], size[0] / image.shape[1]), line)
    return np.asarray(drawn)


def _line(size: tuple[int, int]) -> int:
    """Width of lines in an image of ``size``."""
    return max(1, round(max(size) / 320))


def _outline(image: Image.Image, mask: Mask, colour: tuple[int, int, int], line: int) -> None:
    """Draw a line around a mask, with a dark line around it that shows on bright ground."""
    inner = _grow(mask, line) & ~mask
    _paint(image, _grow(mask, 2 * line) & ~mask & ~inner, _DARK)
    _paint(image, inner, colour)


def _blend(pixels: Pixels, anomaly_map: Floats, pixel_threshold: float) -> None:
    """Lay heat on pixels (H, W, 3), in place, where the map (H, W) is above the pixel threshold."""
    above = anomaly_map > np.float64(pixel_threshold)
    hot, under = anomaly_map[above], pixels[above].astype(np.float64)  # (n,), (n, 3)
    strength = 0.45 + 0.3 * (2 * _position(hot, pixel_threshold)[:, None] - 1)
    pixels[above] = np.rint(under + strength * (heat(hot, pixel_threshold) - under))


def _grow(mask: Mask, pixels: int) -> Mask:
    """Dilate a mask by ``pixels`` pixels in the four directions."""
    for _ in range(pixels):
        rim = np.pad(mask, 1)
        mask = rim[1:-1, 1:-1] | rim[:-2, 1:-1] | rim[2:, 1:-1] | rim[1:-1, :-2] | rim[1:-1, 2:]
    return mask


def _paint(image: Image.Image, where: Mask, colour: tuple[int, int, int]) -> None:
    image.paste(colour, mask=Image.fromarray(where.astype(np.uint8) * 255))


def _around(start: float, extent: float, line: int, length: int) -> tuple[float, float]:
    """Compute the first and last pixel of a box along one axis, with a gap to the region and a minimum size."""
    gap = max(2 * line, (10 * line - extent) / 2)
    return max(start - gap, 0), min(start + extent + gap, length) - 1


def _draw_boxes(image: Image.Image, regions: Sequence[Box], scale: tuple[float, float], line: int) -> None:
    draw = ImageDraw.Draw(image)
    font_size = max(9, round(max(image.size) / 24))
    font = ImageFont.load_default(font_size)
    has_space_for_numbers = min(image.size) >= 4 * font_size
    # The first region has the highest peak: it is drawn last, so that nothing covers it.
    for number, region in reversed(list(enumerate(regions, start=1))):
        left, right = _around(region.x * scale[0], region.width * scale[0], line, image.width)
        top, bottom = _around(region.y * scale[1], region.height * scale[1], line, image.height)
        box = (left, top, right, bottom)
        halo = (box[0] - line, box[1] - line, box[2] + line, box[3] + line)
        draw.rectangle(halo, outline=_DARK, width=line)
        draw.rectangle(box, outline=_LIGHT, width=line)
        if not has_space_for_numbers or number > _MOST_NUMBERS:
            continue
        x0, y0, x1, y1 = font.getbbox(str(number))
        tag_width, tag_height = x1 - x0 + 6 * line, y1 - y0 + 5 * line
        tag_left = min(box[0], image.width - tag_width)
        tag_top = box[1] - tag_height if box[1] >= tag_height else min(box[3] + 1, image.height - tag_height)
        draw.rectangle((tag_left, tag_top, tag_left + tag_width, tag_top + tag_height), fill=_LIGHT)
        draw.text((tag_left + 3 * line - x0, tag_top + 3 * line - y0), str(number), fill=_DARK, font=font)
