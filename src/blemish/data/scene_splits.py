"""How panels are divided: columns that train, that stop the training, and that calibrate the decision.

Scenes are few and large, so each panel is divided instead of the set of them: from left to right 60 % of its
columns train, 15 % are held out for early stopping, and 25 % calibrate. No patch lies in two bands. (Xie,
Meeus, Pižurica 2019, section 4, train on one half of each panel and test on the other.)

The calibration band is cut into squares with a score each, as an inspection scores squares. They are no
independent draws: those of one panel resemble each other, and the bands touch. A threshold on them is a guide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from blemish.data.scene_reader import SceneReader
from blemish.errors import ImageError

HELD_OUT_SHARE, CALIBRATION_SHARE = 0.15, 0.25
SIDES = (128, 96, 64)
"""Of the squares that are scored, in pixels: the first that gives as many as the promise takes."""
MOST_SQUARES = 512
"""Calibration squares of all panels together; of more, these many are taken evenly."""

_LEAST_SHOWN = 0.5


def sides_for(patch: int) -> tuple[int, ...]:
    """Sides to try for squares to be scored, none below ``patch``.

    >>> sides_for(32), sides_for(128)
    ((128, 96, 64, 32), (128,))
    """
    return (*(side for side in SIDES if side > patch), patch)


class Bands(NamedTuple):
    """The columns of each part of one panel."""

    train: slice
    validation: slice
    calibration: slice


class Square(NamedTuple):
    """Rows and columns of a scored square of the panel with this number."""

    panel: int
    rows: slice
    columns: slice


def bands(width: int, patch: int) -> Bands | None:
    """The bands of a panel of ``width`` pixels, each at least ``patch`` wide; None where it is too narrow.

    Examples
    --------
    >>> bands(512, 32)
    Bands(train=slice(0, 307, None), validation=slice(307, 384, None), calibration=slice(384, 512, None))
    """
    calibration = max(patch, round(CALIBRATION_SHARE * width))
    held_out = max(patch, round(HELD_OUT_SHARE * width))
    train = width - held_out - calibration
    if train < patch:
        return None
    return Bands(slice(0, train), slice(train, train + held_out), slice(train + held_out, width))


def divided(panel: SceneReader, patch: int) -> Bands:
    """The bands of ``panel``.

    Raises
    ------
    ImageError
        It is too small for a patch in each.
    """
    found = bands(panel.width, patch) if panel.height >= patch else None
    if found is None:
        raise ImageError(
            panel.scene.folder,
            f"is {panel.width} × {panel.height} pixels, too small for a patch of {patch} in each of three bands",
            f"give panels of {3 * patch} × {patch} at least, or leave it out",
        )
    return found


def squares(heights: Sequence[int], columns: Sequence[slice], side: int) -> list[Square]:
    """Whole squares of ``side``, beside each other from the top left of ``columns`` of each panel.

    Examples
    --------
    >>> squares([100], [slice(10, 90)], 48)
    [Square(panel=0, rows=slice(0, 48, None), columns=slice(10, 58, None)), \
Square(panel=0, rows=slice(48, 96, None), columns=slice(10, 58, None))]
    """
    return [
        Square(number, slice(top, top + side), slice(left, left + side))
        for number, (height, band) in enumerate(zip(heights, columns, strict=True))
        for top in range(0, height - side + 1, side)
        for left in range(band.start, band.stop - side + 1, side)
    ]


def calibration_squares(
    panels: Sequence[SceneReader], columns: Sequence[slice], *, sides: Sequence[int], needed: int
) -> tuple[int, list[Square]]:
    """The side of the squares to calibrate on, and those that show something on half of their pixels or more.

    The side is the first of ``sides``, which fall, that gives ``needed`` of them; where none does, the one
    that gives most.
    """
    best: tuple[int, list[Square]] = (sides[-1], [])
    for side in sides:
        found = squares([panel.height for panel in panels], columns, side)
        if len(found) > MOST_SQUARES:
            places = np.linspace(0, len(found) - 1, MOST_SQUARES).round().astype(int)
            found = [found[place] for place in places]
        if len(found) <= len(best[1]):
            continue
        shown = [square for square in found if _shown(panels[square.panel], square) >= _LEAST_SHOWN]
        if len(shown) > len(best[1]):
            best = side, shown
        if len(shown) >= needed:
            break
    return best


def _shown(panel: SceneReader, square: Square) -> float:
    """Share of the pixels where at least one sensor saw something."""
    top, left = square.rows.start, square.columns.start
    pixels = panel.read(top, left, square.rows.stop - top, square.columns.stop - left)
    return float(np.isfinite(pixels).any(axis=0).mean())
