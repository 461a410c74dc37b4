"""Anomaly maps and scores of the squares of a scene, block by block; memory does not depend on its size.

A model that cuts an image into overlapping tiles is shown all tiles of the scene-wide plan that touch a block, so a
map shows no seam between blocks and is what one pass over the whole scene would give. A tile on the border of two
blocks is computed for both: blocks are as large as it takes to keep that below a tenth of the work.

Calibration and inspection cut a scene into the same blocks and squares, and score them here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blemish.data.modality import channel_slices
from blemish.data.scene_reader import SceneReader
from blemish.data.scene_splits import LEAST_SHOWN
from blemish.detectors.contracts import Floats
from blemish.detectors.scoring import score_blocks
from blemish.errors import ImageError, UsageError
from blemish.inspection.detector import Detector
from blemish.storage.blocks import Block

OVERVIEW_SIDE = 2_000
SMALLEST_BLOCK = 512
TILES_A_SIDE = 21  # (22 / 21)² is just below 1.1


def block_side(stride: int, *parts: int) -> int:
    """Side of the blocks for tiles at a ``stride``: tiles examined twice are at most a tenth of all.

    It is a multiple of ``parts``: of the scored squares, and of what becomes one pixel of the overview.

    Examples
    --------
    >>> block_side(16, 128, 16), block_side(16, 96, 4), block_side(32, 128, 1), block_side(64, 128, 1)
    (512, 576, 768, 1408)
    """
    step = math.lcm(*parts)
    return math.ceil(max(SMALLEST_BLOCK, TILES_A_SIDE * stride) / step) * step


def overview_reduction(size: tuple[int, int]) -> int:
    """Pixels along a side for one pixel of the overview: the power of two that keeps it within 2,000 pixels.

    Examples
    --------
    >>> overview_reduction((512, 2000)), overview_reduction((20_000, 20_000))
    (1, 16)
    """
    reduction = 1
    while max(size) > OVERVIEW_SIDE * reduction:
        reduction *= 2
    return reduction


def scene_block_side(size: tuple[int, int], stride: int, square: int) -> int:
    """Side of the blocks of a scene of ``size`` (height, width), in calibration and inspection."""
    return block_side(stride, overview_reduction(size), square)


class SceneBlock(NamedTuple):
    """Pixels and maps of one block (h, w) of a scene; NaN where absent."""

    block: Block
    image: Floats
    """(C, h, w), as read."""
    anomaly: Floats
    """(h, w), the scored map."""
    reconstruction: Floats
    """(C, h, w) in [0, 1] from what the model was shown; of an absent modality, its prediction from the others."""
    own: Floats
    """(M, h, w), 1 − SSIM of each modality's own reconstruction."""
    cross: Floats
    """(M, h, w), 1 − SSIM of each modality's reconstruction from the others."""
    reading: float
    computing: float
    """Seconds."""


@dataclass(frozen=True)
class _CompleteReader:
    """The windows of a scene for a model that takes no absent values."""

    opened: SceneReader
    recipe: str

    @property
    def channels(self) -> int:
        return self.opened.channels

    @property
    def height(self) -> int:
        return self.opened.height

    @property
    def width(self) -> int:
        return self.opened.width

    def read(self, top: int, left: int, height: int, width: int) -> Floats:
        window = self.opened.read(top, left, height, width)
        if np.isnan(window).any():
            raise _incomplete(self.opened, f"has absent values near ({left}, {top})", self.recipe)
        return window


def _incomplete(opened: SceneReader, problem: str, recipe: str) -> ImageError:
    return ImageError(
        opened.scene.folder,
        f"{problem}, which {recipe} cannot do without",
        "fit fp-cae-add, fp-cae-concat or fp-cae, or leave the scene out",
    )


class SceneScorer:
    """Scores one scene as :meth:`Detector.measure` does one image, a block at a time.

    Parameters
    ----------
    square: side of the scored squares, in pixels.
    hidden: names of modalities that the model is not shown, though they are there to compare with.

    Raises
    ------
    ImageError
        When the scene is too small for the model, has nothing that is not hidden, or lacks a modality that the
        model needs.
    """

    def __init__(
        self, detector: Detector, opened: SceneReader, square: int, hidden: Sequence[str] = ()
    ) -> None:
        self.opened, self.square = opened, square
        self.detector = detector
        model, recipe = detector.model, detector.recipe
        size = (opened.height, opened.width)
        try:
            model.window(size, slice(0, opened.height), slice(0, opened.width))
        except UsageError as error:
            raise ImageError(
                opened.scene.folder,
                str(error),
                "inspect larger scenes, or fit with a smaller --set patch.size",
            ) from None
        channels = channel_slices(opened.modalities)
        self._hidden = [
            own for own, one in zip(channels, opened.modalities, strict=True) if one.name in hidden
        ]
        self._shown = np.ones(opened.channels, np.bool_)
        for own in self._hidden:
            self._shown[own] = False
        if not {one.name for one in opened.modalities} - {*opened.missing, *hidden}:
            problem = f"has nothing else than what is to be hidden ({', '.join(hidden)})"
            raise ImageError(opened.scene.folder, problem, "hide another modality, or leave it out")
        self._reader: SceneReader | _CompleteReader = opened
        if not model.takes_absent:
            if opened.missing:
                raise _incomplete(opened, f"has no {', '.join(opened.missing)}", recipe.name)
            self._reader = _CompleteReader(opened, recipe.name)
        self.block_side = scene_block_side(size, recipe.patch.stride, square)

    def blocks(self, blocks: Iterable[Block]) -> Iterator[SceneBlock]:
        """Pixels and maps of ``blocks``, one after the other; NaN where nothing is judged, and the anomaly map also
        where nothing was shown.

        Raises
        ------
        ImageError
            When a file of the scene is damaged there, or lacks values that the model needs.
        """
        count = len(self.opened.modalities)
        for block, image, maps, *seconds in score_blocks(
            self.detector.model, self._reader, blocks, hidden=self._hidden
        ):
            absent = np.full((count, *block.shape), np.nan, np.float32)
            made = np.full_like(image, np.nan) if maps.reconstruction is None else maps.reconstruction
            # Where the model was shown nothing there is nothing to compare, and 0 would stand for a perfect match.
            shown = np.isfinite(image[self._shown]).any(0)
            own, cross = (absent if plane is None else plane for plane in (maps.own, maps.cross))
            top, left = block.rows.start, block.columns.start
            judged = self.opened.judged(top, left, *block.shape)
            if judged is not None:
                shown &= judged
                own, cross = (np.where(judged, plane, np.float32(np.nan)) for plane in (own, cross))
            yield SceneBlock(
                block,
                image,
                np.where(shown, maps.anomaly, np.float32(np.nan)),
                made.clip(0, 1),
                own,
                cross,
                *seconds,
            )

    def scores(self, anomaly: NDArray[np.float32]) -> tuple[tuple[float | None, ...], ...]:
        """Scores of the squares of a block's anomaly map (h, w), row by row.

        None stands for a square of which less than half is there, be it absent or beyond the scene's edge.
        """
        (height, width), side = anomaly.shape, self.square
        return tuple(
            tuple(
                self._score(anomaly[top : top + side, left : left + side]) for left in range(0, width, side)
            )
            for top in range(0, height, side)
        )

    def _score(self, anomaly: NDArray[np.float32]) -> float | None:
        full = min(self.square, self.opened.height) * min(self.square, self.opened.width)
        if np.isfinite(anomaly).sum() < LEAST_SHOWN * full:
            return None
        return self.detector.score(np.nan_to_num(np.maximum(anomaly, 0)))
