"""Scores of squares of scenes, on the blocks and tiles of an inspection."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from blemish.data.scene_reader import SceneReader
from blemish.data.scene_splits import Square, calibration_squares, sides_for
from blemish.decision import needed
from blemish.errors import CalibrationError, Stopped
from blemish.inspection.detector import Detector
from blemish.inspection.scene_scorer import SceneScorer, scene_block_side
from blemish.observer import Observer
from blemish.recipes import Recipe
from blemish.recipes.schema import ThresholdSettings
from blemish.report.numbers import counted
from blemish.storage.blocks import Block, block_at

CALIBRATING = "calibrating; the trained network is in the checkpoint"


class Scored(NamedTuple):
    """Scores, and maxima of the anomaly maps."""

    scores: tuple[float, ...]
    map_maxima: tuple[float, ...]
    missing: tuple[int, ...] = ()
    """Numbers of the images that could no longer be read, and have no score."""
    classes: tuple[tuple[float, ...], ...] = ()
    """Scores of the classes of regions of each image; empty of a model without."""


def choose_squares(
    scenes: Sequence[SceneReader],
    columns: Sequence[slice],
    recipe: Recipe,
    *,
    sides: Sequence[int] | None = None,
    least: int = 1,
) -> tuple[int, list[Square]]:
    """Side of the squares in ``columns`` of each scene to score, and the squares; ``least`` of them where possible."""
    return calibration_squares(
        scenes,
        columns,
        sides=sides_for(recipe.patch.size) if sides is None else sides,
        needed=least,
        block_side=lambda size, side: scene_block_side(size, recipe.patch.stride, side),
    )


def score_squares(
    detector: Detector,
    scenes: Sequence[SceneReader],
    squares: Sequence[Square],
    observer: Observer,
    doing: str = CALIBRATING,
) -> Scored:
    """Scores and map maxima of ``squares`` of one side, in their order.

    Each is scored with its whole block, as in an inspection: same tiles, same batches, same neighbours, also those
    beyond the calibration band.

    Raises
    ------
    ImageError
        When a scene cannot be read there.
    Stopped
        When the observer asked to stop.
    """
    found: dict[tuple[int, int, int], tuple[float, float]] = {}

    def watched(blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            if observer.should_stop():
                raise Stopped(f"stopped while {doing}")
            yield block

    for number, opened in enumerate(scenes):
        own = [square for square in squares if square.scene == number]
        if not own:
            continue
        side = own[0].rows.stop - own[0].rows.start
        scorer = SceneScorer(detector, opened, side)
        places: dict[tuple[int, int], list[tuple[int, int]]] = {}
        blocks: list[Block] = []
        for square in own:
            top, left = square.rows.start, square.columns.start
            block = block_at((opened.height, opened.width), scorer.block_side, top, left)
            if (block.row, block.column) not in places:
                blocks.append(block)
            places.setdefault((block.row, block.column), []).append((top, left))
        for maps in scorer.blocks(watched(blocks)):
            block, scores = maps.block, scorer.scores(maps.anomaly)
            for top, left in places[block.row, block.column]:
                row, column = top - block.rows.start, left - block.columns.start
                score = scores[row // side][column // side]
                if score is not None:
                    inside = maps.anomaly[row : row + side, column : column + side]
                    found[number, top, left] = score, float(np.nanmax(np.maximum(inside, 0)))
            observer.count(len(found), len(squares))
    keys = [(square.scene, square.rows.start, square.columns.start) for square in squares]
    both = [found[key] for key in keys if key in found]
    return Scored(tuple(score for score, _ in both), tuple(maximum for _, maximum in both))


def refuse_too_few(source: Path, count: int, side: int, rule: ThresholdSettings) -> None:
    """Refuse a promise that ``count`` squares cannot carry.

    Raises
    ------
    CalibrationError
        Saying which rate they can promise.
    """
    least = least_squares(rule)
    if count >= least:
        return
    have = f"{counted(count, 'square')} of {side} × {side} pixels"
    if count == 0:
        raise CalibrationError(f"{source}: the scenes give {have} to calibrate on; add scenes")
    rate = rule.false_reject_rate
    raise CalibrationError(
        f"{source}: the scenes give {have} to calibrate on, which can promise a false-reject rate of "
        f"{100 / (count + 1):.3g} % at best; {100 * rate:.3g} % needs {needed(rate)}: add scenes, or pass "
        f"--false-reject-rate {math.ceil(1000 / (count + 1)) / 1000}"
    )


def least_squares(rule: ThresholdSettings) -> int:
    """Number of squares that the guarantee of ``rule`` needs."""
    return needed(rule.false_reject_rate) if rule.rule == "conformal" else 1
