"""Appearance of an image in a few figures, by which one of another kind than the good images is known.

A detector says how unlike a good image is what it sees, wherever it is used. An empty image, one taken with the lamp
off, out of focus or by another camera is no good image with a defect: it is of another kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat

from blemish.data.image import LoadedImage, as_floats

MARGIN = 1.0
"""Times the range of the good images that is allowed beyond it, on either side."""
_ROWS = 256
"""Rows, at most, that are looked at."""
_FAR = 8.0
"""Times the median deviation from the median beyond which a good image is named."""


class _Figure(NamedTuple):
    words: str
    """In messages, with the value."""
    least: float
    """Range that good images are taken to have at least, on the figure's scale."""
    floor: float | None
    """Value from which on the scale is the logarithm; None for a scale that is linear."""


_FIGURES: dict[str, _Figure] = {
    "brightness": _Figure("mean brightness {0:.3g}", 0.06, None),
    "contrast": _Figure("contrast {0:.3g}", math.log(2), 0.004),
    "sharpness": _Figure("sharpness {0:.3g}", math.log(2), 0.0005),
    "colour": _Figure("mean spread between its colours {0:.3g}", 0.06, None),
    "width": _Figure("width of {0:.0f} pixels", math.log(1.4), 1),
    "height": _Figure("height of {0:.0f} pixels", math.log(1.4), 1),
    "length": _Figure("object of {0:.0f} pixels", math.log(1.4), 1),
}
SIZES = ("width", "height")
LARGEST = "largest"
"""Figure that is kept, and no reason to reject: the largest value of an image, as a share of its type's range."""
NARROW = 0.25
"""Share of the range below which images are stretched for people, and the card names it."""


class Range(BaseModel):
    """Least and largest value of a figure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: FiniteFloat
    high: FiniteFloat


def appearance(image: LoadedImage) -> dict[str, float]:
    """Figures of an image; those of colour only with three or four channels.

    brightness: mean, in [0, 1]. contrast: standard deviation. sharpness: mean difference between neighbours in a row.
    colour: mean of the largest minus the smallest channel. width, height: in pixels. largest: value, in [0, 1].
    """
    step = -(-image.height // _ROWS)
    rows = LoadedImage(image.path, image.pixels[:, ::step]).floats()  # (C, h, W)
    colours = rows[:3] if image.channels in (3, 4) else rows[:1] if image.channels == 2 else rows
    grey = colours.mean(0)
    found = {
        "brightness": float(grey.mean()),
        "contrast": float(grey.std(dtype=np.float64)),
        "sharpness": float(np.abs(np.diff(grey, axis=1)).mean()) if image.width > 1 else 0.0,
        "width": float(image.width),
        "height": float(image.height),
        LARGEST: float(as_floats(image.pixels.max(keepdims=True)).item()),
    }
    if len(colours) == 3:
        found["colour"] = float((colours.max(0) - colours.min(0)).mean())
    return found


def ranges(figures: Sequence[Mapping[str, float]]) -> dict[str, Range]:
    """The range of each figure over the good images."""
    names = figures[0] if figures else {}
    return {
        name: Range(low=min(one[name] for one in figures), high=max(one[name] for one in figures))
        for name in names
        if all(name in one for one in figures)
    }


def differences(figures: Mapping[str, float], good: Mapping[str, Range]) -> list[str]:
    """What is so unlike the good images that an image is of another kind, a phrase for each figure.

    >>> good = {"brightness": Range(low=0.4, high=0.5)}
    >>> differences({"brightness": 0.55}, good)
    []
    >>> differences({"brightness": 0.99}, good)
    ['mean brightness 0.99, good images have 0.4 to 0.5']
    """
    found, limits = [], accepted(good)
    for name, value in figures.items():
        if name not in good or name not in _FIGURES:
            continue
        figure, own = _FIGURES[name], good[name]
        if limits[name].low <= value <= limits[name].high:
            continue
        ends = f"{own.low:.3g} to {own.high:.3g}" if own.low < own.high else f"{own.low:.3g}"
        found.append(f"{figure.words.format(value)}, good images have {ends}")
    return found


def accepted(good: Mapping[str, Range]) -> dict[str, Range]:
    """Range of each figure within which an image is of the kind of the good ones; :func:`differences` names no other.

    >>> accepted({"brightness": Range(low=0.25, high=0.5)})
    {'brightness': Range(low=0.0, high=0.75)}
    """
    found = {}
    for name, own in good.items():
        if name in _FIGURES:
            figure = _FIGURES[name]
            low, high = _scaled(figure, own.low), _scaled(figure, own.high)
            beyond = MARGIN * max(high - low, figure.least)
            least, most = _unscaled(figure, low - beyond), _unscaled(figure, high + beyond)
            # Below the floor of a logarithm all values are one.
            is_open = figure.floor is not None and least <= figure.floor
            found[name] = Range(low=0.0 if is_open else least, high=most)
    return found


def outliers(figures: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Names of the images that are far from most others, and in what."""
    found: dict[str, str] = {}
    for name, figure in _FIGURES.items():
        values = {item: _scaled(figure, one[name]) for item, one in figures.items() if name in one}
        if len(values) < 5:
            continue
        middle = float(np.median([*values.values()]))
        spread = float(np.median([abs(value - middle) for value in values.values()]))
        far = max(_FAR * spread, MARGIN * figure.least)
        for item, value in values.items():
            if abs(value - middle) > far and item not in found:
                usual = _unscaled(figure, middle)
                found[item] = f"{figure.words.format(figures[item][name])}, where others have {usual:.3g}"
    return found


def without(good: Mapping[str, Range], names: Iterable[str]) -> dict[str, Range]:
    """The ranges but those of ``names``."""
    left_out = set(names)
    return {name: own for name, own in good.items() if name not in left_out}


def stretch(good: Mapping[str, Range]) -> float:
    """Factor by which images are brightened where people look at them; 1 unless good ones use little of their range.

    >>> stretch({"largest": Range(low=0.05, high=0.0625)}), stretch({"largest": Range(low=0.05, high=0.9)}), stretch({})
    (16.0, 1.0, 1.0)
    """
    own = good.get(LARGEST)
    return 1.0 if own is None or not 0 < own.high < NARROW else 1 / own.high


def stretched(pixels: NDArray[Any], factor: float) -> NDArray[Any]:
    """Pixels of a file's type, or floats, times ``factor``, cut off at full scale; themselves for a factor of 1."""
    if factor == 1:
        return pixels
    full_scale = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1
    values = np.minimum(np.multiply(pixels, np.float32(factor), dtype=np.float32), full_scale)
    brighter: NDArray[Any] = values.astype(pixels.dtype)
    return brighter


def _scaled(figure: _Figure, value: float) -> float:
    return value if figure.floor is None else math.log(max(value, figure.floor))


def _unscaled(figure: _Figure, value: float) -> float:
    return value if figure.floor is None else math.exp(value)
