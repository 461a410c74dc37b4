"""Images for people: residual maps as heat on one fixed scale, overlays with numbered regions.

The scale never depends on the image shown. A value v is drawn at v / (2 · level), clipped to [0, 1], so the
calibrated level sits exactly at mid-scale everywhere: what good parts reach stays dark, what lies above the
level glows, and the same value has the same colour in every image of every report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from blemish.errors import UsageError

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Value = TypeVar("Value", bound=np.generic)

# (position, lightness L, chroma C, hue h in degrees) in OKLCh. Half of the scale, up to the level, is spent
# on dark indigo; the other half climbs through crimson and orange to a warm white. L rises all the way, so
# the scale reads in grey print and without colour vision.
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

_TRUTH = (52, 226, 190)  # outline of a known blemish
_LIGHT = (255, 255, 255)
_DARK = (12, 12, 18)
_NUMBERED = 9  # further regions get a box without a number: more numbers hide the image


class Box(Protocol):
    """What :func:`overlay` needs of a region: its box in pixels of the image."""

    @property
    def x(self) -> int: ...
    @property
    def y(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


def oklab_to_srgb(lab: Floats) -> Floats:
    """Colours (..., 3) in OKLab as sRGB in [0, 1].

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
"""The heat scale, uint8 (255, 3): entry 0 is value 0, entry 127 the level, entry 254 twice it or more."""


def _position(residual_map: Floats, level: float) -> Floats:
    """Where each value lies on the fixed scale: value / (2 · level), clipped to [0, 1]."""
    if not level >= 0 or not np.isfinite(level):
        raise UsageError(f"the level of a heat map must be a finite number that is not negative, not {level}")
    values = np.asarray(residual_map, dtype=np.float64)
    if level == 0:  # the limit of the scale: whatever is above the level is far above it
        return np.where(values > 0, 1.0, 0.0)
    clipped: Floats = np.clip(values / (2 * level), 0.0, 1.0)
    return clipped


def heat(residual_map: Floats, level: float) -> Pixels:
    """Colour a residual map (H, W) on the fixed scale; uint8 (H, W, 3).

    ``level`` is the calibrated per-image level of the map: it gets the colour of mid-scale. Raises
    ``UsageError`` for a negative or non-finite level.

    >>> import numpy as np
    >>> image = heat(np.array([[0.0, 0.1, 0.2, 9.0]]), level=0.1)
    >>> [bool((colour == HEAT[i]).all()) for colour, i in zip(image[0], (0, 127, 254, 254))]
    [True, True, True, True]
    """
    return HEAT[np.rint(_position(residual_map, level) * (_STEPS - 1)).astype(np.intp)]


def displayable(image: Floats) -> Pixels:
    """An image (C, H, W) in [0, 1] as uint8 (H, W, 3); values outside are clipped.

    One channel is shown as grey, two as grey without the alpha channel, three as RGB, four as RGB without the
    alpha channel, and any other number as the mean of the channels.
    """
    values = np.clip(np.asarray(image, dtype=np.float32), 0.0, 1.0)
    channels = values.shape[0]
    if channels == 2:
        values = values[:1]
    elif channels in (3, 4):
        values = values[:3]
    else:
        values = values.mean(axis=0, keepdims=True)
    grey_or_rgb = np.broadcast_to(values, (3, *values.shape[1:])).transpose(1, 2, 0)  # (H, W, 3)
    return np.rint(grey_or_rgb * 255).astype(np.uint8)


def fit_map(residual_map: npt.NDArray[Value], size: tuple[int, int]) -> npt.NDArray[Value]:
    """A map or mask (H, W) at another size (height, width), keeping the maximum of what falls on each pixel.

    A blemish of a few pixels in a large image is as bright in the small map as in the large one; averaging
    would hide it.
    """
    for axis, (length, wanted) in enumerate(zip(residual_map.shape, size, strict=True)):
        starts = np.arange(wanted) * length // wanted
        if wanted > length:
            residual_map = np.take(residual_map, starts, axis=axis)
        else:
            residual_map = np.maximum.reduceat(residual_map, starts, axis=axis)
    return residual_map


def fit_image(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Pixels (H, W, 3) at another size (height, width): smooth when reduced, hard pixels when enlarged."""
    height, width = size
    smaller = height < pixels.shape[0] or width < pixels.shape[1]
    filter_ = Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize((width, height), filter_))


def size_within(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) of an image of ``shape`` drawn with its longer side at ``side`` pixels."""
    scale = side / max(shape)
    height, width = (max(1, round(length * scale)) for length in shape)
    return height, width


def overlay(
    image: Floats,
    residual_map: Floats,
    level: float,
    regions: Sequence[Box] = (),
    *,
    mask: Mask | None = None,
    side: int | None = None,
) -> Pixels:
    """The image with heat where the map exceeds the level, and a numbered box around each region.

    ``image`` is (C, H, W) in [0, 1], ``residual_map`` and ``mask`` are (H, W); returns uint8 (H, W, 3). A
    known ``mask`` is outlined in turquoise. Pixels at or below the level, outside lines and numbers, keep the
    image's own values. With ``side`` the result is drawn with its longer side at so many pixels, which
    keeps lines crisp in small images and visible in large ones.
    """
    height, width = image.shape[1:]
    pixels = displayable(image)
    size = (height, width) if side is None else size_within((height, width), side)
    if side is not None:
        pixels = fit_image(pixels, size)
        residual_map = fit_map(residual_map, size)
        mask = None if mask is None else fit_map(mask, size)

    above = residual_map > level
    strength = 0.45 + 0.3 * (2 * _position(residual_map, level)[above, None] - 1)
    blended = pixels.astype(np.float64)
    blended[above] += strength * (heat(residual_map, level)[above] - blended[above])
    drawn = Image.fromarray(np.rint(blended).astype(np.uint8))

    line = max(1, round(max(size) / 320))
    if mask is not None:
        inner = _grow(mask, line) & ~mask
        _paint(drawn, _grow(mask, 2 * line) & ~mask & ~inner, _DARK)
        _paint(drawn, inner, _TRUTH)
    _draw_boxes(drawn, regions, (size[1] / width, size[0] / height), line)
    return np.asarray(drawn)


def _grow(mask: Mask, pixels: int) -> Mask:
    """The mask with a rim of so many pixels in the four directions."""
    for _ in range(pixels):
        rim = np.pad(mask, 1)
        mask = rim[1:-1, 1:-1] | rim[:-2, 1:-1] | rim[2:, 1:-1] | rim[1:-1, :-2] | rim[1:-1, 2:]
    return mask


def _paint(image: Image.Image, where: Mask, colour: tuple[int, int, int]) -> None:
    image.paste(colour, mask=Image.fromarray(where.astype(np.uint8) * 255))


def _around(start: float, extent: float, line: int, length: int) -> tuple[float, float]:
    """First and last pixel of a box along one axis: it leaves the region's rim free and is never tiny."""
    gap = max(2 * line, (10 * line - extent) / 2)
    return max(start - gap, 0), min(start + extent + gap, length) - 1


def _draw_boxes(image: Image.Image, regions: Sequence[Box], scale: tuple[float, float], line: int) -> None:
    draw = ImageDraw.Draw(image)
    font_size = max(9, round(max(image.size) / 24))
    font = ImageFont.load_default(font_size)
    room_for_numbers = min(image.size) >= 4 * font_size
    # The first region is the strongest: it is drawn last, so that nothing covers it.
    for number, region in reversed(list(enumerate(regions, start=1))):
        left, right = _around(region.x * scale[0], region.width * scale[0], line, image.width)
        top, bottom = _around(region.y * scale[1], region.height * scale[1], line, image.height)
        box = (left, top, right, bottom)
        halo = (box[0] - line, box[1] - line, box[2] + line, box[3] + line)
        draw.rectangle(halo, outline=_DARK, width=line)
        draw.rectangle(box, outline=_LIGHT, width=line)
        if not room_for_numbers or number > _NUMBERED:
            continue
        x0, y0, x1, y1 = font.getbbox(str(number))
        tag_width, tag_height = x1 - x0 + 6 * line, y1 - y0 + 5 * line
        tag_left = min(box[0], image.width - tag_width)
        tag_top = box[1] - tag_height if box[1] >= tag_height else min(box[3] + 1, image.height - tag_height)
        draw.rectangle((tag_left, tag_top, tag_left + tag_width, tag_top + tag_height), fill=_LIGHT)
        draw.text((tag_left + 3 * line - x0, tag_top + 3 * line - y0), str(number), fill=_DARK, font=font)
