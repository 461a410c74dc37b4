"""Split of scenes: columns for training, for early stopping, and for calibration.

Scenes are few and large, so each scene is divided instead of the set of them: from left to right 60 % of its
columns train, 15 % are held out for early stopping, and 25 % calibrate. No patch lies in two bands. (Xie,
Meeus, Pižurica 2019, section 4, train on one half of each scene and test on the other.)

The calibration band has those whole squares of an inspection's grid that lie inside it, with a score each. They are no
independent draws: those of one scene resemble each other, and the bands touch. A threshold on them is a guide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from blemish.data.scene_reader import SceneReader
from blemish.errors import ImageError

HELD_OUT_SHARE, CALIBRATION_SHARE = 0.15, 0.25
SIDES = (128, 96, 64)
"""Of the squares that are scored, in pixels: the first that gives as many as the promise takes."""
MOST_SQUARES = 512
"""Calibration squares of all scenes together; of more, whole blocks are taken evenly until there are these many."""
LEAST_SHOWN = 0.5
"""Share of a square's pixels that have to be present for it to be scored, in calibration and inspection."""


def sides_for(patch: int) -> tuple[int, ...]:
    """Sides to try for squares to be scored, none below ``patch``.

    >>> sides_for(32), sides_for(128)
    ((128, 96, 64, 32), (128,))
    """
    return (*(side for side in SIDES if side > patch), patch)


class Bands(NamedTuple):
    """Columns of each part of one scene."""

    train: slice
    validation: slice
    calibration: slice


class Square(NamedTuple):
    """Rows and columns of a scored square of the scene with this number."""

    scene: int
    rows: slice
    columns: slice


def bands(width: int, patch: int) -> Bands | None:
    """Bands of a scene of ``width`` pixels, each at least ``patch`` wide; None where it is too narrow.

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


def divided(scene: SceneReader, patch: int) -> Bands:
    """Bands of ``scene``.

    Raises
    ------
    ImageError
        It is too small for a patch in each.
    """
    found = bands(scene.width, patch) if scene.height >= patch else None
    if found is None:
        raise ImageError(
            scene.scene.folder,
            f"is {scene.width} × {scene.height} pixels, too small for a patch of {patch} in each of three bands",
            f"give scenes of {3 * patch} × {patch} at least, or leave it out",
        )
    return found


def squares(heights: Sequence[int], columns: Sequence[slice], side: int) -> list[Square]:
    """Whole squares of ``side`` inside ``columns`` of each scene, on the grid that begins at the scene's top left.

    Examples
    --------
    >>> squares([100], [slice(10, 150)], 48)
    [Square(scene=0, rows=slice(0, 48, None), columns=slice(48, 96, None)), \
Square(scene=0, rows=slice(0, 48, None), columns=slice(96, 144, None)), \
Square(scene=0, rows=slice(48, 96, None), columns=slice(48, 96, None)), \
Square(scene=0, rows=slice(48, 96, None), columns=slice(96, 144, None))]
    """
    return [
        Square(number, slice(top, top + side), slice(left, left + side))
        for number, (height, band) in enumerate(zip(heights, columns, strict=True))
        for top in range(0, height - side + 1, side)
        for left in range(-(-band.start // side) * side, band.stop - side + 1, side)
    ]


def calibration_squares(
    scenes: Sequence[SceneReader],
    columns: Sequence[slice],
    *,
    sides: Sequence[int],
    needed: int,
    block_side: Callable[[tuple[int, int], int], int],
) -> tuple[int, list[Square]]:
    """Side of the squares to calibrate on, and those squares: present on half of their pixels or more.

    The side is the first of ``sides``, which fall, that gives ``needed`` squares; where none does, the one that gives
    most. Of more than :data:`MOST_SQUARES`, all of some blocks are taken, evenly from first to last, because a whole
    block is scored for one of its squares.

    Parameters
    ----------
    columns: calibration band of each scene.
    block_side: side of the blocks in which a scene of that (height, width) is scored, by the side of its squares.
    """
    best: tuple[int, list[Square]] = (sides[-1], [])
    sizes = [(scene.height, scene.width) for scene in scenes]
    for side in sides:
        candidates = squares([height for height, _ in sizes], columns, side)
        blocks: dict[tuple[int, int, int], list[Square]] = {}
        for square in candidates:
            block = block_side(sizes[square.scene], side)
            key = (square.scene, square.rows.start // block, square.columns.start // block)
            blocks.setdefault(key, []).append(square)
        found = _some(list(blocks.values()))
        if len(found) <= len(best[1]):
            continue
        shown = [square for square in found if _shown(scenes[square.scene], square) >= LEAST_SHOWN]
        if len(shown) > len(best[1]):
            best = side, shown
        if len(shown) >= needed:
            break
    return best


def _some(blocks: Sequence[Sequence[Square]]) -> list[Square]:
    """Squares of all ``blocks``, or of as few evenly spaced ones as hold :data:`MOST_SQUARES`."""
    for count in range(1, len(blocks) + 1):
        places = np.linspace(0, len(blocks) - 1, count).round().astype(int)
        found = [square for place in places for square in blocks[place]]
        if len(found) >= MOST_SQUARES:
            break
    else:
        found = [square for block in blocks for square in block]
    return sorted(found, key=lambda square: (square.scene, square.rows.start, square.columns.start))


def _shown(scene: SceneReader, square: Square) -> float:
    """Share of the pixels that are judged, and where at least one modality is present."""
    top, left = square.rows.start, square.columns.start
    window = top, left, square.rows.stop - top, square.columns.stop - left
    shown = np.isfinite(scene.read(*window)).any(axis=0)
    judged = scene.judged(*window)
    return float((shown if judged is None else shown & judged).mean())
